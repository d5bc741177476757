"""What the comparison takes from config.json, how it goes by several folders, and what it refuses in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from original_layout import NO_ATTENTION
from reference_folders import Reference
from safetensors.torch import save_file
from torch import Tensor

from affect_hpc.config.model import UnetConfig

Said = tuple[int, dict[str, float], str]
EDIT = "t0_30.gamma_2.steps_4"
DRAW = "sampler_ddim.eta_1.gamma_1.steps_4"


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("parity")


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference((NO_ATTENTION[0], UnetConfig([32, 64], 1, 32, 8, [])), 5, (2, 3, 16, 16), 60, 0.01, 0.1)


@pytest.fixture(scope="module")
def saved(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    reference.save(folder, {})
    return folder


@pytest.fixture
def place(reference: Reference, saved: Path, tmp_path: Path) -> Callable[..., Path]:
    """A folder with these cases, inputs of the reference, and terms of config.json besides."""

    def write(cases: dict[str, Tensor], name: str = "one", without: tuple[str, ...] = (), **terms: object) -> Path:
        folder = tmp_path / name
        shutil.copytree(saved, folder)
        given = {**reference.inputs, "latent": reference.latent, **cases}
        given = {key: tensor.contiguous().clone() for key, tensor in given.items() if key not in without}
        save_file(given, folder / "cases.safetensors")
        (folder / "config.json").write_text(json.dumps({**reference.model.config, **terms}))
        return folder

    return write


@pytest.fixture
def run(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def said(*words: object) -> Said:
        code = tool.main([str(word) for word in words])
        out, error = capsys.readouterr()
        return code, {key: float(value) for key, value in map(str.split, out.splitlines())}, error

    return said


@pytest.mark.parametrize(
    ("terms", "call"),
    [
        ({"end_level": "clean"}, {"clean": True}),
        ({"encode_gamma": 1.0, "time_input": "current"}, {"encode_gamma": 1, "current": True}),
        ({"spacing": "leading_plus_one", "weights": "raw"}, {"leading": True, "raw": True}),
        ({"gamma_from": 9, "clip": 2, "remark": "not a setting"}, {"between": (9, 10**6), "clip": 2}),
    ],
)
def test_what_names_leave_out_stands_in_the_config(
    terms: dict, call: dict, reference: Reference, place: Callable[..., Path], run: Callable[..., Said]
) -> None:
    cases = reference.edit(EDIT, 30, 2, 4, **call)
    code, lines, error = run(place(cases, **terms))
    assert code == 0 and lines.keys() == cases.keys() | {"latent"}, error
    assert run(place(cases, "without"))[0] == 1


def test_a_name_goes_before_the_config(
    reference: Reference, place: Callable[..., Path], run: Callable[..., Said]
) -> None:
    cases = reference.edit(f"{EDIT}.end_level_first.encode_gamma_3", 30, 2, 4, encode_gamma=3)
    assert run(place(cases, end_level="clean", encode_gamma=1, eta=0.5))[0] == 0


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        (
            {"spacing": ["linspace"]},
            "config.json: spacing=['linspace'] cannot be computed: the valid ones are linspace",
        ),
        ({"encode_gamma": "same"}, "config.json: encode_gamma=same cannot be computed: it must be a number from 0 to"),
        ({"clip": True}, "config.json: clip=True cannot be computed"),
        ({"gamma_to": 2.5}, "config.json: gamma_to=2.5 cannot be computed: it must be an integer"),
    ],
)
def test_terms_of_the_config_that_cannot_be_computed(
    terms: dict, sentence: str, place: Callable[..., Path], run: Callable[..., Said]
) -> None:
    code, _, error = run(place({f"{EDIT}.z_t0": torch.zeros(2, 3, 8, 8)}, **terms))
    assert code == 2 and sentence in error and len(error.splitlines()) == 1, error


def test_several_folders_and_one_that_holds_them(
    reference: Reference, place: Callable[..., Path], run: Callable[..., Said]
) -> None:
    good, off = reference.basics(), {**reference.basics(), "latent": reference.latent + 1}
    one, two = place(good), place(off, "two")
    code, lines, error = run(one, two)
    assert code == 1 and lines["one/latent"] < 1e-4 and lines["two/latent"] == pytest.approx(1, rel=1e-3)
    assert run(one.parent) == (code, lines, error) and "two/latent" in error.splitlines()[-1]
    assert "one/" not in error and run(one)[0] == 0


def test_edits_that_the_config_speaks_of_are_missed(
    reference: Reference, place: Callable[..., Path], run: Callable[..., Said]
) -> None:
    cases = reference.edit(EDIT, 30, 2, 4)
    told = {"steps": 4, "strengths": [0.5], "scales": [2.0]}
    assert run(place(cases, **told))[::2] == (0, "")
    code, _, error = run(place(cases, "more", **told | {"scales": [2.0, 5.0]}))
    assert code == 0 and "strength 0.5, scale 5 and 4 steps: " in error and error.count("holds none") == 1


def test_raw_noise_needs_no_averages(
    reference: Reference, place: Callable[..., Path], run: Callable[..., Said]
) -> None:
    basics = reference.basics()
    raw = {name: basics[name] for name in ("eps_cond_raw", "eps_null_raw")}
    folders = place(raw), place(basics, "ema"), place(reference.edit(EDIT, 30, 2, 4), "edit")
    kept = reference.model.state
    reference.model.state = {name: tensor for name, tensor in kept.items() if not name.startswith("model_ema.")}
    for folder in folders:
        checkpoint, _ = reference.model.save(folder.parent)
        checkpoint.replace(folder / "ldm.ckpt")
    reference.model.state = kept
    assert run(folders[0])[0] == 0
    assert run(folders[1])[0] == 2
    code, _, error = run(folders[2])
    assert code == 2 and f"holds no averaged weights, which {EDIT}.timesteps" not in error
    assert "holds no averaged weights, which t0_30" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("name", ["ldm.ckpt", "config.json", "classifier.json"])
def test_a_file_that_is_missing(
    name: str, reference: Reference, place: Callable[..., Path], run: Callable[..., Said]
) -> None:
    folder = place({"gamma_1.classifier_scale_2.eps": reference.latent})
    (folder / name).unlink()
    code, _, error = run(folder)
    assert code == 2 and f"{folder} holds no " in error and name in error and len(error.splitlines()) == 1


def test_a_config_that_is_none(place: Callable[..., Path], run: Callable[..., Said]) -> None:
    folder = place({})
    for text, sentence in (("{", "config.json is no JSON"), ("[]", "config.json is no mapping")):
        (folder / "config.json").write_text(text)
        code, lines, error = run(folder)
        assert (code, lines) == (2, {}) and sentence in error and len(error.splitlines()) == 1


LATENT = torch.zeros(2, 3, 8, 8)
CASES = {"edit": {f"{EDIT}.z_t0": LATENT}, "draw": {f"{DRAW}.z_sample": LATENT}, "eps": {"eps_cond_ema": LATENT}}


@pytest.mark.parametrize(
    ("cases", "sentence"),
    [
        ({"t0_30.gamma_2.steps_4.eta_1.z_edit": LATENT}, "holds t0_30.gamma_2.steps_4.eta_1.z_edit, which is neither"),
        ({"t0_30.steps_4.z_t0": LATENT}, "holds t0_30.steps_4.z_t0, which is neither"),
        ({"t0_30.t0_20.gamma_2.steps_4.z_t0": LATENT}, "holds t0_30.t0_20.gamma_2.steps_4.z_t0, which is neither"),
        ({"gamma_2.latent": LATENT}, "holds gamma_2.latent, which is neither"),
        (
            {"sampler_euler.gamma_1.steps_4.z_sample": LATENT},
            "sampler=euler cannot be computed: the valid ones are ddpm",
        ),
        ({"t0_30.gamma_2.steps_4.spacing_cosine.z_t0": LATENT}, "spacing=cosine cannot be computed: the valid ones"),
        ({"t0_30.gamma_2.steps_4.inverter_auto.z_t0": LATENT}, "inverter=auto is no single method"),
        ({"t0_30.gamma_2.steps_4.z_t0_twin": LATENT}, "inverter ddim has no z_t0_twin"),
        ({"t0_30.gamma_200.steps_4.z_t0": LATENT}, "gamma=200 cannot be computed: it must be a number from 0 to 100"),
        ({"t0_60.gamma_2.steps_4.z_t0": LATENT}, "t0_60 is no level: there are 60, counted from 0"),
        ({"t0_30.gamma_2.steps_1.z_t0": LATENT}, "steps_1.z_t0: edit.num_steps=1 is too small"),
        ({"t0_30.gamma_2.steps_99.z_t0": LATENT}, "has 99 steps, but there are 60 levels"),
        ({"t0_30.gamma_2.steps_4.gamma_from_9.gamma_to_3.z_t0": LATENT}, "has guidance at no level from 9 to 3"),
        ({"sampler_ddim.gamma_1.steps_4.z_sample": LATENT}, "does not say its eta"),
        ({"sampler_plms.eta_1.gamma_1.steps_4.z_sample": LATENT}, "has an eta, which belongs to sampler_ddim alone"),
        (
            {"sampler_ddim.eta_2.gamma_1.steps_4.z_sample": LATENT},
            "eta=2 cannot be computed: it must be a number from 0",
        ),
        (
            {**CASES["draw"], "noise": torch.zeros(3, 2, 3, 8, 8)},
            "noise is 3x2x3x8x8 of float32, where sampler_ddim.eta_1",
        ),
        ({**CASES["draw"], "noise": torch.zeros(9, 2, 3, 4, 8)}, "needs floats of shape (N, 2, 3, 8, 8)"),
        ({**CASES["draw"], "z_start": torch.zeros(2, 4, 8, 8)}, "z_start is 2x4x8x8 of float32, where sampler_ddim"),
        ({**CASES["draw"], "z_start": torch.zeros(3, 3, 8, 8)}, "sample_label is 2 of int64, where sampler_ddim"),
        ({**CASES["eps"], "label": torch.tensor([0, 6])}, "label holds 6, but a class of each sample goes from 0 to 5"),
        (
            {**CASES["eps"], "label": torch.tensor([0.0, 2.0])},
            "label is 2 of float32, where eps_cond_ema needs 2 integers",
        ),
        ({**CASES["eps"], "t": torch.tensor([0, 60])}, "t holds 60, but a level of each sample goes from 0 to 59"),
        ({**CASES["eps"], "t": torch.tensor([[0, 1]])}, "t is 1x2 of int64, where eps_cond_ema needs 2 integers"),
        (
            {**CASES["edit"], "source_label": torch.tensor([1])},
            "source_label is 1 of int64, where t0_30.gamma_2.steps_4",
        ),
        ({**CASES["edit"], f"{EDIT}.z_edit": LATENT, f"{EDIT}.z_t0": LATENT[:1]}, "z_t0 is 1x3x8x8 of float32, where"),
        ({**CASES["edit"], "image": torch.zeros(2, 4, 16, 16)}, "image is 2x4x16x16 of float32, where latent needs"),
        ({f"{EDIT}.x_edit": LATENT}, f"holds no {EDIT}.z_edit, which its other tensors are computed from"),
        ({f"{DRAW}.x_sample": LATENT}, f"holds no {DRAW}.z_sample, which its other tensors are computed from"),
        ({f"{EDIT}.inverter_direct.z_edit": LATENT, f"{EDIT}.inverter_direct.z_t0": LATENT}, "inverter_direct.offsets"),
    ],
)
def test_what_cannot_be_computed_is_one_sentence(
    cases: dict[str, Tensor], sentence: str, place: Callable[..., Path], run: Callable[..., Said]
) -> None:
    folder = place(cases)
    code, _, error = run(folder)
    assert code == 2 and len([line for line in error.splitlines() if ", bar " not in line]) == 1, error
    assert sentence in error and str(folder) in error, error


@pytest.mark.parametrize("missing", ["t", "label", "source_label", "target_label", "z_start", "sample_label", "noise"])
def test_an_input_that_is_missing(
    missing: str, reference: Reference, place: Callable[..., Path], run: Callable[..., Said]
) -> None:
    levels = [*reversed(reference.taus(4, 59, True)), 0]
    z = reference.draw("ddim", levels, reference.eps(reference.inputs["sample_label"], 1), 1)
    cases = {**reference.basics(), **reference.edit(EDIT, 30, 2, 4), f"{DRAW}.z_sample": z}
    code, _, error = run(place(cases, without=(missing,)))
    assert code == 2 and f"cases.safetensors holds no {missing}, which its other tensors" in error
    assert len(error.splitlines()) == 1
