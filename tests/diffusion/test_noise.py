"""The noise of a sample: a function of seed, index and step."""

import numpy as np
import pytest
import torch

from affect_hpc.diffusion.noise import SampleNoise
from affect_hpc.losses.denoising import draws

SHAPE = (3, 4, 4)


def test_a_sample_has_the_same_noise_in_every_batch_and_order() -> None:
    whole = SampleNoise(7, range(1230, 1240), SHAPE)
    alone = SampleNoise(7, [1234], SHAPE)
    late = alone(3)
    assert torch.equal(whole.start()[4:5], alone.start())
    assert torch.equal(whole(3)[4:5], late)
    assert torch.equal(SampleNoise(7, [5, 1234, 2], SHAPE)(3)[1:2], late)


def test_seeds_indices_and_steps_differ() -> None:
    made = [SampleNoise(seed, [index], SHAPE)(k) for seed in (0, 1) for index in (0, 1) for k in (0, 1)]
    made += [SampleNoise(0, [0], SHAPE).start(), draws(0, [0], 1000, SHAPE).noise]
    assert len({tuple(noise.flatten().tolist()) for noise in made}) == len(made)


def test_noise_is_standard_normal_and_uncorrelated() -> None:
    noise = SampleNoise(3, range(2000), SHAPE)
    first, second = noise.start().double(), noise(0).double()
    assert (first.shape, noise.start().dtype) == ((2000, *SHAPE), torch.float32)
    for one in (first, second):
        assert float(one.mean()) == pytest.approx(0, abs=0.015)
        assert float(one.var()) == pytest.approx(1, abs=0.02)
    assert float((first * second).mean()) == pytest.approx(0, abs=0.015)
    assert float((first[1:] * first[:-1]).mean()) == pytest.approx(0, abs=0.015)


def test_the_keys_are_the_documented_ones() -> None:
    source = np.random.Philox(key=np.array([2**64 - 1, 12], np.uint64), counter=np.array([0, 0, 6, 1], np.uint64))
    expected = np.random.Generator(source).standard_normal(SHAPE, dtype=np.float32)
    assert np.array_equal(SampleNoise(-1, [12], SHAPE)(5)[0].numpy(), expected)


def test_what_is_negative_is_refused() -> None:
    with pytest.raises(ValueError, match="index=-1"):
        SampleNoise(0, [3, -1], SHAPE)
    with pytest.raises(ValueError, match="k=-1"):
        SampleNoise(0, [3], SHAPE)(-1)


def test_no_samples_no_noise() -> None:
    assert SampleNoise(0, [], SHAPE).start().shape == (0, *SHAPE)
