"""Reading checkpoints: every tensor to the bit, and nothing that a pickle asks for is run."""

import argparse
import builtins
import importlib
import io
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original_layout import save_lightning

from affect_hpc.core.errors import UserError
from affect_hpc.models.unpickle import Entry, Storage, read_tensors

FORMATS = pytest.mark.parametrize("new_format", [True, False], ids=["zip", "old"])


def tensors() -> dict[str, torch.Tensor]:
    shared = torch.arange(12.0)
    return {
        "shared": shared,
        "a part": shared[3:7],
        "transposed": torch.arange(6).reshape(2, 3).T,
        "every second": torch.randn(4, 6)[:, ::2],
        "double": torch.randn(3, dtype=torch.float64),
        "half": torch.randn(3).half(),
        "bfloat16": torch.randn(3).bfloat16(),
        "bytes": torch.tensor([0, 255], dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "number": torch.tensor(-7, dtype=torch.int32),
        "none": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }


@FORMATS
def test_tensors_are_read_to_the_bit(new_format: bool, tmp_path: Path) -> None:
    expected = tensors()
    save_lightning(tmp_path / "m.ckpt", OrderedDict(expected), new_format)
    torch.save(expected, tmp_path / "alone.pt", _use_new_zipfile_serialization=new_format)
    for name in ("m.ckpt", "alone.pt"):
        found = read_tensors(tmp_path / name)
        assert list(found) == list(expected)
        for key, tensor in expected.items():
            assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor), key
    assert not any(module.startswith("pytorch_lightning") for module in sys.modules)


@FORMATS
def test_what_a_training_leaves_behind_is_passed_over(new_format: bool, tmp_path: Path) -> None:
    left = {
        "hyper_parameters": argparse.Namespace(folder=pathlib.PurePosixPath("/a"), names={"b"}, lr=np.float64(0.1)),
        "loops": defaultdict(dict, {1: {2: np.arange(3)}}),
        "dtype": torch.float16,
        "shape": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "range": slice(1, 2),
        "class": dict,
    }
    save_lightning(tmp_path / "m.ckpt", {"w": torch.ones(2)}, new_format, **left)
    assert torch.equal(read_tensors(tmp_path / "m.ckpt")["w"], torch.ones(2))


class Payload:
    """Unpickles to the result of a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


PAYLOADS: dict[str, Callable[[Path], Payload]] = {
    f"{os.system.__module__}.system": lambda mark: Payload(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Payload(builtins.eval, f"open({str(mark)!r}, 'w').close()"),
    "builtins.exec": lambda mark: Payload(builtins.exec, f"open({str(mark)!r}, 'w').close()"),
    "builtins.getattr": lambda mark: Payload(getattr, mark, "touch"),
    "subprocess.Popen": lambda mark: Payload(subprocess.Popen, ["touch", str(mark)]),
    "subprocess.check_output": lambda mark: Payload(subprocess.check_output, ["touch", str(mark)]),
    "importlib.import_module": lambda mark: Payload(importlib.import_module, "antigravity"),
    "pathlib.Path": lambda mark: Payload(Path, str(mark)),
    "numpy.load": lambda mark: Payload(np.load, str(mark)),
    "torch.serialization.load": lambda mark: Payload(torch.load, str(mark)),
    "torch.storage._load_from_bytes": lambda mark: Payload(torch.storage._load_from_bytes, b""),
}
PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "in the state dict": lambda payload: {"state_dict": {"w": torch.ones(1), "x": payload}},
    "deep in the state dict": lambda payload: {"state_dict": {"w": torch.ones(1), "x": [{"y": (payload,)}]}},
    "instead of the state dict": lambda payload: {"state_dict": payload},
    "in callbacks": lambda payload: {"state_dict": {"w": torch.ones(1)}, "callbacks": {"c": [payload]}},
    "in the state of a harmless object": lambda payload: {
        "state_dict": {"w": torch.ones(1)},
        "hyper_parameters": argparse.Namespace(x=payload),
    },
    "alone": lambda payload: payload,
}


@FORMATS
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_harmful_payload_is_refused_and_not_run(name: str, place: str, new_format: bool, tmp_path: Path) -> None:
    mark, file = tmp_path / "run", tmp_path / "bad.ckpt"
    torch.save(PLACES[place](PAYLOADS[name](mark)), file, _use_new_zipfile_serialization=new_format)
    with pytest.raises(UserError, match=f"asks for {name}, which no checkpoint of tensors needs: it was not run") as no:
        read_tensors(file)
    assert not mark.exists() and "antigravity" not in sys.modules
    assert "\n" not in str(no.value)


def zip_of(pickled: bytes, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickled)
    return path


@pytest.mark.parametrize(
    ("pickled", "name"),
    [
        (b"cposix\nsystem\n.", r"posix\.system"),  # named, never called
        (b"(S'touch x'\niposix\nsystem\n.", r"posix\.system"),  # called as old classes are made
        (b"(cposix\nsystem\nS'touch x'\no.", r"posix\.system"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.", r"collections\.OrderedDict\.__init__"),
        (b"\x80\x04\x8c\x11pytorch_lightning\x8c\x0aTrainer.os\x93.", r"pytorch_lightning\.Trainer\.os"),
        (b"cpytorch_lightning.cli\nrun\n.", r"pytorch_lightning\.cli\.run"),  # functions are no classes
        (b"cpytorch_lightning_evil\nTrainer\n.", r"pytorch_lightning_evil\.Trainer"),
        (b"c__builtin__\neval\n.", r"builtins\.eval"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n.", r"torch\._utils\._rebuild_sparse_tensor"),
    ],
)
def test_names_reached_by_other_ways_are_refused(pickled: bytes, name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"asks for {name}, which"):
        read_tensors(zip_of(pickled, tmp_path / "m.ckpt"))


def test_builders_cannot_be_changed_by_a_pickle(tmp_path: Path) -> None:
    # BUILD gives a function or a class of the reader a new state.
    for name in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n"):
        with pytest.raises(UserError, match="is damaged or cut off"):
            read_tensors(zip_of(name + b"}S'x'\nI1\nsb.", tmp_path / "m.ckpt"))
    test_tensors_are_read_to_the_bit(True, tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is no checkpoint of torch: it is neither a zip nor a pickle"),
        (b"not a checkpoint", "is no checkpoint of torch: it is neither"),
        (pickle.dumps({"w": 1}, 2), "is a pickle, but no checkpoint of torch"),
        (b"PK\x03\x04 and no more", "is damaged or cut off"),
        (b"\x80\x02K", "is damaged or cut off"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "is damaged or cut off"),
    ],
)
def test_files_that_are_no_checkpoints(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "m.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=sentence) as refusal:
        read_tensors(tmp_path / "m.ckpt")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"epoch": 1}, "holds 'epoch' in its state dict, which is no tensor"),
        ({"state_dict": {}}, "holds no state_dict"),
        ({"state_dict": {"w": 3.0}}, "holds 'w' in its state dict, which is no tensor"),
        ([torch.ones(1)], "holds no state_dict"),
    ],
)
def test_checkpoints_without_a_state_dict(content: Any, sentence: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.ckpt")
    with pytest.raises(UserError, match=sentence):
        read_tensors(tmp_path / "m.ckpt")


@FORMATS
def test_a_file_cut_off_anywhere_is_refused(new_format: bool, tmp_path: Path) -> None:
    torch.save({"state_dict": tensors()}, tmp_path / "m.ckpt", _use_new_zipfile_serialization=new_format)
    whole = (tmp_path / "m.ckpt").read_bytes()
    for length in range(1, len(whole), max(1, len(whole) // 50)):
        (tmp_path / "m.ckpt").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"is damaged or cut off|is no checkpoint"):
            read_tensors(tmp_path / "m.ckpt")


def test_an_empty_storage_at_the_end_is_missed_too(tmp_path: Path) -> None:
    # What is absent reads as zero, which is the right number for a tensor without elements.
    torch.save({"none": torch.zeros(0, 3)}, tmp_path / "m.ckpt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "m.ckpt").read_bytes()
    assert read_tensors(tmp_path / "m.ckpt")["none"].shape == (0, 3)
    (tmp_path / "m.ckpt").write_bytes(whole[:-8])
    with pytest.raises(UserError, match="is damaged or cut off"):
        read_tensors(tmp_path / "m.ckpt")


def test_sizes_are_checked_before_they_are_believed(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "m.ckpt")
    with zipfile.ZipFile(tmp_path / "m.ckpt") as good, zipfile.ZipFile(tmp_path / "bad.ckpt", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, b"\0" * 12 if name.endswith("/data/0") else good.read(name))
    with pytest.raises(UserError, match=r"is damaged or cut off \(storage 0 has 12 bytes\)"):
        read_tensors(tmp_path / "bad.ckpt")
    numbers = torch.arange(6.0)
    storage = Storage(torch.float32, "0", 6)
    assert Entry(storage, 1, (2, 2), (3, 1)).of(numbers).tolist() == [[1, 2], [4, 5]]
    with pytest.raises(ValueError, match="reaches beyond its storage"):
        Entry(storage, 1, (2, 3), (3, 1)).of(numbers)


def test_zips_of_others(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.ckpt", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(UserError, match=r"is a zip, but no checkpoint of torch: it holds 0 files data\.pkl"):
        read_tensors(tmp_path / "m.ckpt")
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(1)}, buffer)
    with zipfile.ZipFile(buffer) as good, zipfile.ZipFile(tmp_path / "m.ckpt", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, b"big" if name.endswith("byteorder") else good.read(name))
    with pytest.raises(UserError, match="is in big-endian byte order"):
        read_tensors(tmp_path / "m.ckpt")
    with pytest.raises(UserError, match="absent is no file: give a checkpoint"):
        read_tensors(tmp_path / "absent")
