"""Real pictures for the tests, as they come with scikit-image: a portrait (NASA, public domain) and a cat (CC0)."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor


def portrait(side: int = 128) -> Tensor:
    """(1, 3, side, side) in [-1, 1]: a smiling face, cut as a landmark box with a small margin would be."""
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the test face")
    return as_tensor(data.astronaut()[68:200, 158:290], side)


def cat(side: int = 224) -> Tensor:
    """(1, 3, side, side) in [-1, 1]"""
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the test picture")
    return as_tensor(data.chelsea()[:, 75:375], side)


def as_tensor(image: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", side: int) -> Tensor:
    small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)).copy()
    return torch.from_numpy(small).permute(2, 0, 1)[None].float() / 127.5 - 1
