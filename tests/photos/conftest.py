from pathlib import Path

import photo_world
import pytest
import torch
from photo_world import World


@pytest.fixture(scope="session")
def ldm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return photo_world.write_ldm(tmp_path_factory.mktemp("model") / "random")


@pytest.fixture
def world(ldm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> World:
    photo_world.use_squares(monkeypatch)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    return World(tmp_path, ldm, capsys)
