"""The keys of any training: batch, length, optimiser, precision, engine."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from affect_hpc.config.checks import in_range
from affect_hpc.config.fields import transient


class Precision(Enum):
    """Arithmetic of forward and backward passes; master weights are float32."""

    fp32 = "float32"
    bf16 = "bfloat16 autocast"
    fp16 = "float16 autocast, the loss scaled so that small gradients are not lost"


class LrSchedule(Enum):
    """Learning rate as a function of samples seen."""

    constant = "lr"
    cosine = "lr falling to zero along half a cosine"
    onecycle = "rising over the first quarter, then falling along half a cosine"


class EngineName(Enum):
    """What runs the optimisation step."""

    deepspeed = "DeepSpeed ZeRO"
    plain = "torch alone, one process"


@dataclass
class ShuffleConfig:
    """Order of the training samples (data/stream.py)."""

    block: int = 16
    """Neighbouring samples that stay within one window: they are read from one place of the disk."""
    window: int = 256
    """Blocks whose samples are permuted among themselves."""
    balanced: bool = False
    """Every class equally often, instead of every sample once an epoch."""

    def check(self, key: str) -> None:
        """Raise UserError where a value is out of range; ``key`` is where this config stands."""
        in_range(f"{key}.block", self.block, 1, 1_000_000, "samples")
        in_range(f"{key}.window", self.window, 1, 1_000_000, "blocks")


@dataclass
class TrainConfig:
    """One optimisation. Everything counts samples seen, so that a resumed run is the same run."""

    global_batch_size: int = MISSING
    """Samples of one optimiser step over all ranks and accumulation steps."""
    samples_total: int = MISSING
    """Samples seen when training ends."""
    lr: float = MISSING
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.01
    lr_schedule: LrSchedule = LrSchedule.constant
    clip_grad_norm: float = 0.0
    """Largest gradient norm; 0 = no clipping (thesis)."""
    precision: Precision = Precision.fp32
    seed: int = 0
    shuffle: ShuffleConfig = field(default_factory=ShuffleConfig)
    workers: int = transient(0)
    """Processes of each rank that read ahead; 0 = the training process reads itself."""
    damaged_budget: int = transient(16)
    """Damaged samples that a rank may meet, list in quarantine.jsonl and pass over; one more stops the training."""
    micro_batch_size: int = transient(0)
    """Samples of one forward pass on one rank; 0 = global_batch_size / ranks."""
    engine: EngineName = transient(EngineName.deepspeed)
    zero_stage: int = transient(0)
    log_every: int = transient(20)
    """Steps between two log lines and TensorBoard points."""
    save_every: int = transient(200)
    """Steps between two checkpoints."""
    keep_checkpoints: int = transient(2)
    save_in_background: bool = transient(False)
    """Write checkpoints in a forked process while training goes on; takes the memory of the state once more at most."""
    stall_s: float = transient(60.0)
    """A step that takes longer than this and twenty times the longest one before ends the job; 0 = never."""
    peak_tflops: float = transient(0.0)
    """What a rank's device can do in this precision, for the utilisation in the log; 0 = unknown."""

    def micro_batch(self, ranks: int) -> int:
        """Samples of one forward pass on one of so many ranks."""
        return self.micro_batch_size or self.global_batch_size // ranks

    def check(self, key: str) -> None:
        """Raise UserError where a value is out of range; ``key`` is where this config stands."""
        in_range(f"{key}.global_batch_size", self.global_batch_size, 1, 1_000_000)
        in_range(f"{key}.samples_total", self.samples_total, 1, 10**12)
        in_range(f"{key}.lr", self.lr, 1e-9, 10)
        in_range(f"{key}.workers", self.workers, 0, 256)
        in_range(f"{key}.damaged_budget", self.damaged_budget, 0, 10**9, "samples")
        self.shuffle.check(f"{key}.shuffle")
        in_range(f"{key}.zero_stage", self.zero_stage, 0, 3)
        in_range(f"{key}.stall_s", self.stall_s, 0, 10**6, "seconds")
        in_range(f"{key}.save_every", self.save_every, 1, 10**9, "steps")
        in_range(f"{key}.log_every", self.log_every, 1, 10**9, "steps")
        in_range(f"{key}.keep_checkpoints", self.keep_checkpoints, 1, 10**6)
        in_range(f"{key}.peak_tflops", self.peak_tflops, 0, 10**6, "TFLOP/s")
        in_range(f"{key}.micro_batch_size", self.micro_batch_size, 0, self.global_batch_size)
