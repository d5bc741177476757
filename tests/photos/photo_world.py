"""Photos whose faces are magenta squares, a detector that sees those, and a small model with random weights."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from affect_hpc import edit
from affect_hpc.config.compose import collect
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.io import read_json
from affect_hpc.data.align import CANONICAL, LEFT_EYE, MOUTH_CORNERS, RIGHT_EYE, Points
from affect_hpc.data.codec import UInt8Image
from affect_hpc.data.faces import Region
from affect_hpc.hpc.planner import PACKAGED
from affect_hpc.models.denoiser import Denoiser
from affect_hpc.models.ldm import LatentNorm, write_description
from affect_hpc.photos import call, model

SIZE = 64
FIRST_STAGE = PACKAGED / "demo_64"
FACE = (60, 50, 120)
"""Left, top and side of a face."""
QUICK = ["--steps", "3", "--gamma", "2"]


class Squares:
    """A landmark backend that takes each magenta square for an upright face."""

    name = "squares"

    def regions(self, image: UInt8Image) -> list[Region]:
        magenta = (image[..., 0] > 180) & (image[..., 1] < 90) & (image[..., 2] > 180)
        _, _, found, _ = cv2.connectedComponentsWithStats(magenta.astype(np.uint8))
        # The first one is the background; speckles are no faces.
        return [(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h, count in found[1:] if count > 50]

    def points(self, image: UInt8Image, region: Region) -> Points:
        left, top, right, bottom = region
        points = np.tile([0.5, 0.5], (68, 1))
        points[0], points[16], points[8] = (0.02, 0.02), (0.98, 0.02), (0.5, 0.98)
        points[RIGHT_EYE], points[LEFT_EYE] = CANONICAL[0], CANONICAL[1]
        points[list(MOUTH_CORNERS)] = CANONICAL[2:]
        return (left, top) + points * (right - left, bottom - top)


class Judge:
    """Takes the brightness of a crop for an emotion."""

    name = "brightness"
    classes = EMOTIONS[:7]

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        bright = images.mean((1, 2, 3)) > -0.2
        rows = torch.full((len(images), len(self.classes)), 0.05)
        rows[bright, EMOTIONS.index("surprised")] = 0.7
        rows[~bright, EMOTIONS.index("sad")] = 0.7
        return rows


def picture(*faces: tuple[int, int, int], shape: tuple[int, int] = (260, 300), seed: int = 0) -> UInt8Image:
    """(H, W, 3) of coarse noise with magenta squares: left, top and side of each."""
    noise = np.random.default_rng(seed).integers(0, 120, (shape[0] // 20, shape[1] // 20, 3), dtype=np.uint8)
    image = cv2.resize(noise, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    for left, top, side in faces:
        image[top : top + side, left : left + side] = (210, 30, 220)
        image[top + side // 3 : top + side // 3 + 4, left + side // 4 : left + side // 2] = (200, 60, 200)
    return image


def saved(path: Path, image: UInt8Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def loaded(path: Path) -> UInt8Image:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def write_ldm(folder: Path) -> Path:
    """A denoiser with random weights, as train_ldm leaves one."""
    torch.manual_seed(0)
    cfg = collect(["model=smoke", "data=demo"])[0].model
    channels = read_json(FIRST_STAGE / "first_stage/config.json")["vq_embed_dim"]
    denoiser = Denoiser.build(cfg.unet, cfg.condition, channels, SIZE // 4)
    denoiser.save(folder / "unet", folder / "conditioner.safetensors")
    norm = LatentNorm(torch.zeros(channels), torch.ones(channels))
    write_description(folder, cfg.diffusion, cfg.condition, norm)
    return folder


@dataclass
class World:
    """Where the command is called."""

    root: Path
    ldm: Path
    capture: pytest.CaptureFixture[str]
    code: int = 0
    said: str = ""
    warned: str = ""

    @property
    def out(self) -> Path:
        return self.root / "edited"

    def call(self, *words: object, target: str = "happy", label: str = "neutral") -> int:
        """Run the command; what it prints is in ``said`` and ``warned``."""
        own = ["--model", self.ldm, "--first-stage", "package:demo_64", "--out", self.out, "--target", target, *QUICK]
        own += ["--label", label] if label else []
        self.capture.readouterr()
        self.code = edit.main([str(word) for word in (*own, *words)])
        self.said, self.warned = self.capture.readouterr()
        return self.code

    def photo(self, name: str, *faces: tuple[int, int, int], seed: int = 0) -> Path:
        return saved(self.root / "photos" / name, picture(*(faces or (FACE,)), seed=seed))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.out.iterdir()) if self.out.exists() else []


def use_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let magenta squares be faces, on machines without landmark networks too."""
    known = call.Cropper
    monkeypatch.setattr(call, "Cropper", lambda config, size, compat: known(config, size, compat, Squares()))
    monkeypatch.setattr(model, "settle_landmarks", lambda name: "dlib")
