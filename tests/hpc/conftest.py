"""What the tests of the launcher share: configs composed once, and judges that need no installed weights."""

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from affect_hpc.config import corpora
from affect_hpc.config.cluster import ClusterConfig
from affect_hpc.config.compose import collect
from affect_hpc.config.root import Config
from affect_hpc.hpc import planner, points
from affect_hpc.hpc.graph import Node
from affect_hpc.hpc.plans import plan


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power: thousands of small files need not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(autouse=True)
def no_weights_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has installed changes no plan."""
    monkeypatch.setattr(planner, "settle_perceptual", lambda name: "efficientnet_lite0" if name == "auto" else name)
    monkeypatch.setattr(corpora, "settle_landmarks", lambda name: "dlib" if name == "auto" else name)
    monkeypatch.setattr(points, "speech_digest", lambda network: network)
    monkeypatch.setattr(corpora, "check_expert", lambda *names: None)
    monkeypatch.setattr(planner, "check_experts", lambda *names: None)


@pytest.fixture(scope="session")
def composed_sweep() -> list[Config]:
    # Whatever comes with the package: here every network is trained.
    return collect(["sweep=cfg_gamma", "use.first_stage=train", "use.ldm=train"])


@pytest.fixture(scope="session")
def composed_slurm() -> ClusterConfig:
    return collect(["cluster=slurm"])[0].cluster


@pytest.fixture
def sweep(composed_sweep: list[Config]) -> list[Config]:
    """The five points of sweep=cfg_gamma, to be changed."""
    return copy.deepcopy(composed_sweep)


@pytest.fixture
def slurm_cluster(composed_slurm: ClusterConfig) -> ClusterConfig:
    """cluster=slurm, to be changed."""
    return copy.deepcopy(composed_slurm)


@pytest.fixture
def change(composed_sweep: list[Config]) -> Callable[..., Config]:
    """``change({"edit.t0": 400})`` is the first point with other values; short keys reach their stages."""

    def changed(values: dict[str, object]) -> Config:
        point = copy.deepcopy(composed_sweep[0])
        for key, value in values.items():
            _set(point, key, value)
        return point

    return changed


WIRED = {
    "edit": ("invert_latents", "manipulate", "evaluate"),
    "generation": ("generate",),
    "interpolation": ("interpolate",),
}


def _set(point: Config, key: str, value: object) -> None:
    branch, _, leaf = key.rpartition(".")
    owner: object = point
    for name in filter(None, branch.split(".")):
        owner = getattr(owner, name)
    assert hasattr(owner, leaf), key
    setattr(owner, leaf, value)
    for stage in WIRED.get(branch, ()):  # as hydra_configs/wiring.yaml
        config = getattr(point.stages, stage)
        if hasattr(config, leaf):
            setattr(config, leaf, value)


@pytest.fixture(scope="session")
def composed_thesis() -> Config:
    words = ["model=thesis", "data.size=128", "cluster=slurm", "use.first_stage=train", "use.ldm=train"]
    return collect([*words, "stages.train_ldm.train.precision=bf16"])[0]


@pytest.fixture
def thesis(composed_thesis: Config, tmp_path: Path) -> dict[str, Node]:
    """The nodes of the thesis' model on GPUs, by kind; train_ldm in bfloat16."""
    return plan([replace(composed_thesis, store=str(tmp_path))])[1][0]
