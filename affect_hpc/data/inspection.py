"""The inspector of shards: reads every byte of a set as a stranger would, and names all that is wrong with it.

A set is one output: the shards below a folder, each key once. What is asked of one shard stands in shard_check.py.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from affect_hpc.core.errors import UserError
from affect_hpc.core.progress import Progress
from affect_hpc.data.codec import LIMITS, Limits
from affect_hpc.data.shard_check import Fault, Report, ShardCheck, WholeSet
from affect_hpc.data.shards import INDEX_SUFFIX, index_path
from affect_hpc.data.tars import CHUNK

BESIDE = (".json", ".jsonl")
"""What may lie beside shards: what a stage says of its output."""


def inspect(folder: Path | str, limits: Limits = LIMITS) -> Report:
    """Read all shards below ``folder``.

    Args:
        limits: larger members are faults, and are not decoded.

    Raises:
        UserError: ``folder`` is no folder of this machine, or there is no tar below it.
    """
    root = local_folder(folder)
    report = Report()
    tars = list(_tars(root, report))
    if not tars:
        raise UserError(f"{folder} holds no *.tar at any depth: give the out/ folder of a prepare_shards run.")
    if not any(index_path(tar).exists() for tar in tars):
        report.remarks.append(f"no shard has an index (*{INDEX_SUFFIX}) beside it: only the tars' own contents count")
    whole = WholeSet(root, report, limits, has_indexes=not report.remarks)
    chunks = sum(-(-tar.stat().st_size // CHUNK) for tar in tars)
    with Progress("inspect_shards", chunks, "chunk") as progress:
        for tar in tars:
            ShardCheck(whole, tar).run(progress)
    return report


def local_folder(folder: Path | str) -> Path:
    """``folder`` as a path; UserError where it is no folder of this machine."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", str(folder)):
        raise UserError(f"{folder} is no folder: shards are read from folders, never from a pipe or the net.")
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(f"{folder} is no folder: give one with *.tar in it, say the out/ of a prepare_shards run.")
    return path


def _tars(root: Path, report: Report) -> Iterator[Path]:
    """The tars below ``root`` in order; whatever else lies in their folders and should not is a fault."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        paths = [Path(folder) / name for name in sorted(files)]
        tars = [path for path in paths if path.suffix == ".tar" and path.is_file() and path.name[0] != "."]
        for path in paths:
            name, beside = path.relative_to(root).as_posix(), path.name[0] != "." and path.suffix in BESIDE
            if path in tars:
                yield path
            elif path.name.endswith(INDEX_SUFFIX) and path.name[0] != ".":
                if path.with_name(path.name.removesuffix(INDEX_SUFFIX) + ".tar") not in tars:
                    report.faults.append(Fault(name, "", "is an index without a tar beside it"))
            elif (tars and not beside) or path.suffix == ".tar":
                report.faults.append(Fault(name, "", "does not belong among shards"))
