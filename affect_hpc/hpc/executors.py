"""Starting jobs through submitit: processes of this machine, or arrays on SLURM."""

import logging
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit.core.utils import FailedJobError
from submitit.local.local import LocalExecutor
from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

from affect_hpc.config.cluster import ClusterConfig, Resources
from affect_hpc.core.errors import UserError

logging.getLogger("submitit").setLevel(logging.ERROR)


def worker_command(*arguments: str) -> str:
    """The shell command of a job."""
    return shlex.join([sys.executable, "-u", "-m", "affect_hpc.hpc.worker", *arguments])


def start_local(folders: list[Path], resources: Resources, cluster: ClusterConfig) -> int:
    """Start one job for some elements on this machine; returns the process id of its controller.

    The controller is submitit's: it starts the ranks, sends the warning signal before the time limit and starts a job
    again that asks for it.
    """
    log = folders[0] / "log"
    log.mkdir(parents=True, exist_ok=True)
    executor = LocalExecutor(folder=log)
    executor.update_parameters(
        timeout_min=resources.timeout_min,
        tasks_per_node=resources.tasks_per_node,
        gpus_per_node=resources.gpus_per_node,
        signal_delay_s=cluster.signal_delay_s,
        stderr_to_stdout=True,
        **({"setup": list(cluster.setup)} if cluster.setup else {}),
    )
    # submitit hands its controller this process' environment. Passive waiting: processors are shared with other jobs.
    os.environ.update(OMP_NUM_THREADS=str(resources.cpus_per_task), OMP_WAIT_POLICY="PASSIVE")
    job: Any = executor._submit_command(worker_command(*map(str, folders)))
    return int(job.job_id)


class ArrayExecutor(SlurmExecutor):
    """submitit's SLURM executor, for arrays with indices of our choice that run our own worker.

    submitit numbers array elements 0..n-1 and hands work over as pickles; here an index file says which element does
    what, the numbers stay stable from stage to stage, and the truth about a job is in its run folder.
    """

    indices: str = ""

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        parameters = {**self.parameters}
        extra = {**(parameters.pop("additional_parameters", None) or {}), "array": self.indices}
        return str(
            _make_sbatch_string(
                command=command, folder=self.folder, map_count=1, additional_parameters=extra, **parameters
            )
        )

    @classmethod
    def affinity(cls) -> int:
        return 2  # a dry run writes the text on machines without SLURM too


@dataclass(frozen=True)
class ArrayRequest:
    """One sbatch call.

    The index file ``folder/<job_name>.json`` says which element each index does.
    """

    folder: Path
    job_name: str
    indices: list[int]
    resources: Resources
    dependency: str
    """Value of --dependency; empty for none."""
    hold: bool
    """Wait for a release, whatever the dependencies."""
    code: Path | None
    """Archived tree that the jobs run; None for the installed package."""

    @property
    def command(self) -> str:
        """What each element of the array runs."""
        return worker_command("--array", str(self.folder / f"{self.job_name}.json"))


def array_text(request: ArrayRequest, cluster: ClusterConfig) -> str:
    """The sbatch text of one array."""
    return _executor(request, cluster)._make_submission_file_text(request.command, "")


def submit_array(request: ArrayRequest, cluster: ClusterConfig) -> str:
    """Submit one array; returns its job id. UserError where sbatch refuses."""
    executor = _executor(request, cluster)
    # submitit hands sbatch this process' environment.
    os.environ.update(cluster.env)
    try:
        job: Any = executor._submit_command(request.command)
    except FailedJobError as error:
        why = str(error).strip().splitlines()[-1]
        raise UserError(f"sbatch refused the array {request.job_name}: {why}") from error
    return str(job.job_id)


def _executor(request: ArrayRequest, cluster: ClusterConfig) -> ArrayExecutor:
    resources = request.resources
    executor = ArrayExecutor(folder=request.folder)
    executor.indices = f"{','.join(map(str, request.indices))}%{cluster.array_parallelism}"
    executor.parameters.update(
        job_name=request.job_name,
        time=resources.timeout_min,
        nodes=resources.nodes,
        ntasks_per_node=resources.tasks_per_node,
        cpus_per_task=resources.cpus_per_task,
        mem=f"{int(resources.mem_gb * 1024)}M",
        signal_delay_s=cluster.signal_delay_s,
        stderr_to_stdout=True,
        setup=_setup(request, cluster),
        # A rank that dies takes the others along: they would wait for it.
        srun_args=["--kill-on-bad-exit=1"],
        additional_parameters={"kill-on-invalid-dep": "yes", "requeue": True, **cluster.extra},
    )
    if request.hold:
        executor.parameters["additional_parameters"]["hold"] = True
    gpus = resources.gpus_per_node
    optional = {
        "dependency": request.dependency,
        "gres": cluster.gres if gpus else "",
        "gpus_per_node": gpus if not cluster.gres else 0,
        **{key: getattr(cluster, key) for key in ("partition", "account", "qos", "constraint")},
    }
    executor.parameters.update({key: value for key, value in optional.items() if value})
    return executor


def _setup(request: ArrayRequest, cluster: ClusterConfig) -> list[str]:
    """Shell lines before the command of a job."""
    lines = [*cluster.setup, *(f"export {name}={shlex.quote(value)}" for name, value in cluster.env.items())]
    if request.code is not None:
        # An edit after the submission never reaches a queued job: it runs the archived commit.
        code = shlex.quote(str(request.code))
        lines += [f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}", f"cd {code}"]
    return [*lines, f"export OMP_NUM_THREADS={request.resources.cpus_per_task}"]
