"""Losses of the first stage against closed forms, other libraries and differentiation."""

import math

import numpy as np
import pytest
import torch
from skimage.color import deltaE_cie76, rgb2lab
from torch import nn

from affect_hpc.config.stages import GanLoss
from affect_hpc.losses.autoencoding import (
    adaptive_weight,
    center_weights,
    chroma_error,
    colour_difference,
    discriminator_loss,
    generator_loss,
    gradient_error,
    lab,
    pooled_error,
)


def test_center_weights_have_mean_one_and_rise_to_the_middle() -> None:
    weights = center_weights(32, 2.0, torch.device("cpu"))[0, 0]
    assert float(weights.mean()) == pytest.approx(1, abs=1e-6)
    assert float(weights[15, 15]) > float(weights[15, 4]) > float(weights[0, 0])
    torch.testing.assert_close(weights, weights.flip(0))
    assert torch.equal(center_weights(8, 0.0, torch.device("cpu")), torch.ones(1, 1, 8, 8))


def test_gradient_error_sees_edges_and_not_brightness() -> None:
    image = torch.rand(1, 3, 8, 8)
    assert float(gradient_error(image, image + 0.3)) == pytest.approx(0, abs=1e-6)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert float(gradient_error(2 * ramp, ramp)) == pytest.approx(1)


def test_pooled_error_sees_areas_and_not_detail() -> None:
    checks = torch.ones(8, 8).cumsum(0).cumsum(1).remainder(2)[None, None] * 2 - 1
    checks = torch.where((torch.arange(8)[:, None] + torch.arange(8)) % 2 == 0, 1.0, -1.0)[None, None]
    assert float(pooled_error(checks, torch.zeros(1, 1, 8, 8))) == 0
    assert float(pooled_error(checks + 0.5, torch.zeros(1, 1, 8, 8))) == pytest.approx(0.5)


def test_chroma_error_is_blind_to_grey_and_knows_blue() -> None:
    image = torch.rand(2, 3, 8, 8)
    assert float(chroma_error(image, image + 0.2)) == pytest.approx(0, abs=1e-6)
    blue = torch.zeros(1, 3, 4, 4)
    blue[:, 2] = 1
    # luma 0.114: Cb = 0.564 (1 - 0.114), Cr = 0.713 (0 - 0.114)
    assert float(chroma_error(blue, torch.zeros_like(blue))) == pytest.approx(0.564 * 0.886 + 0.713 * 0.114, rel=1e-5)


def test_lab_and_colour_difference_agree_with_scikit_image() -> None:
    a, b = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    a[0, :, 0, 0], a[0, :, 0, 1] = -1, 1  # black and white
    theirs = [rgb2lab(((image + 1) / 2).permute(0, 2, 3, 1).numpy()) for image in (a, b)]
    np.testing.assert_allclose(lab(a).permute(0, 2, 3, 1).numpy(), theirs[0], atol=0.02)
    expected = deltaE_cie76(*theirs).mean(axis=(1, 2))
    np.testing.assert_allclose(colour_difference(a, b).numpy(), expected, rtol=1e-3)


def test_adversarial_losses_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert float(discriminator_loss(GanLoss.hinge, real, fake)) == pytest.approx(0.5 * (0.25 + 0.5))
    assert float(generator_loss(GanLoss.hinge, fake)) == pytest.approx(1.5)
    log = 0.5 * sum(math.log1p(math.exp(x)) for x in (-2.0, -0.5, -3.0, 0.0)) / 2
    assert float(discriminator_loss(GanLoss.log, real, fake)) == pytest.approx(log)
    assert float(generator_loss(GanLoss.log, fake)) == pytest.approx((math.log1p(math.exp(3)) + math.log(2)) / 2)


def test_adaptive_weight_equals_differentiation_through_the_last_layer() -> None:
    torch.manual_seed(0)
    last, judge = nn.Conv2d(5, 3, 3, padding=1), nn.Conv2d(3, 1, 4, stride=2)
    hidden, real = torch.randn(2, 5, 16, 16), torch.randn(2, 3, 16, 16)
    fake = last(hidden)
    rec_loss, adv_loss = (fake - real).abs().mean(), -judge(fake).mean()
    by_autograd = [torch.autograd.grad(loss, last.weight, retain_graph=True)[0].norm() for loss in (rec_loss, adv_loss)]
    at_image = [torch.autograd.grad(loss, fake, retain_graph=True)[0] for loss in (rec_loss, adv_loss)]
    weight = adaptive_weight(hidden, last.weight.detach(), *at_image)
    assert float(weight) == pytest.approx(float(by_autograd[0] / (by_autograd[1] + 1e-4)), rel=1e-6)
    assert not weight.requires_grad


def test_adaptive_weight_is_clamped_where_the_judge_is_indifferent() -> None:
    hidden, gradient = torch.ones(1, 1, 4, 4), torch.full((1, 3, 4, 4), 1e3)
    assert float(adaptive_weight(hidden, torch.zeros(3, 1, 3, 3), gradient, torch.zeros(1, 3, 4, 4))) == 1e4
