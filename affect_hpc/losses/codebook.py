"""Which codes of a codebook are in use."""

import torch
from torch import Tensor


def code_counts(codes: Tensor, size: int) -> Tensor:
    """How often each of ``size`` codes occurs in ``codes`` (any shape, int64): (size,) int64."""
    flat = codes.flatten()
    # Not bincount: it would wait for the GPU.
    return torch.zeros(size, dtype=torch.int64, device=flat.device).scatter_add_(0, flat, torch.ones_like(flat))


def codebook_use(counts: Tensor) -> dict[str, float]:
    """``codes_used`` (codes that occur at all) and ``perplexity`` (exp of the entropy of their shares).

    Perplexity is the number of codes that would carry as much if all were equally frequent: 1 .. codes_used, 0 where
    nothing was counted.

    Args:
        counts: (K,) occurrences of each code.
    """
    used = counts[counts > 0].double()
    if not len(used):
        return {"codes_used": 0.0, "perplexity": 0.0}
    share = used / used.sum()
    return {"codes_used": float(len(used)), "perplexity": float(torch.exp(-(share * share.log()).sum()))}
