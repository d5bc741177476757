"""A small world of judged faces, with judges whose verdicts can be worked out by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affect_hpc.config.experts import ExpertsConfig
from affect_hpc.config.stages import EvaluateConfig, ReduceConfig, ReportConfig
from affect_hpc.core.blocks import blocks
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.io import write_json
from affect_hpc.core.rundir import Inputs, Workplace
from affect_hpc.data.codec import encode_png
from affect_hpc.data.shards import ShardWriter
from affect_hpc.metrics.suite import Judges
from affect_hpc.stages import evaluate, reduce, report

SIZE, COUNT, BATCH = 32, 11, 2
TARGETS = ["happy", "sad"]
GAMMAS = (1.0, 2.0)


class PatchEmotion(torch.nn.Module):
    """Reads the class from the level of the upper left corner: class k is level 20 + 30 k."""

    name = "patch"

    def __init__(self, classes: Sequence[str] = EMOTIONS) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.register_buffer("levels", torch.tensor([20.0 + 30 * EMOTIONS.index(name) for name in self.classes]))

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        corner = (images[:, :, :4, :4].mean((1, 2, 3)) + 1) * 127.5
        return torch.softmax(-(corner[:, None] - self.get_buffer("levels")).abs(), dim=1)


class PoolIdentity(torch.nn.Module):
    name = "pool"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(0.1))

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        pooled = torch.nn.functional.adaptive_avg_pool2d(images[:, :, 4:], 4).flatten(1) + self.get_buffer("shift")
        return torch.nn.functional.normalize(pooled, dim=1)


class MeanDistance(torch.nn.Module):
    def __init__(self, name: str = "efficientnet_lite0") -> None:
        super().__init__()
        self.name = name
        self.register_buffer("scale", torch.tensor(0.5))

    def distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean((1, 2, 3)) * self.get_buffer("scale")


def face(i: int, emotion: str, noise: float = 0.0) -> np.ndarray:
    """Face ``i`` showing ``emotion``: a random texture, the emotion in the corner's level."""
    texture = np.random.default_rng(i).integers(30, 220, (SIZE, SIZE, 3)).astype(float)
    texture += noise * np.random.default_rng([i, EMOTIONS.index(emotion)]).normal(size=texture.shape)
    texture[:4, :4] = 20 + 30 * EMOTIONS.index(emotion)
    return np.clip(texture, 0, 255).round().astype(np.uint8)


def label_of(i: int) -> str:
    return EMOTIONS[i % 8]


@dataclass
class World:
    """Folders of a corpus and what was made of it."""

    root: Path
    judges: Judges

    def shards(self, truth: bool = True) -> tuple[Path, ...]:
        folder = self.root / f"prepare_shards/{'aa' if truth else 'bb'}/out"
        if not folder.exists():
            for name, part in (("shard-00000", range(6)), ("shard-00001", range(6, COUNT))):
                with ShardWriter(folder / "val", name) as writer:
                    for i in part:
                        members = {"png": encode_png(face(i, label_of(i)))}
                        if truth:
                            members |= {f"truth_{e}.png": encode_png(face(i, e)) for e in EMOTIONS}
                        writer.write(f"f{i:03d}", members, {"label": i % 8, "identity": str(i), "source": ""})
            write_json(folder / "manifest.json", {"data": {"name": "toy"}, "counts": {"val": COUNT}, "terms": "free"})
        return (folder,)

    def parts_of(
        self, name: str, parts: int, members: Callable[[int], dict[str, bytes]], extra: object
    ) -> tuple[Path, ...]:
        """A divided stage's output: whole blocks of samples per part."""
        folders = []
        todo = blocks(COUNT, BATCH)
        for part in range(parts):
            folder = self.root / name / "parts" / f"{part:04d}" / "out"
            folders.append(folder)
            if folder.exists():
                continue
            with ShardWriter(folder, f"part-{part:05d}") as writer:
                for i in (i for b in Workplace(folder, folder, part, parts).slice(len(todo)) for i in todo[b]):
                    certificate = {"inverter": "ddim", "round_trip_db": 20.0 + i, "residual": 0.0, "calls": 80}
                    info = {"label": i % 8, "identity": str(i), "certificate": certificate}
                    writer.write(f"f{i:03d}", members(i), info)
            if extra is not None:
                write_json(folder / "edit.json", extra)
        return tuple(folders)

    def reconstruction(self, parts: int = 1) -> tuple[Path, ...]:
        return self.parts_of(
            f"reconstruct/r{parts}",
            parts,
            lambda i: {"reconstruction.png": encode_png(face(i, label_of(i), 4.0))},
            None,
        )

    def edits(self, gamma: float, parts: int = 1, round_trip: bool = True) -> tuple[Path, ...]:
        def members(i: int) -> dict[str, bytes]:
            images = {f"{target}.png": encode_png(face(i, target, 8.0 * gamma)) for target in TARGETS}
            if round_trip:
                images["round_trip.png"] = encode_png(face(i, label_of(i), 5.0))
            return images

        settings = {"gamma": gamma, "encode_gamma": gamma, "t0": 500, "num_steps": 40, "targets": TARGETS}
        settings["inverter"] = "ddim"
        return self.parts_of(f"manipulate/m{gamma:g}{parts}{round_trip}", parts, members, settings)

    def config(self, gamma: float = 1.0, baseline: bool = False) -> EvaluateConfig:
        experts = ExpertsConfig("patch", "pool", "efficientnet_lite0")
        if baseline:
            return EvaluateConfig(experts, baseline=True, batch_size=BATCH)
        return EvaluateConfig(experts, False, list(TARGETS), batch_size=BATCH)

    def evaluate(self, gamma: float | None, parts: int = 1, tag: str = "", truth: bool = True) -> tuple[Path, ...]:
        """Evaluate an edit, or the baseline where gamma is None; folders of all parts."""
        roles = {"shards": self.shards(truth), "reconstruction": self.reconstruction(parts)}
        folders = []
        for part in range(parts):
            own = dict(roles)
            if gamma is not None:
                own["images"] = (self.edits(gamma, parts)[part],)
            out = self.root / f"evaluate/e{gamma}{parts}{tag}{truth}/parts/{part:04d}/out"
            out.mkdir(parents=True)
            cfg = self.config(gamma or 0.0, gamma is None)
            evaluate.run(cfg, Inputs(own), Workplace(out, out.parent / "keep", part, parts))
            folders.append(out)
        return tuple(folders)


def new_world(root: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(root, Judges(PatchEmotion(), PoolIdentity(), MeanDistance()))
    monkeypatch.setattr(evaluate, "load_judges", lambda cfg, inputs: made.judges)
    return made


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return new_world(tmp_path, monkeypatch)


def tables_of(world: World, truth: bool = True) -> tuple[Path, ...]:
    """Reduced tables of the baseline and of every guidance scale."""
    tables = []
    for gamma in (None, *GAMMAS):
        out = world.root / f"reduce/g{gamma}/out"
        out.mkdir(parents=True)
        states = world.evaluate(gamma, 2, truth=truth)
        reduce.run(ReduceConfig(), Inputs({"states": states}), Workplace(out, out.parent / "keep"))
        tables.append(out)
    return tuple(tables)


def reported(
    world: World,
    tables: tuple[Path, ...],
    tag: str = "a",
    truth: bool = True,
    signer: Path | None = None,
    **settings: Any,
) -> Path:
    """The report of the edits, in a folder of its own."""
    out = world.root / f"report/{tag}/out"
    out.mkdir(parents=True)
    roles = {
        "tables": tables,
        "edits": tuple(part for gamma in GAMMAS for part in world.edits(gamma, 2)),
        "reconstruction": world.reconstruction(2),
        "shards": world.shards(truth),
    }
    config = ReportConfig("toy <sweep>", 3, **settings)
    report.run(config, Inputs(roles), Workplace(out, out.parent / "keep", signer=signer))
    return out
