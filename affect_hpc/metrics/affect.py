"""What emotion a judge sees, and whether it is the wanted one."""

from collections.abc import Sequence

import torch


def predicted(probabilities: torch.Tensor, classes: Sequence[str]) -> list[str]:
    """The most probable class of each image; of equal ones the first.

    Args:
        probabilities: (B, len(classes)), rows sum to 1.
        classes: names of the columns.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] != len(classes):
        raise ValueError(f"probabilities of shape {tuple(probabilities.shape)} do not fit {len(classes)} classes")
    return [classes[int(i)] for i in probabilities.argmax(dim=1)]


def hit(seen: str, wanted: str, classes: Sequence[str]) -> float | None:
    """1 where the judge saw ``wanted``, else 0; None where it does not know that class and so could never see it.

    The thesis' judge knows seven classes, without contempt: a face labelled contempt says nothing about it.
    """
    return None if wanted not in classes else float(seen == wanted)
