"""The command that compares with reference cases: it computes them all, and sees what is off."""

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from original_layout import Model, make
from safetensors.torch import save_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT.parent / "shared" / "parity"
EDIT = "t0_40.gamma_1.5.steps_3"


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("parity")


@pytest.fixture(scope="module")
def model() -> Model:
    return make()


@torch.no_grad()
def reference(model: Model) -> dict[str, Tensor]:
    """Cases computed from the networks alone, by formulas written out here."""
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    vqgan, t, label = model.first_stage, torch.tensor([7, 613]), torch.tensor([1, 5])
    latent = vqgan.encode(image).latents
    codes = vqgan.quantize.embedding.weight
    index = ((latent.permute(0, 2, 3, 1)[..., None, :] - codes) ** 2).sum(-1).argmin(-1)
    source, target = torch.tensor([0, 3]), torch.tensor([4, 7])

    def noise(unet: torch.nn.Module, z: Tensor, time: Tensor, ids: Tensor) -> Tensor:
        return unet(z, time, encoder_hidden_states=model.embedding.table.weight[ids][:, None]).sample

    none = torch.tensor([8, 8])
    bars = (1 - torch.linspace(0.0015**0.5, 0.0205**0.5, 1000).double() ** 2).cumprod(0)
    levels = [0, 1, 20, 40]  # the clean end counts as level 0; then 1, int(1 * 40 / 2), int(2 * 40 / 2)

    def walk(z: Tensor, ids: Tensor, steps: list[tuple[int, int]]) -> Tensor:
        for before, after in steps:
            time = torch.tensor([max(before, after)] * 2)
            without = noise(model.averaged, z, time, none)
            eps = without + 1.5 * (noise(model.averaged, z, time, ids) - without)
            clean = (z - (1 - bars[before]).sqrt() * eps) / bars[before].sqrt()
            z = (bars[after].sqrt() * clean + (1 - bars[after]).sqrt() * eps).float()
        return z

    there = list(pairwise(levels))
    z_t0 = walk(latent, source, there)
    z_edit = walk(z_t0, target, [(b, a) for a, b in reversed(there)])
    return {
        **{"image": image, "t": t, "label": label, "source_label": source, "target_label": target},
        **{"latent": latent, "latent_quantized": codes[index].permute(0, 3, 1, 2).contiguous(), "code_indices": index},
        "reconstruction": vqgan.decode(latent).sample,
        "eps_cond_raw": noise(model.raw, latent, t, label),
        "eps_null_raw": noise(model.raw, latent, t, none),
        "eps_cond_ema": noise(model.averaged, latent, t, label),
        "eps_null_ema": noise(model.averaged, latent, t, none),
        f"{EDIT}.timesteps": torch.tensor(levels[1:]),
        **{f"{EDIT}.z_t0": z_t0, f"{EDIT}.z_edit": z_edit, f"{EDIT}.x_edit": vqgan.decode(z_edit).sample},
    }


@pytest.fixture(scope="module")
def cases(model: Model) -> dict[str, Tensor]:
    return reference(model)


@pytest.fixture(scope="module")
def saved(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    checkpoint, _ = model.save(folder)
    checkpoint.rename(folder / "ldm.ckpt")
    return folder


Said = tuple[int, dict[str, float], str]


@pytest.fixture
def compare(tool: ModuleType, saved: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(cases: dict[str, Tensor], *words: str) -> Said:
        save_file({name: tensor.contiguous() for name, tensor in cases.items()}, saved / "cases.safetensors")
        code = tool.main([str(saved), *words])
        said = capsys.readouterr()
        return code, {name: float(value) for name, value in map(str.split, said.out.splitlines())}, said.err

    return run


def test_every_case_is_recomputed(cases: dict[str, Tensor], compare: Callable[..., Said]) -> None:
    code, lines, error = compare(cases)
    assert code == 0 and error == ""
    assert set(lines) == set(cases) - {"image", "t", "label", "source_label", "target_label"}
    assert lines["code_indices"] == lines[f"{EDIT}.timesteps"] == 0 and max(lines.values()) < 1e-4


@pytest.mark.parametrize(
    ("name", "change", "difference"),
    [
        ("latent", lambda x: x + 0.5, 0.5),
        ("code_indices", lambda x: x + 3, 3),
        (f"{EDIT}.timesteps", lambda x: x + torch.tensor([0, 1, 0]), 1),
        (f"{EDIT}.timesteps", lambda x: x[:2], torch.inf),
        ("eps_null_ema", lambda x: x * torch.nan, torch.inf),
        (f"{EDIT}.x_edit", lambda x: x - 2, 2),
    ],
)
def test_what_is_off_is_told(
    name: str,
    change: Callable[[Tensor], Tensor],
    difference: float,
    cases: dict[str, Tensor],
    compare: Callable[..., Said],
) -> None:
    needed = ("image", "t", "label", "source_label", "target_label", "latent", f"{EDIT}.z_t0", f"{EDIT}.z_edit")
    few = {key: cases[key] for key in needed} | {name: change(cases[name])}
    code, lines, error = compare(few)
    assert code == 1 and lines[name] == pytest.approx(difference, rel=1e-2)
    assert error.splitlines()[-1].startswith("beyond 0.0001: ") and name in error.splitlines()[-1]


def test_rounding_of_ours_is_not_held_against_it(
    model: Model, cases: dict[str, Tensor], compare: Callable[..., Said]
) -> None:
    """A reference that is exact up to its own rounding is met at that rounding."""
    with torch.no_grad():
        exact = copy.deepcopy(model.first_stage).double().decode(cases["latent"].double()).sample
    few = {name: cases[name] for name in ("image", "latent")} | {"reconstruction": exact.float()}
    rounding = float((exact.float().double() - exact).abs().max())
    code, lines, error = compare(few, "--tolerance", str(1.001 * rounding))
    assert code == 0 and lines["reconstruction"] == pytest.approx(rounding, rel=1e-2)
    assert error.startswith("reconstruction: ") and f"{rounding:.3g} in float64" in error


def test_t0_as_a_share_of_all_levels(cases: dict[str, Tensor], compare: Callable[..., Said]) -> None:
    taus = torch.tensor([1, 125, 250])
    assert compare({"t0_0.25.gamma_2.steps_3.timesteps": taus})[:2] == (0, {"t0_0.25.gamma_2.steps_3.timesteps": 0.0})


@pytest.mark.parametrize(
    ("more", "without", "sentence"),
    [
        ({"surprise": torch.ones(1)}, (), "holds surprise, which is neither an input (image, t, label, source_label"),
        ({"t0_40.gamma_1.steps_3.eta_1.z_t0": torch.ones(1)}, (), "holds t0_40.gamma_1.steps_3.eta_1.z_t0, which is"),
        ({"t0_1000.gamma_1.steps_3.timesteps": torch.ones(1)}, (), "t0_1000 is no level: there are 1000, counted from"),
        ({"t0_2.gamma_1.steps_9.timesteps": torch.ones(1)}, (), "which do not rise: choose fewer steps"),
        ({}, ("label",), "holds no label, which its other tensors are computed from: add it"),
        ({}, (f"{EDIT}.z_t0",), f"holds no {EDIT}.z_t0, which its other tensors are computed from"),
    ],
)
def test_tensors_that_mean_nothing(
    more: dict[str, Tensor],
    without: tuple[str, ...],
    sentence: str,
    cases: dict[str, Tensor],
    compare: Callable[..., Said],
) -> None:
    code, _, error = compare({name: cases[name] for name in cases if name not in without} | more)
    assert code == 2 and sentence in error and len(error.splitlines()) == 1


def test_wrong_use(tool: ModuleType, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([str(tmp_path)]) == 2
    assert "holds no cases.safetensors: give a folder with it, ldm.ckpt and config.json" in capsys.readouterr().err
    (tmp_path / "cases.safetensors").write_bytes(b"no")
    assert tool.main([str(tmp_path)]) == 2
    assert "is no safetensors file" in capsys.readouterr().err
    save_file({"image": torch.ones(1)}, tmp_path / "cases.safetensors")
    for name in ("ldm.ckpt", "config.json"):
        (tmp_path / name).symlink_to(saved / name)
    assert tool.main([str(tmp_path)]) == 2
    assert "holds inputs only: there is nothing to compare" in capsys.readouterr().err
    assert tool.main([str(tmp_path), "--tolerance", "nan"]) == 2
    assert "--tolerance nan is no bound" in capsys.readouterr().err


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference cases beside this checkout")
@pytest.mark.parametrize("folder", sorted(REFERENCE.glob("*/cases.safetensors")), ids=lambda file: file.parent.name)
def test_the_reference_is_met(folder: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([str(folder.parent)]) == 0, capsys.readouterr()
    lines = dict(map(str.split, capsys.readouterr().out.splitlines()))
    assert lines["code_indices"] == "0" and float(lines["reconstruction"]) < 1e-4
