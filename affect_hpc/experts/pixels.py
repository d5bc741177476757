"""Crops in [-1, 1] -> what a network wants to see. Differentiable."""

from torch import Tensor
from torch.nn import functional


def resized(images: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side): bilinear, with the filter widened where the image shrinks."""
    if images.shape[-2:] == (side, side):
        return images
    return functional.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)


def levels(images: Tensor) -> Tensor:
    """[-1, 1] -> [0, 255], not rounded."""
    return (images + 1) * 127.5


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
