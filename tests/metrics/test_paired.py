"""PSNR, SSIM, cosine and accuracy against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from affect_hpc.metrics import affect, paired


def flat(level: int, size: int = 32) -> np.ndarray:
    return np.full((size, size, 3), level, np.uint8)


def test_psnr_of_flat_images_is_the_closed_form() -> None:
    a, b = paired.unit_range([flat(100), flat(0)]), paired.unit_range([flat(151), flat(255)])
    got = paired.psnr(a, b)
    assert got[0] == pytest.approx(-10 * math.log10(0.2**2 + 1e-8), abs=1e-12)  # 51 / 255 = 0.2
    assert got[1] == pytest.approx(0.0, abs=1e-6)


def test_psnr_counts_all_channels_alike() -> None:
    changed = flat(100)
    changed[..., 1] += 51
    (got,) = paired.psnr(paired.unit_range([flat(100)]), paired.unit_range([changed]))
    assert got == pytest.approx(-10 * math.log10(0.2**2 / 3 + 1e-8), abs=1e-12)


def test_ssim_of_flat_images_is_the_luminance_term() -> None:
    (got,) = paired.ssim(paired.unit_range([flat(51)]), paired.unit_range([flat(102)]))
    c1 = 0.01**2
    assert got == pytest.approx((2 * 0.2 * 0.4 + c1) / (0.2**2 + 0.4**2 + c1), abs=1e-5)


def test_equal_images_are_perfect() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    x = paired.unit_range([noise])
    assert paired.psnr(x, x) == [pytest.approx(80.0)]
    assert paired.ssim(x, x) == [pytest.approx(1.0)]


def test_cosine_ignores_length() -> None:
    a = torch.tensor([[1.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    b = torch.tensor([[2.0, 0.0], [-6.0, -8.0], [1.0, -1.0]])
    assert paired.cosine(a, b) == pytest.approx([1.0, -1.0, 0.0], abs=1e-12)


def test_prediction_and_hit() -> None:
    classes = ("neutral", "happy", "sad")
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    assert affect.predicted(probabilities, classes) == ["happy", "neutral"]
    assert [affect.hit("happy", wanted, classes) for wanted in ("happy", "sad", "contempt")] == [1.0, 0.0, None]
    with pytest.raises(ValueError, match="do not fit"):
        affect.predicted(probabilities, ("a", "b"))
