"""Arithmetic of networks: master weights stay float32, products are taken in what the config names."""

import os
from contextlib import AbstractContextManager
from typing import Any

import torch

from affect_hpc.config.train import Precision

DTYPES = {Precision.fp32: torch.float32, Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Within it networks compute in ``precision``."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision is not Precision.fp32)


def same_bits_on_gpus() -> None:
    """Have GPUs of a kind give the same bits each time, and float32 where the config names it.

    Left alone, torch takes the products of float32 convolutions in TF32 (a mantissa of ten bits), and adds gradients in
    whatever order threads come: a training that was stopped and resumed would not be the one that never was. An
    operation that has no such way raises RuntimeError.
    """
    # cuBLAS reads it when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True)
    # New memory is written before it is read: filling it first would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
