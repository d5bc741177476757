"""Arithmetic of forward passes: master weights stay float32, products are taken in what the config names."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from affect_hpc.config.train import Precision

DTYPES = {Precision.fp32: torch.float32, Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Within it networks compute in ``precision``."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision is not Precision.fp32)
