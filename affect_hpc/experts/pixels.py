"""Crops in [-1, 1] -> what a network wants to see. Differentiable."""

import torch
from torch import Tensor
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB in [0, 1]."""


def resized(images: Tensor, side: int, antialias: bool = True) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side): bilinear, with the filter widened where the image shrinks (``antialias``)."""
    if images.shape[-2:] == (side, side):
        return images
    return functional.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=antialias)


def standardised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """[-1, 1] -> as [0, 1], less the mean of each channel, over its deviation."""
    shift, scale = (images.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return ((images + 1) / 2 - shift) / scale


def levels(images: Tensor) -> Tensor:
    """[-1, 1] -> [0, 255], not rounded."""
    return (images + 1) * 127.5


def levels_8bit(images: Tensor) -> Tensor:
    """[-1, 1] -> 0..255 uint8, rounded: exactly the pixels of an 8-bit image that was scaled to [-1, 1]."""
    return levels(images.float()).round().clamp(0, 255).to(torch.uint8)


def grey(images: Tensor) -> Tensor:
    """(B, 3, H, W) RGB -> (B, 1, H, W) luma by ITU-R BT.601."""
    red, green, blue = images.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def same_padded(images: Tensor, kernel: int, stride: int) -> Tensor:
    """Zero-pad as TensorFlow's padding "same": ceil(size / stride) outputs, the odd pixel right and below."""
    height, width = images.shape[-2:]
    rows = max((-(-height // stride) - 1) * stride + kernel - height, 0)
    columns = max((-(-width // stride) - 1) * stride + kernel - width, 0)
    return functional.pad(images, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
