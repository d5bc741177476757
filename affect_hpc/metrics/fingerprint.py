"""Which weights a judge has: a digest of their content, whatever file they came from."""

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.generic]


def fingerprint(judge: object) -> str:
    """SHA-256 over names, shapes and values of everything that a judge has learnt.

    A judge that keeps its weights where they cannot be seen (a compiled library) says its own ``digest``.

    Raises:
        ValueError: where it holds no weights and says no digest.
    """
    said = getattr(judge, "digest", None)
    if isinstance(said, str):
        return said
    total = hashlib.sha256()
    found = False
    for name, array in sorted(_arrays(judge), key=lambda entry: entry[0]):
        found = True
        total.update(f"{name}|{array.dtype}|{array.shape}|".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    if not found:
        raise ValueError(f"{type(judge).__name__} shows no weights: give it a 'digest' (SHA-256 of its weight file)")
    return total.hexdigest()


def _arrays(holder: object) -> Iterator[tuple[str, Array]]:
    if isinstance(holder, torch.nn.Module):
        for name, tensor in holder.state_dict().items():
            yield name, _bits(tensor)
        return
    values: Mapping[str, object] = vars(holder)
    for name, value in values.items():
        if isinstance(value, torch.nn.Module):
            yield from ((f"{name}.{inner}", array) for inner, array in _arrays(value))
        elif isinstance(value, torch.Tensor):
            yield name, _bits(value)
        elif isinstance(value, np.ndarray):
            yield name, value


def _bits(tensor: torch.Tensor) -> Array:
    """The tensor's bytes: NumPy has no bfloat16, and a digest needs no numbers."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
