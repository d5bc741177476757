"""Starting jobs through submitit: processes of this machine, or arrays on SLURM."""

import logging
import os
import shlex
import sys
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


def _executor(
    folder: Path, job_name: str, indices: list[int], resources: Resources, cluster: ClusterConfig
) -> ArrayExecutor:
    executor = ArrayExecutor(folder=folder)
    extra: dict[str, Any] = {"kill-on-invalid-dep": "yes", "requeue": True, **cluster.extra}
    parameters: dict[str, Any] = {
        "job_name": job_name,
        "time": resources.timeout_min,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks_per_node,
        "cpus_per_task": resources.cpus_per_task,
        "mem": f"{int(resources.mem_gb * 1024)}M",
        "signal_delay_s": cluster.signal_delay_s,
        "stderr_to_stdout": True,
    }
    if resources.gpus_per_node:
        if cluster.gres:
            parameters["gres"] = cluster.gres
        else:
            parameters["gpus_per_node"] = resources.gpus_per_node
    for key in ("partition", "account", "qos", "constraint"):
        if getattr(cluster, key):
            parameters[key] = getattr(cluster, key)
    executor.indices = f"{','.join(map(str, indices))}%{cluster.array_parallelism}"
    executor.parameters.update(parameters, additional_parameters=extra)
    return executor


def array_text(
    folder: Path,
    job_name: str,
    indices: list[int],
    resources: Resources,
    cluster: ClusterConfig,
    dependency: str,
    hold: bool,
    code: Path | None,
) -> str:
    """The sbatch text of one array."""
    executor = _prepared(folder, job_name, indices, resources, cluster, dependency, hold, code)
    return executor._make_submission_file_text(worker_command("--array", str(folder / f"{job_name}.json")), "")


def submit_array(
    folder: Path,
    job_name: str,
    indices: list[int],
    resources: Resources,
    cluster: ClusterConfig,
    dependency: str,
    hold: bool,
    code: Path | None,
) -> str:
    """Submit one array; returns its job id. UserError where sbatch refuses."""
    executor = _prepared(folder, job_name, indices, resources, cluster, dependency, hold, code)
    # submitit hands sbatch this process' environment.
    os.environ.update(cluster.env)
    try:
        job: Any = executor._submit_command(worker_command("--array", str(folder / f"{job_name}.json")))
    except FailedJobError as error:
        raise UserError(f"sbatch refused the array {job_name}: {str(error).strip().splitlines()[-1]}") from error
    return str(job.job_id)


def _prepared(
    folder: Path,
    job_name: str,
    indices: list[int],
    resources: Resources,
    cluster: ClusterConfig,
    dependency: str,
    hold: bool,
    code: Path | None,
) -> ArrayExecutor:
    executor = _executor(folder, job_name, indices, resources, cluster)
    if dependency:
        executor.parameters["dependency"] = dependency
    if hold:
        executor.parameters["additional_parameters"]["hold"] = True
    exports = [f"export {name}={shlex.quote(value)}" for name, value in cluster.env.items()]
    if code is not None:
        # An edit after the submission never reaches a queued job: it runs the archived commit.
        exports += [
            f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
            f"cd {shlex.quote(str(code))}",
        ]
    exports.append(f"export OMP_NUM_THREADS={resources.cpus_per_task}")
    executor.parameters["setup"] = [*cluster.setup, *exports]
    return executor
