"""Where and with what the jobs run. Nothing here changes a result, so nothing here is part of a signature."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from affect_hpc.config.checks import in_range, one_of
from affect_hpc.config.train import Precision
from affect_hpc.core.errors import UserError


class ExecutorName(Enum):
    """Who starts the jobs."""

    inline = "this process, one after the other"
    local = "processes of this machine, a few at once"
    slurm = "a SLURM cluster"


@dataclass
class Resources:
    """What one job (one array element) asks for."""

    nodes: int = 1
    tasks_per_node: int = 1
    """Processes (ranks) on each node; one per GPU in training."""
    cpus_per_task: int = 1
    gpus_per_node: int = 0
    mem_gb: float = 4
    timeout_min: int = 60


@dataclass
class ClusterConfig:
    """One cluster: group ``cluster``."""

    name: str = MISSING
    executor: ExecutorName = MISSING
    resources: dict[str, Resources] = field(default_factory=dict)
    """By resource class (cpu, train, infer) or, taking precedence, by stage name."""
    parts: int = 1
    """Array elements that share the work of one divisible stage run."""
    slots: int = 2
    """Local: processors to be shared; a job takes cpus_per_task times its ranks of them, but never more than all."""
    peak_tflops: dict[str, float] = field(default_factory=dict)
    """TFLOP/s of one GPU by precision (fp32, bf16, fp16), without sparsity: the plan then states GPU hours."""
    utilisation: list[float] = field(default_factory=lambda: [0.25, 0.45])
    """Share of that peak which trainings reach, low and high: what the stated hours assume."""
    retry: bool = True
    """Run failed jobs again on the next launch."""
    max_attempts: int = 3
    """Failures of one job after which a launch leaves it alone; `python -m affect_hpc.rerun` forgets them."""
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    gres: str = ""
    """Passed as --gres instead of --gpus-per-node where set, for clusters without the latter."""
    max_array_size: int = 1001
    """SLURM's MaxArraySize: larger arrays are split."""
    array_parallelism: int = 256
    """Elements of one array that run at once."""
    signal_delay_s: int = 120
    """Warning time before SLURM's time limit."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before the job's command (module load ...)."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment of the launcher's own calls of the scheduler, such as SLURM_CONF."""
    extra: dict[str, str] = field(default_factory=dict)
    """Further sbatch options, name -> value."""

    def check(self) -> None:
        """Raise UserError where a value is out of range."""
        in_range("cluster.parts", self.parts, 1, 100_000)
        in_range("cluster.slots", self.slots, 1, 10_000)
        for name, peak in self.peak_tflops.items():
            one_of("cluster.peak_tflops", name, [precision.name for precision in Precision])
            in_range(f"cluster.peak_tflops.{name}", peak, 0, 1_000_000, "TFLOP/s")
        if len(self.utilisation) != 2 or not 0 < self.utilisation[0] <= self.utilisation[1] <= 1:
            raise UserError(
                f"cluster.utilisation={self.utilisation} is no range: give two shares from 0 to 1, the lower one"
                " first, such as [0.25,0.45]."
            )
        in_range("cluster.max_array_size", self.max_array_size, 2, 10_000_000)

    def resources_of(self, stage: str, resource_class: str) -> Resources:
        """What a job of ``stage`` asks for: the stage's own entry, else its class'."""
        for key in (stage, resource_class):
            if key in self.resources:
                return self.resources[key]
        raise UserError(f"cluster.resources has no entry {resource_class!r}: it has {', '.join(self.resources)}.")
