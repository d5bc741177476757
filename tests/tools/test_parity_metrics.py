"""Metrics in reference folders: figures by torch-fidelity, scikit-image and NumPy are met, others are told."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

Said = tuple[int, dict[str, float], str]
SETS = [(60, 45, 5), (150, 90, 24), (40, 70, 64)]
"""How many were generated, how many are real, how many features."""
PAIRS = [(1, 16, 16), (3, 24, 40), (5, 33, 12)]
"""How many images, their height and width."""


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("parity")


@pytest.fixture
def compare(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(cases: dict[str, Tensor], *words: str) -> Said:
        save_file({name: tensor.contiguous() for name, tensor in cases.items()}, tmp_path / "cases.safetensors")
        code = tool.main([str(tmp_path), *words])
        said = capsys.readouterr()
        return code, {key: float(value) for key, value in map(str.split, said.out.splitlines())}, said.err

    return run


def features(generated: int, real: int, dim: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(dim)
    mixing = torch.randn(dim, dim, generator=random)
    return {
        "features_generated": torch.randn(generated, dim, generator=random) @ mixing + 0.2,
        "features_real": torch.randn(real, dim, generator=random) @ mixing,
    }


def images(count: int, height: int, width: int) -> tuple[dict[str, Tensor], list[tuple[np.ndarray, np.ndarray]]]:
    """As inputs, and pair by pair as (H, W, 3) float64."""
    random = torch.Generator().manual_seed(width)
    a = torch.rand(count, 3, height, width, generator=random)
    b = (a + 0.1 * torch.randn(a.shape, generator=random)).clamp(0, 1)
    last = [one.permute(0, 2, 3, 1).double().numpy() for one in (a, b)]
    return {"image_a": a, "image_b": b}, list(zip(*last, strict=True))


def figures(values: dict[str, float | list[float]]) -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def of_sets(given: dict[str, Tensor], seed: int, subsets: int, size: int, k: int) -> dict[str, Tensor]:
    """By torch-fidelity."""
    x, y = (given[name].double() for name in ("features_generated", "features_real"))
    moments = [fid_features_to_statistics(one) for one in (x, y)]
    distance = kid_features_to_metric(x, y, kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False)
    share = prc_features_to_metric(x, y, prc_neighborhood=k, prc_batch_size=999, save_cpu_ram=True, verbose=False)
    drawn = f"seed_{seed}.subsets_{subsets}.size_{size}"
    return figures(
        {
            "fid": fid_statistics_to_metric(*moments, verbose=False)["frechet_inception_distance"],
            f"{drawn}.kid": distance["kernel_inception_distance_mean"],
            f"{drawn}.kid_std": distance["kernel_inception_distance_std"],
            f"k_{k}.precision": share["precision"],
            f"k_{k}.recall": share["recall"],
        }
    )


@pytest.mark.parametrize(
    ("counts", "how"), list(zip(SETS, [(7, 5, 20, 1), (0, 12, 50, 3), (2020, 3, 40, 7)], strict=True))
)
def test_figures_of_sets(counts: tuple[int, int, int], how: tuple[int, ...], compare: Callable[..., Said]) -> None:
    given = features(*counts)
    cases = of_sets(given, *how)
    code, lines, error = compare({**given, **cases})
    assert (code, error, set(lines)) == (0, "", set(cases))
    assert all(lines[name] <= 1e-4 * max(1.0, abs(float(figure))) for name, figure in cases.items())


@pytest.mark.parametrize("size", PAIRS)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_figures_of_pairs(size: tuple[int, int, int], as_bytes: bool, compare: Callable[..., Said]) -> None:
    given, pairs = images(*size)
    if as_bytes:
        given = {name: (255 * one).round().byte().permute(0, 2, 3, 1) for name, one in given.items()}
        pairs = [(a / 255, b / 255) for a, b in zip(*(one.double().numpy() for one in given.values()), strict=True)]
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    embeddings = {
        name: torch.randn(size[0], size[1], generator=torch.Generator().manual_seed(i))
        for i, name in enumerate(("embedding_a", "embedding_b"))
    }
    a, b = (one.double().numpy() for one in embeddings.values())
    cases = figures(
        {
            "psnr": [peak_signal_noise_ratio(a, b, data_range=1) for a, b in pairs],
            "ssim": [structural_similarity(a, b, data_range=1, **window) for a, b in pairs],
            "csim": (np.sum(a * b, 1) / np.sqrt(np.sum(a * a, 1) * np.sum(b * b, 1))).tolist(),
        }
    )
    code, lines, error = compare({**given, **embeddings, **cases})
    assert (code, error, set(lines)) == (0, "", set(cases))


@pytest.mark.parametrize(
    "name",
    [
        "fid",
        "seed_0.subsets_4.size_30.kid",
        "seed_0.subsets_4.size_30.kid_std",
        "k_2.precision",
        "k_2.recall",
        "psnr",
        "ssim",
    ],
)
def test_a_figure_that_is_off_is_named(name: str, compare: Callable[..., Said]) -> None:
    given, pairs = features(*SETS[0]), images(*PAIRS[1])
    cases = of_sets(given, 0, 4, 30, 2)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    cases |= figures(
        {
            "psnr": [peak_signal_noise_ratio(a, b, data_range=1) for a, b in pairs[1]],
            "ssim": [structural_similarity(a, b, data_range=1, **window) for a, b in pairs[1]],
        }
    )
    step = 0.01 * max(1.0, float(cases[name].abs().max()))
    changed = cases[name].clone()
    changed.view(-1)[-1] += step
    code, lines, error = compare({**given, **pairs[0], **cases, name: changed})
    assert code == 1 and lines[name] == pytest.approx(step, rel=0.05)
    assert error.splitlines()[0].startswith(f"{name}: ") and error.splitlines()[-1] == f"beyond 0.0001: {name}"


def test_cases_have_inputs_of_their_own(compare: Callable[..., Said]) -> None:
    """An input under the settings of a case goes before the one that stands by itself."""
    general, special = features(*SETS[0]), features(*SETS[2])
    theirs = of_sets(special, 1, 2, 20, 5)["k_5.recall"]
    own = {f"k_5.{name}": tensor for name, tensor in special.items()}
    assert compare({**general, **own, "k_5.recall": theirs, "fid": of_sets(general, 1, 2, 20, 5)["fid"]})[0] == 0
    assert compare({**general, "k_5.recall": theirs})[0] == 1


@pytest.mark.parametrize("name", ["lpips", "lpips_vgg"])
def test_lpips_is_by_the_judges_network(
    name: str, compare: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trained network is no part of the reference, and perhaps not here: another one stands in for it."""

    class Judge:
        def distance(self, a: Tensor, b: Tensor) -> Tensor:
            assert a.dtype == torch.float32 and a.min() < -0.5
            return (a - b).abs().amax(dim=(1, 2, 3))

    given, pairs = images(*PAIRS[1])
    monkeypatch.setattr(
        sys.modules["parity_metrics"], "load_perceptual", lambda asked, folder: Judge() if asked == name else None
    )
    assert compare({**given, **figures({name: [2 * np.abs(a - b).max() for a, b in pairs]})})[0] == 0


def test_lpips_without_its_network_is_refused(
    compare: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    code, lines, error = compare({**images(*PAIRS[0])[0], "lpips": torch.zeros(1)})
    assert (code, lines) == (2, {}) and "cases.safetensors: lpips: " in error and len(error.splitlines()) == 1


SET, PAIR = features(20, 12, 4), images(2, 16, 16)[0]
ONE = torch.tensor(0.5)


@pytest.mark.parametrize(
    ("cases", "sentence"),
    [
        ({"fid": ONE, "features_real": SET["features_real"]}, "holds no features_generated, which its other tensors"),
        (
            {**SET, "features_real": torch.ones(9, 5), "fid": ONE},
            "features_real is 9x5 of float32, where fid needs floats",
        ),
        ({**SET, "features_real": SET["features_real"].int(), "fid": ONE}, "real is 12x4 of int32, where fid needs"),
        ({**SET, "features_real": SET["features_real"] / 0, "fid": ONE}, "features_real holds a number that is not"),
        ({**SET, "kid": ONE}, "kid: KID draws subsets of 1000 samples, but of 20 generated and 12 real ones"),
        ({**SET, "size_1.kid": ONE}, "size_1.kid: size=1 cannot be computed: it must be an integer from 2 to"),
        ({**SET, "size_2.5.kid": ONE}, "size=2.5 cannot be computed: it must be an integer"),
        ({**SET, "k_12.recall": ONE}, "k_12.recall: of 20 generated and 12 real samples not all have a neighbour"),
        ({**SET, "k_3.fid": ONE}, "holds k_3.fid, which is neither an input"),
        ({**SET, "is": ONE}, "holds is, which is neither an input"),
        ({**PAIR, "image_b": PAIR["image_b"][:1], "psnr": ONE}, "image_b is 1x3x16x16 of float32, where psnr needs"),
        ({**PAIR, "image_b": PAIR["image_b"] * 2 - 1, "psnr": ONE}, "image_b goes from -1 to 1, but images of pairs"),
        (
            {**PAIR, "image_b": torch.zeros(2, 3, 16, 16).byte(), "psnr": ONE},
            "image_b is 2x3x16x16 of uint8, where psnr",
        ),
        ({name: one[..., :9] for name, one in PAIR.items()} | {"ssim": ONE}, "where ssim needs at least 11 px a side"),
        ({"embedding_a": torch.ones(2, 3), "embedding_b": torch.ones(2, 4), "csim": ONE}, "b is 2x4 of float32, where"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    cases: dict[str, Tensor], sentence: str, compare: Callable[..., Said], tmp_path: Path
) -> None:
    code, lines, error = compare(cases)
    assert (code, lines) == (2, {}) and len(error.splitlines()) == 1
    assert sentence in error and str(tmp_path / "cases.safetensors") in error, error
