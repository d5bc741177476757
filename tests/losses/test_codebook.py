"""Use of the codebook, by hand."""

import math

import pytest
import torch

from affect_hpc.losses.codebook import code_counts, codebook_use


def test_codes_are_counted() -> None:
    assert code_counts(torch.tensor([[3, 0], [3, 3]]), 5).tolist() == [1, 0, 0, 3, 0]
    assert code_counts(torch.zeros(0, dtype=torch.int64), 3).tolist() == [0, 0, 0]


def test_perplexity_is_the_number_of_codes_that_are_equally_frequent() -> None:
    assert codebook_use(torch.tensor([7, 7, 0, 7, 7])) == pytest.approx({"codes_used": 4, "perplexity": 4})
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert codebook_use(torch.tensor([3, 1])) == pytest.approx({"codes_used": 2, "perplexity": math.exp(entropy)})
    assert codebook_use(torch.tensor([0, 9])) == pytest.approx({"codes_used": 1, "perplexity": 1})
    assert codebook_use(torch.zeros(4, dtype=torch.int64)) == {"codes_used": 0, "perplexity": 0}
