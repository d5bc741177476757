"""Tensors of a torch checkpoint, read without running anything that its pickle asks for.

A pickle is a program that may call whatever it names. Here a name gives one of three things: a builder of plain data
and tensors, a placeholder that takes everything and does nothing (classes of Lightning, say), or a refusal. No name is
ever imported, so no code of the file or of a library runs. Tensors are looked for in the state dict alone.
"""

import pickle
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from affect_hpc.core.errors import UserError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""What a checkpoint of torch before 1.6 begins with, as a pickled integer."""
STORAGES: Mapping[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
INERT: Mapping[str, frozenset[str]] = {
    "builtins": frozenset(
        "set frozenset dict list tuple range slice complex bytes bytearray object int float str bool".split()
    ),
    "collections": frozenset({"defaultdict", "deque", "Counter"}),
    "copyreg": frozenset({"_reconstructor"}),
    "_codecs": frozenset({"encode"}),
    "typing": frozenset({"Any"}),
    "argparse": frozenset({"Namespace"}),
    "pathlib": frozenset({"PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"}),
    "numpy": frozenset({"dtype", "ndarray"}),
    "numpy.core.multiarray": frozenset({"scalar", "_reconstruct"}),
    "numpy._core.multiarray": frozenset({"scalar", "_reconstruct"}),
    "torch": frozenset({"Size", "device", *(str(dtype).removeprefix("torch.") for dtype in STORAGES.values())}),
}
"""Names outside the state dict that a training leaves behind; placeholders stand for them."""
INERT_PACKAGES = ("pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "omegaconf")
"""Their classes, which begin with a capital, are placeholders too; their functions are refused."""


@dataclass(frozen=True)
class Storage:
    """Where the numbers of tensors lie: ``count`` of one type, under a key of the file."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass(frozen=True)
class Entry:
    """A tensor as the pickle describes it, not read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def of(self, numbers: Tensor) -> Tensor:
        """The tensor, a view of the numbers of its storage; ValueError where it would reach beyond them."""
        reach = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        if 0 not in self.shape and reach >= len(numbers):
            raise ValueError("a tensor reaches beyond its storage")
        return numbers.as_strided(self.shape, self.stride, self.offset)


class _Call:
    """A function that a pickle may call. It has no attributes that a pickle could change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function takes no state")


class _StorageType:
    """Stands for torch's class of a storage."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a storage takes no state")


class _Inert:
    """Stands for an object that is not needed: takes any arguments, state and items, and keeps none."""

    def __new__(cls, *_arguments: Any, **_named: Any) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        pass

    def _take(self, *_anything: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _take


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_hooks: Any) -> Entry:
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, Storage) or any(type(number) is not int or number < 0 for number in numbers):
        raise pickle.UnpicklingError("a tensor is described wrongly")
    return Entry(storage, offset, tuple(shape), tuple(stride))


def _rebuild_parameter(tensor: Any, *_flags: Any) -> Any:
    return tensor


BUILDERS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """Knows few names and imports none."""

    def __init__(self, handle: IO[bytes], path: Path) -> None:
        super().__init__(handle, encoding="utf-8")
        self.path = path
        self.storages: dict[str, Storage] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        # Protocols below 3 call things by their names in Python 2.
        found = (IMPORT_MAPPING.get(module_name, module_name), global_name)
        module, global_name = NAME_MAPPING.get((module_name, global_name), found)
        if (module, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, global_name) in BUILDERS:
            return _Call(BUILDERS[module, global_name])
        if module == "torch" and global_name in STORAGES:
            return _StorageType(STORAGES[global_name])
        # A dotted name could lead from a harmless class to anything.
        is_class = global_name[:1].isupper() and global_name.isidentifier()
        if global_name in INERT.get(module, ()) or (module.partition(".")[0] in INERT_PACKAGES and is_class):
            # A class of its own each time: whatever is done to it is gone with it.
            return type("_InertOne", (_Inert,), {})
        raise UserError(
            f"{self.path} asks for {module}.{global_name}, which no checkpoint of tensors needs: it was not run, and "
            "nothing was read; save the state_dict alone, or get the file from a source that you trust."
        )

    def persistent_load(self, pid: Any, /) -> Storage:
        kind, storage_type, key, _, count, *view = pid
        known = kind == "storage" and isinstance(storage_type, _StorageType) and isinstance(key, str)
        if not known or type(count) is not int or count < 0 or any(view):
            raise pickle.UnpicklingError("a storage is described wrongly")
        storage = Storage(storage_type.dtype, key, count)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError(f"storage {key} is described twice, differently")
        return storage


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint: name -> tensor, in its own type, on the CPU.

    Args:
        path: written by ``torch.save``: a mapping with the entry ``state_dict`` (as Lightning's), or a state dict.

    Raises:
        UserError: no such file, no checkpoint, a damaged one, or one whose pickle asks for what is not needed.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file: give a checkpoint that torch.save has written.")
    try:
        with path.open("rb") as handle:
            start = handle.read(4)
            handle.seek(0)
            if start == b"PK\x03\x04":
                return _read_zip(handle, path)
            if start[:1] == b"\x80":
                return _read_legacy(handle, path)
    except UserError:
        raise
    except Exception as error:
        # Damaged bytes can make a pickle fail in any way.
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"{path} is damaged or cut off ({reason}): copy it again.") from None
    raise UserError(f"{path} is no checkpoint of torch: it is neither a zip nor a pickle.")


def _read_zip(handle: IO[bytes], path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(handle) as archive:
        pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise UserError(f"{path} is a zip, but no checkpoint of torch: it holds {len(pickles)} files data.pkl.")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise UserError(f"{path} is in big-endian byte order: save it again on a little-endian machine.")
        with archive.open(pickles[0]) as stream:
            entries = _entries(_Unpickler(stream, path).load(), path)
        numbers: dict[str, Tensor] = {}
        for storage in {entry.storage for entry in entries.values()}:
            member = archive.getinfo(f"{root}data/{storage.key}")
            # Before it is read: a small file can unpack to a huge one.
            if member.file_size != storage.count * storage.dtype.itemsize:
                raise ValueError(f"storage {storage.key} has {member.file_size} bytes")
            numbers[storage.key] = _numbers(archive.read(member), storage)
    return {name: entry.of(numbers[entry.storage.key]) for name, entry in entries.items()}


def _read_legacy(handle: IO[bytes], path: Path) -> dict[str, Tensor]:
    # Five pickles, one after the other, then the bytes of each storage behind their number.
    if _Unpickler(handle, path).load() != LEGACY_MAGIC:
        raise UserError(f"{path} is a pickle, but no checkpoint of torch.")
    for _ in ("version", "machine"):
        _Unpickler(handle, path).load()
    main = _Unpickler(handle, path)
    entries = _entries(main.load(), path)
    numbers: dict[str, Tensor] = {}
    for key in _Unpickler(handle, path).load():
        storage = main.storages[key]
        number = handle.read(8)
        if len(number) < 8 or int.from_bytes(number, "little") != storage.count:
            raise ValueError(f"storage {key} has another size than its tensors")
        numbers[key] = _numbers(handle.read(storage.count * storage.dtype.itemsize), storage)
    return {name: entry.of(numbers[entry.storage.key]) for name, entry in entries.items()}


def _numbers(content: bytes, storage: Storage) -> Tensor:
    if len(content) != storage.count * storage.dtype.itemsize:
        raise ValueError(f"storage {storage.key} has {len(content)} bytes")
    # A copy that may be written to, as torch wants it.
    return torch.frombuffer(bytearray(content), dtype=storage.dtype) if content else torch.empty(0, dtype=storage.dtype)


def _entries(content: Any, path: Path) -> dict[str, Entry]:
    """The state dict among the content of a checkpoint."""
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path} holds no state_dict: give a checkpoint of Lightning, or a state dict alone.")
    for name, entry in state.items():
        if not isinstance(name, str) or not isinstance(entry, Entry):
            raise UserError(f"{path} holds {str(name)!r} in its state dict, which is no tensor: give tensors only.")
    return state
