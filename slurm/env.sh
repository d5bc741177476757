# shellcheck shell=bash
# Source this in a job on a real cluster:  . slurm/env.sh
# It only fills in what is unset: whatever the site or the user exported stays as it is.

# PyTorch starts one thread a core of the whole node unless told; SLURM gave this task fewer.
# SLURM sets SLURM_CPUS_PER_TASK only where --cpus-per-task was asked for; without it a task has one CPU.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"

# Since 22.05 srun no longer takes --cpus-per-task over from sbatch; this variable is the documented way.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
  export SRUN_CPUS_PER_TASK="${SRUN_CPUS_PER_TASK:-$SLURM_CPUS_PER_TASK}"
fi

# Where torch.distributed's ranks meet: the first node of the job.
if [ -z "${MASTER_ADDR:-}" ]; then
  MASTER_ADDR=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-}" 2>/dev/null | head -n 1)
  export MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}"
fi

# From the job's id, so that two jobs on one node differ and all ranks of one job agree (array elements
# have ids of their own). Below 32768, where Linux begins to hand out ports to outgoing connections.
export MASTER_PORT="${MASTER_PORT:-$((20000 + ${SLURM_JOB_ID:-0} % 10000))}"

# NCCL prints nothing by default, not even why it gives up; WARN is its documented level for errors.
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
# Not set here, for they depend on the site (NCCL's documentation, "Environment Variables"):
#   NCCL_SOCKET_IFNAME  on nodes with several networks, the one that the nodes share, e.g. "ib0"
#   NCCL_IB_DISABLE=1   where InfiniBand hardware is present but not usable from jobs
