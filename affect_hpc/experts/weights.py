"""Packaged weight files -> tensors: the tfjs format of two of the networks."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def read_tfjs(entries: Sequence[Mapping[str, Any]], path: Path) -> dict[str, Tensor]:
    """The tensors of one tfjs weight file.

    Args:
        entries: the manifest's list ``weights``: name, shape, dtype and, where quantised, scale and min, in file order.
        path: the binary file.

    Returns:
        Name -> tensor in tfjs' own axis order; quantised ones as scale * q + min in float32.
    """
    content = path.read_bytes()
    tensors: dict[str, Tensor] = {}
    offset = 0
    for entry in entries:
        coding = entry.get("quantization")
        stored = np.dtype(coding["dtype"] if coding else entry["dtype"])
        count = math.prod(entry["shape"])
        values = np.frombuffer(content, stored, count, offset).reshape(entry["shape"])
        offset += count * stored.itemsize
        if coding:
            values = (values.astype(np.float64) * coding["scale"] + coding["min"]).astype(np.float32)
        tensors[entry["name"]] = torch.from_numpy(values.copy())
    if offset != len(content):
        raise ValueError(f"{path} holds {len(content)} bytes, its manifest describes {offset}")
    return tensors


def conv_weight(kernel: Tensor) -> Tensor:
    """TensorFlow kernel (h, w, in, out) -> torch kernel (out, in, h, w)."""
    return kernel.permute(3, 2, 0, 1).contiguous()


def depthwise_weight(kernel: Tensor) -> Tensor:
    """TensorFlow depthwise kernel (h, w, channels, 1) -> torch kernel (channels, 1, h, w)."""
    return kernel.permute(2, 3, 0, 1).contiguous()
