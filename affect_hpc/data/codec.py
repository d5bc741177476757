"""Bytes <-> images and arrays <-> tensors. No pickle anywhere."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

UInt8Image = npt.NDArray[np.uint8]


def encode_png(image: UInt8Image) -> bytes:
    """Lossless PNG of an (H, W, 3) uint8 image; the bytes depend on the pixels alone."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def decode_png(content: bytes) -> UInt8Image:
    """(H, W, 3) uint8 image of a PNG."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def encode_npy(array: npt.NDArray[np.generic]) -> bytes:
    """An array in NumPy's .npy format."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def decode_npy(content: bytes) -> npt.NDArray[np.generic]:
    """The array of a .npy file."""
    array: npt.NDArray[np.generic] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def images_to_tensor(images: Sequence[UInt8Image]) -> torch.Tensor:
    """(H, W, 3) uint8 images -> (B, 3, H, W) float32 in [-1, 1]: x / 127.5 - 1."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return (stacked.float() / 127.5 - 1).contiguous()


def tensor_to_images(tensor: torch.Tensor) -> list[UInt8Image]:
    """(B, 3, H, W) in [-1, 1] -> (H, W, 3) uint8 images; clamped, rounded to the nearest level."""
    levels = ((tensor.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).cpu().numpy())
