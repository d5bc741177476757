"""Nested training state <-> one safetensors file: tensors only, no pickle, hashed while it is written."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from torch import Tensor

State = Mapping[str, Any]
"""Names -> tensors, plain values (numbers, strings, lists of them) or states again; a name holds no slash."""

PLAIN = "plain"
CHUNK = 8 << 20
TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""As the format calls them."""


@dataclass(frozen=True)
class StateFile:
    """A state laid out for writing: the header, and the bytes of each tensor where they lie in memory.

    Nothing is copied, so what is written is what stands there when ``write`` runs.
    """

    header: bytes
    contents: list[npt.NDArray[np.uint8]]

    @classmethod
    def of(cls, state: State) -> "StateFile":
        """Lay out ``state``; tensors of other devices are brought over first."""
        tensors: dict[str, Tensor] = {}
        plain: dict[str, Any] = {}
        for name, value in _leaves(state, ""):
            (tensors if isinstance(value, Tensor) else plain)[name] = value
        header: dict[str, Any] = {"__metadata__": {PLAIN: json.dumps(plain, sort_keys=True)}}
        contents: list[npt.NDArray[np.uint8]] = []
        place = 0
        for name, tensor in sorted(tensors.items()):
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            end = place + len(content)
            header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, end]}
            contents.append(content)
            place = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return cls(len(text).to_bytes(8, "little") + text, contents)

    def write(self, path: Path) -> dict[str, int | str]:
        """Write it to ``path`` and to the disk; returns its bytes and sha256, as ``core.io.manifest_of`` would."""
        digest, size = hashlib.sha256(), 0
        # The digest is taken by a thread beside the writing: both release the interpreter.
        with ThreadPoolExecutor(1) as beside, path.open("wb", buffering=0) as file:
            last = beside.submit(digest.update, b"")
            for chunk in self._chunks():
                last = beside.submit(digest.update, chunk)
                done = 0
                while done < len(chunk):
                    done += file.write(chunk[done:])
                size += len(chunk)
            os.fsync(file.fileno())
            last.result()
        return {"bytes": size, "sha256": digest.hexdigest()}

    def _chunks(self) -> Iterator[memoryview]:
        yield memoryview(self.header)
        for content in self.contents:
            whole = content.data
            for start in range(0, len(content), CHUNK):
                yield whole[start : start + CHUNK]


def read_state(path: Path) -> dict[str, Any]:
    """The state in a file, with all tensors in the memory of the processor."""
    state: dict[str, Any] = {}
    with safe_open(path, framework="pt") as file:
        values = json.loads(file.metadata()[PLAIN])
        values |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    for name, value in values.items():
        *groups, last = name.split("/")
        place = state
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return state


def _leaves(state: State, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in state.items():
        assert "/" not in name, f"the name {name!r} holds a slash"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
