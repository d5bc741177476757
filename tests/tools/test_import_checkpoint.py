"""The command that imports checkpoints: what it says, returns and leaves behind."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from original_layout import make
from safetensors.torch import load_file

WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_the_command(
    load_tool: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = load_tool("import_checkpoint")
    model = make()
    checkpoint, config = model.save(tmp_path)
    words = [str(checkpoint), str(tmp_path / "ema"), "--config", str(config)]
    assert tool.main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{len(model.state) - 5} tensors used, 5 extras left; ema weights in ")
    assert said[1] == f"launch with use.first_stage={tmp_path / 'ema'} use.ldm={tmp_path / 'ema'}"
    words[1] = str(tmp_path / "raw")
    assert tool.main([*words, "--weights", "raw"]) == 0
    capsys.readouterr()
    ema, raw, also_raw = (load_file(tmp_path / name / WEIGHTS) for name in ("ema/unet", "raw/unet", "ema/unet_raw"))
    assert torch.equal(ema["conv_in.bias"], model.averaged.conv_in.bias)
    assert torch.equal(raw["conv_in.bias"], model.raw.conv_in.bias)
    assert torch.equal(raw["conv_in.bias"], also_raw["conv_in.bias"])
    assert tool.main(words) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'raw'} exists: give a folder that does not, or remove it.\n"


def test_a_checkpoint_without_averages_leaves_nothing_behind(
    load_tool: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make()
    model.state = {name: tensor for name, tensor in model.state.items() if not name.startswith("model_ema.")}
    checkpoint, config = model.save(tmp_path)
    words = [str(checkpoint), str(tmp_path / "out"), "--config", str(config)]
    assert load_tool("import_checkpoint").main(words) == 2
    error = capsys.readouterr().err
    assert "holds no averaged weights (model_ema.*): give --weights raw" in error and len(error.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.ckpt"]
