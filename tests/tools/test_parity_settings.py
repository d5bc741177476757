"""The comparison with reference folders of other sizes and settings, computed by formulas of another form."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from original_layout import LARGER, NO_ATTENTION, TINY
from reference_folders import Reference
from torch import Tensor

from affect_hpc.config.model import UnetConfig

Said = tuple[int, dict[str, float], str]
FLAT = UnetConfig([32, 64], 1, 32, 8, [])
MAKERS = {
    "small": lambda: Reference(TINY, 8, (2, 3, 16, 16), 1000, 0.0015, 0.0205),
    "deep": lambda: Reference(LARGER, 5, (3, 3, 32, 16), 200, 0.003, 0.04, one_table=True, scale=0.6),
    "flat": lambda: Reference((NO_ATTENTION[0], FLAT), 11, (1, 3, 16, 24), 40, 0.01, 0.2, root=False),
}
WORLDS = sorted(MAKERS)


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("parity")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Reference, Path]]:
    made: dict[str, tuple[Reference, Path]] = {}

    def world(name: str) -> tuple[Reference, Path]:
        if name not in made:
            made[name] = MAKERS[name](), tmp_path_factory.mktemp(name)
        return made[name]

    return world


@pytest.fixture
def compare(
    tool: ModuleType, worlds: Callable[[str], tuple[Reference, Path]], capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    def run(name: str, cases: dict[str, Tensor], *words: str, without: tuple[str, ...] = ()) -> Said:
        reference, folder = worlds(name)
        given = {"latent": reference.latent, **reference.inputs, **cases}
        reference.save(folder, {key: tensor for key, tensor in given.items() if key not in without})
        code = tool.main([str(folder), *words])
        said = capsys.readouterr()
        return code, {key: float(value) for key, value in map(str.split, said.out.splitlines())}, said.err

    return run


def holds(said: Said, cases: dict[str, Tensor]) -> None:
    """All cases were compared and are met; values are in the hundreds where networks never saw a face."""
    code, lines, error = said
    assert code == 0 and set(lines) == set(cases) | {"latent"}, error
    off = {name: lines[name] / max(1.0, float(tensor.detach().abs().max())) for name, tensor in cases.items()}
    assert max(off.values()) < 1e-4 and lines["latent"] < 1e-4 and "speaks of" not in error


@pytest.mark.parametrize("name", WORLDS)
def test_networks_and_schedule(name: str, worlds: Callable, compare: Callable[..., Said]) -> None:
    cases = worlds(name)[0].basics()
    holds(compare(name, cases), cases)


@pytest.mark.parametrize(
    ("settings", "call"),
    [
        ("gamma_0", {"gamma": 0}),
        ("gamma_1.weights_raw", {"gamma": 1, "raw": True}),
        ("gamma_7.5", {"gamma": 7.5}),
        ("weights_raw.gamma_2", {"gamma": 2, "raw": True}),
        ("gamma_3.gamma_from_10.gamma_to_700", {"gamma": 3, "between": (10, 700)}),
        ("gamma_1.classifier_scale_2.5", {"gamma": 1, "scale": 2.5}),
        ("classifier_scale_8.gamma_0", {"gamma": 0, "scale": 8}),
        ("gamma_2.classifier_scale_1.clip_0.8", {"gamma": 2, "scale": 1, "clip": 0.8}),
    ],
)
@pytest.mark.parametrize("name", WORLDS)
def test_guidance(name: str, settings: str, call: dict, worlds: Callable, compare: Callable[..., Said]) -> None:
    reference = worlds(name)[0]
    t, label = reference.inputs["t"], reference.inputs["label"]
    cases = {f"{settings}.eps": reference.guided(reference.latent.double(), t, label, **call).float()}
    holds(compare(name, cases), cases)


EDITS = [
    ("small", "t0_600.gamma_2.steps_4", {"t0": 600, "gamma": 2, "steps": 4}),
    ("small", "t0_0.35.gamma_1.5.steps_6", {"t0": 350, "gamma": 1.5, "steps": 6}),
    ("small", "t0_501.gamma_4.encode_gamma_1.steps_3", {"t0": 501, "gamma": 4, "steps": 3, "encode_gamma": 1}),
    ("deep", "t0_120.gamma_2.5.steps_5", {"t0": 120, "gamma": 2.5, "steps": 5}),
    ("deep", "steps_7.t0_199.gamma_1.end_level_clean", {"t0": 199, "gamma": 1, "steps": 7, "clean": True}),
    (
        "deep",
        "t0_150.gamma_0.steps_8.encode_gamma_3.spacing_leading_plus_one.weights_raw",
        {"t0": 150, "gamma": 0, "steps": 8, "encode_gamma": 3, "leading": True, "raw": True},
    ),
    ("flat", "t0_39.gamma_3.steps_5", {"t0": 39, "gamma": 3, "steps": 5}),
    ("flat", "t0_20.gamma_2.steps_3.time_input_current", {"t0": 20, "gamma": 2, "steps": 3, "current": True}),
    (
        "flat",
        "t0_30.gamma_2.steps_8.spacing_leading_plus_one.gamma_from_9.classifier_scale_2.clip_1",
        {"t0": 30, "gamma": 2, "steps": 8, "leading": True, "between": (9, 10**6), "scale": 2, "clip": 1},
    ),
]


@pytest.mark.parametrize(("name", "settings", "call"), EDITS)
def test_edits(name: str, settings: str, call: dict, worlds: Callable, compare: Callable[..., Said]) -> None:
    cases = worlds(name)[0].edit(settings, **call)
    holds(compare(name, cases), cases)


def inverted(reference: Reference, kind: str, levels: list[int], gamma: float, value: float) -> dict[str, Tensor]:
    """All results of an edit by another inverter; ``levels`` begin with the end."""
    there = reference.eps(reference.inputs["source_label"], gamma)
    back = reference.eps(reference.inputs["target_label"], gamma)
    pairs, move, z = list(pairwise(levels)), reference.move, (reference.latent * reference.scale).double()
    found: dict[str, Tensor] = {}
    if kind == "fixed_point":
        for low, high in pairs:
            begin, z = z, move(z, there(z, high), low, high)
            for _ in range(int(value)):
                z = move(begin, there(z, high), low, high)
        found["z_t0"] = z
    elif kind == "direct":
        passed = [z]
        for low, high in pairs:
            passed.append(move(passed[-1], there(passed[-1], high), low, high))
        missed = [passed[i] - move(passed[i + 1], there(passed[i + 1], hi), hi, lo) for i, (lo, hi) in enumerate(pairs)]
        found |= {"z_t0": passed[-1], "offsets": torch.stack(missed, 1)}
    else:
        x = y = z
        for k, (low, high) in enumerate(pairs):
            if k % 2:
                x, y = y, x
            y = (y - (1 - value) * x) / value
            x = (x - (1 - value) * y) / value
            y = move(y, there(x, high), low, high)
            x = move(x, there(y, high), low, high)
            if k % 2:
                x, y = y, x
        found |= {"z_t0": x, "z_t0_twin": y}
    z, twin = found["z_t0"], found.get("z_t0_twin", found["z_t0"])
    for k, (low, high) in reversed(list(enumerate(pairs))):
        if kind == "coupled":
            z, twin = (twin, z) if k % 2 else (z, twin)
            z = move(z, back(twin, high), high, low)
            twin = move(twin, back(z, high), high, low)
            z = value * z + (1 - value) * twin
            twin = value * twin + (1 - value) * z
            z, twin = (twin, z) if k % 2 else (z, twin)
        else:
            z = move(z, back(z, high), high, low)
            z = z + found["offsets"][:, k] if kind == "direct" else z
    return {what: tensor.float() for what, tensor in {**found, "z_edit": z}.items()}


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [("fixed_point", "refinements_2", 2), ("coupled", "mixing_0.95", 0.95), ("direct", "inverter_direct", 0)],
)
@pytest.mark.parametrize(
    ("name", "t0", "steps", "gamma"), [("small", 400, 4, 1), ("deep", 90, 5, 2), ("flat", 33, 3, 1.5)]
)
def test_other_inverters(
    kind: str,
    setting: str,
    value: float,
    name: str,
    t0: int,
    steps: int,
    gamma: float,
    worlds: Callable,
    compare: Callable[..., Said],
) -> None:
    reference = worlds(name)[0]
    settings = dict.fromkeys([f"t0_{t0}", f"gamma_{gamma}", f"steps_{steps}", f"inverter_{kind}", setting])
    found = inverted(reference, kind, [0, *reference.taus(steps, t0, False)], gamma, value)
    cases = {f"{'.'.join(settings)}.{what}": tensor for what, tensor in found.items()}
    holds(compare(name, cases), cases)


def samples(reference: Reference, settings: str, z: Tensor, levels: list) -> dict[str, Tensor]:
    visited = torch.tensor(sorted(level for level in levels if level))
    found = {"timesteps": visited, "z_sample": z, "x_sample": reference.picture(z)}
    return {f"{settings}.{what}": tensor for what, tensor in found.items()}


DRAWS = [
    ("small", "ddpm", 0, 5, 999, True, False, 1, {}),
    ("small", "ddim", 1, 4, 999, False, False, 2, {}),
    ("small", "ddim", 0.3, 8, 700, True, True, 1.5, {"clip": 2}),
    ("small", "dpm_solver", 0, 6, 999, False, False, 2, {}),
    ("deep", "ddpm", 0, 6, 150, False, True, 2, {"raw": True}),
    ("deep", "ddim", 0.7, 10, 199, True, False, 0, {"scale": 3}),
    ("deep", "dpm_solver", 0, 8, 120, True, True, 3, {}),
    ("flat", "ddpm", 0, 8, 39, True, False, 3, {"between": (5, 30)}),
    ("flat", "ddim", 0, 5, 39, False, True, 1, {}),
    ("flat", "dpm_solver", 0, 10, 39, True, False, 0, {}),
]


@pytest.mark.parametrize(("name", "kind", "eta", "steps", "t0", "leading", "clean", "gamma", "more"), DRAWS)
def test_samplers(
    name: str,
    kind: str,
    eta: float,
    steps: int,
    t0: int,
    leading: bool,
    clean: bool,
    gamma: float,
    more: dict,
    worlds: Callable,
    compare: Callable[..., Said],
) -> None:
    reference = worlds(name)[0]
    words = [f"sampler_{kind}", f"steps_{steps}", f"gamma_{gamma}"]
    words += [f"t0_{t0}"] * (t0 != reference.levels - 1) + [f"eta_{eta}"] * (kind == "ddim")
    words += ["spacing_linspace"] * (not leading) + ["end_level_clean"] * clean
    spelled = {
        "clip": "clip_{}",
        "raw": "weights_raw",
        "scale": "classifier_scale_{}",
        "between": "gamma_from_{0[0]}.gamma_to_{0[1]}",
    }
    words += [spelled[key].format(value) for key, value in more.items()]
    levels = [*reversed(reference.taus(steps, t0, leading)), None if clean else 0]
    z = reference.draw(kind, levels, reference.eps(reference.inputs["sample_label"], gamma, **more), eta)
    cases = samples(reference, ".".join(words), z, levels)
    holds(compare(name, cases), cases)


@pytest.mark.parametrize(
    ("name", "kind", "eta", "steps", "gamma", "clean"),
    [
        ("small", "plms", 0, 5, 1, False),
        ("small", "ddim", 0.5, 8, 1.5, True),
        ("deep", "plms", 0, 8, 2, True),
        ("deep", "ddim", 1, 4, 3, False),
        ("flat", "plms", 0, 4, 3, False),
        ("flat", "ddim", 0, 10, 0, True),
    ],
)
def test_samplers_of_diffusers(
    name: str,
    kind: str,
    eta: float,
    steps: int,
    gamma: float,
    clean: bool,
    worlds: Callable,
    compare: Callable[..., Said],
) -> None:
    reference = worlds(name)[0]
    eps = reference.eps(reference.inputs["sample_label"], gamma)
    z = reference.draw_by_diffusers(kind, steps, eps, clean, eta)
    settings = f"sampler_{kind}.gamma_{gamma}.steps_{steps}" + f".eta_{eta}" * (kind == "ddim")
    cases = samples(reference, settings + ".end_level_clean" * clean, z, reference.taus(steps, reference.levels, True))
    holds(compare(name, cases), cases)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("", "betas"),
        ("", "latent_quantized"),
        ("gamma_2.", "eps"),
        ("t0_30.gamma_2.steps_4.", "z_t0"),
        ("t0_30.gamma_2.steps_4.", "z_edit"),
        ("t0_30.gamma_2.steps_4.", "z_own"),
        ("t0_30.gamma_2.steps_4.", "x_own"),
        ("sampler_ddpm.gamma_1.steps_4.", "z_sample"),
        ("sampler_ddpm.gamma_1.steps_4.", "x_sample"),
    ],
)
def test_one_number_that_is_off_is_named(
    settings: str, what: str, worlds: Callable, compare: Callable[..., Said]
) -> None:
    reference = worlds("flat")[0]
    eps = reference.eps(reference.inputs["sample_label"], 1)
    cases = reference.basics() | reference.edit("t0_30.gamma_2.steps_4", 30, 2, 4)
    levels = [*reversed(reference.taus(4, 39, True)), 0]
    cases |= samples(reference, "sampler_ddpm.gamma_1.steps_4", reference.draw("ddpm", levels, eps), levels)
    cases["gamma_2.eps"] = reference.guided(reference.latent, reference.inputs["t"], reference.inputs["label"], 2)
    name = settings + what
    off = cases[name].clone()
    place = tuple(side - 1 for side in off.shape)
    off[place] += 0.002
    code, lines, error = compare("flat", {**cases, name: off})
    assert code == 1 and lines[name] == pytest.approx(0.002, rel=0.05)
    told = next(line for line in error.splitlines() if line.startswith(f"{name}: 0.002"))
    assert "bar 0.0001" in told and f"at {place} ours is " in told
    assert name in error.splitlines()[-1].removeprefix("beyond 0.0001: ").split(", ")


@pytest.mark.parametrize(
    ("claimed", "call"),
    [
        ("t0_30.gamma_2.steps_4", {"t0": 30, "gamma": 2.01, "steps": 4}),
        ("t0_30.gamma_2.steps_4", {"t0": 30, "gamma": 2, "steps": 4, "clean": True}),
        ("t0_30.gamma_2.steps_4", {"t0": 30, "gamma": 2, "steps": 4, "current": True}),
        ("t0_30.gamma_2.steps_4.time_input_current", {"t0": 30, "gamma": 2, "steps": 4}),
        ("t0_30.gamma_2.steps_4.weights_raw", {"t0": 30, "gamma": 2, "steps": 4}),
        ("t0_30.gamma_2.encode_gamma_1.steps_4", {"t0": 30, "gamma": 2, "steps": 4}),
        ("t0_30.gamma_2.steps_4.gamma_to_9", {"t0": 30, "gamma": 2, "steps": 4}),
    ],
)
def test_a_reference_of_another_setting_is_not_met(
    claimed: str, call: dict, worlds: Callable, compare: Callable[..., Said]
) -> None:
    cases = worlds("flat")[0].edit(claimed, **call)
    code, lines, error = compare("flat", cases)
    assert code == 1 and max(lines[f"{claimed}.z_t0"], lines[f"{claimed}.z_edit"]) > 1e-3, error


def test_rounding_that_float32_makes_is_no_difference_and_more_is(
    worlds: Callable, compare: Callable[..., Said]
) -> None:
    """Strong guidance makes much of rounding errors: the bar rises with what it makes of ours, and no further."""
    reference, name = worlds("small")[0], "t0_900.gamma_30.steps_6"
    cases = reference.edit(name, 900, 30, 6)
    z_t0 = f"{name}.z_t0"
    code, lines, error = compare("small", {z_t0: cases[z_t0]})
    assert code == 0, error
    off = cases[z_t0] + 0.01 * cases[z_t0].abs().max()
    code, lines, error = compare("small", {z_t0: off})
    assert code == 1 and lines[z_t0] > 1e-3 and "in float64, bar " in error
    assert compare("small", {z_t0: cases[z_t0]}, "--tolerance", "1e-9")[0] == 1
