"""Ranks: who this process is, and helpers that vanish when it is alone."""

import atexit
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FileStore, HashStore, Store

from affect_hpc.core.errors import UserError
from affect_hpc.train.precision import same_bits_on_gpus

JOIN_S = 300.0
"""How long ranks wait for each other at the start: they import their libraries at different speeds."""


@dataclass(frozen=True)
class Ranks:
    """Place of this process among the processes of its job."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @classmethod
    def of_environment(cls) -> "Ranks":
        """From srun, submitit's local executor or torchrun; alone where none of them started us."""
        for rank, world, local in (
            ("SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_LOCALID"),
            ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
            ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ):
            if rank in os.environ and world in os.environ:
                return cls(int(os.environ[rank]), int(os.environ[world]), int(os.environ[local]))
        return cls()


def device_of(ranks: Ranks) -> torch.device:
    """The GPU of this rank, made to repeat its bits, or the CPU where there is none."""
    if torch.cuda.is_available():
        same_bits_on_gpus()
        return torch.device("cuda", ranks.local_rank % torch.cuda.device_count())
    return torch.device("cpu")


def attempt_name() -> str:
    """What all ranks of this attempt share and no other attempt has, as part of a file name."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "SUBMITIT_LOCAL_JOB_ID", "TORCHELASTIC_RUN_ID")
    return "-".join(["attempt", *(os.environ[name] for name in names if name in os.environ)])


def set_up(ranks: Ranks, keep: Path) -> None:
    """Join the process group; once per process.

    Args:
        keep: folder on a file system that all ranks share. They meet in a file there, which needs no free port.
    """
    if dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(device_of(ranks))
    # A group that is left in good order removes its file: a job that is started again under its old name needs that.
    atexit.register(_leave)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    limit = timedelta(minutes=30)
    if ranks.world == 1:
        # DeepSpeed wants a group of one as well.
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=limit)
        return
    keep.mkdir(parents=True, exist_ok=True)
    store = FileStore(str(keep.absolute() / f".rendezvous-{attempt_name()}"), ranks.world)
    require_own_gpus(meet(store, ranks, JOIN_S, gpu_name()))
    dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.world, timeout=limit)


def meet(store: Store, ranks: Ranks, patience_s: float, word: str = "") -> list[str]:
    """Wait for all ranks; torch alone would wait for half an hour for one that died on its way.

    Returns:
        The ``word`` of each rank.

    Raises:
        UserError: some did not come.
    """
    store.set(f"here/{ranks.rank}", word)
    deadline = time.monotonic() + patience_s
    while missing := [rank for rank in range(ranks.world) if not store.check([f"here/{rank}"])]:
        if time.monotonic() > deadline:
            raise UserError(
                f"rank {', '.join(map(str, missing))} of {ranks.world} did not come within {patience_s:g} s: its log"
                " says why it ended, or it was never started (cluster.resources of this stage)."
            )
        time.sleep(0.05)
    return [store.get(f"here/{rank}").decode() for rank in range(ranks.world)]


def gpu_name() -> str:
    """What no other GPU is called; empty where this rank has none."""
    if not torch.cuda.is_available():
        return ""
    return f"GPU {torch.cuda.get_device_properties(torch.cuda.current_device()).uuid} of {socket.gethostname()}"


def require_own_gpus(names: Sequence[str]) -> None:
    """UserError where two ranks have one GPU, which NCCL does not take; ``names`` are those of ``gpu_name``."""
    for rank, name in enumerate(names):
        first = names.index(name)
        if name and first != rank:
            raise UserError(
                f"ranks {first} and {rank} of {len(names)} have the same {name}: give each rank one of its own, by"
                " cluster.resources (gpus_per_node, at least tasks_per_node), or start fewer."
            )


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


def highest_of_ranks(value: int) -> int:
    """The largest value of any rank; all ranks get the same answer at the same step."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    votes = torch.tensor([value], device=device)
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return int(votes.item())


def from_chief(value: Tensor) -> Tensor:
    """Rank 0's value on all ranks; all give a tensor of the same shape."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        value = value.contiguous()
        dist.broadcast(value, 0)
    return value


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean of a scalar over all ranks."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def object_from_chief(value: Any) -> Any:
    """Rank 0's value on all ranks, of any kind that can be pickled."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return value
    box = [value]
    dist.broadcast_object_list(box, 0)
    return box[0]


def objects_of_ranks(value: Any) -> list[Any]:
    """What each rank gives, in order of ranks, on all of them."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found
