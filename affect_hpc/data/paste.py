"""Back from an edited crop into the photo that it was cut out of; the way there is that of data/faces.py.

Places are in px, (x, y), y down, counted from pixels' centres: the first pixel of a row lies at 0. Boxes, and how a
crop's ``matrix`` cuts and shrinks, count from pixels' edges, half a pixel before; ``placed`` knows which is which.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from affect_hpc.config.data import AlignConfig, AlignMode, CompatConfig
from affect_hpc.core.errors import UserError
from affect_hpc.data.align import WORK_SIDE, Box, Matrix, apply, chained, cut_matrix, edges_inside, edges_of
from affect_hpc.data.codec import UInt8Image

FEATHER = 0.15
ROUNDNESS = 4
"""Exponent of the mask's outline |x|^n + |y|^n = 1, a square with round corners: in a box without margin the eyebrows
stand where an ellipse (n = 2) has ended."""
LEAST_SIDE = 8
"""Of a crop, in px."""
TOLERANCE = 1e-3

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Placement:
    """Where a crop lies in its photo."""

    affine: Matrix
    """(2, 3): from a place in the photo to the one in the crop."""
    region: tuple[float, float, float, float]
    """Left, top, right, bottom (edges of pixels) of what was cut out of the photo before it was turned; the crop's
    corners beyond are mirror images and belong nowhere."""
    photo: tuple[int, int]
    """Its height and width."""
    size: int
    """Side of the crop."""


def placed(
    geometry: Mapping[str, Any],
    photo: tuple[int, ...],
    size: int,
    config: AlignConfig,
    compat: CompatConfig | None = None,
) -> Placement:
    """Where a crop lies, from what ``faces.Cropper`` notes of it (``Crop.geometry``, the info of a shard's sample).

    Exact in all modes of alignment, and for all that ``compat`` repeats of the original code.

    Args:
        geometry: box, matrix and aligned, in px of the photo as ``Cropper.prepared`` gives it.
        photo: (H, W, ...) of the photo as it was before ``prepared``: what is to be pasted into.
        size: side of the crop.
        config, compat: of the cropper.

    Raises:
        UserError: such a crop cannot have been cut out of such a photo.
    """
    height, width = photo[0], photo[1]
    searched = (config.resize[0], config.resize[1]) if config.resize else (height, width)
    box = Box(*geometry["box"])
    where = f"the crop's box (left {box.left}, top {box.top}, side {box.side})"
    if box.side < 1 or not (-box.side < box.left < searched[1] and -box.side < box.top < searched[0]):
        raise UserError(f"{where} lies outside the photo of {width} x {height} px: give the photo it was cut out of.")
    cut_at_border = compat is not None and compat.cut_at_border
    # Of the image, its size alone counts here.
    edges = edges_inside(box, np.broadcast_to(np.uint8(0), (*searched, 3))) if cut_at_border else edges_of(box)
    side = max(WORK_SIDE, size)
    to_side, shrink = cut_matrix(edges, side), size / side
    turn = chained(np.asarray(geometry["matrix"], np.float64) / shrink, _inverse(to_side))
    _check_turn(turn, config.mode, geometry["aligned"], size)
    prepare = _scaling(searched[1] / width, searched[0] / height)
    affine = _centred(prepare)
    for step in (_centred(to_side), turn, _centred(_scaling(shrink, shrink))):
        affine = chained(step, affine)
    (left, top), (right, bottom) = apply(_inverse(prepare), np.array(edges, np.float64).reshape(2, 2))
    return Placement(affine, (left, top, right, bottom), (height, width), size)


def mask(place: Placement, feather: float = FEATHER) -> Weights:
    """(H, W) weights in [0, 1] of the crop in its photo: 1 in the middle, 0 outside, and a smooth slope between.

    Args:
        feather: width of the slope as a share of half the crop, in (0, 1].
    """
    weights = np.zeros(place.photo, np.float32)
    rows, columns = _window(place)
    weights[rows, columns] = _weights(place, feather)
    return weights


def paste(
    photo: UInt8Image,
    place: Placement,
    edited: UInt8Image,
    reconstruction: UInt8Image | None = None,
    feather: float = FEATHER,
) -> UInt8Image:
    """The photo with the edited face in it; where ``mask`` is 0 it is the photo to the bit.

    Args:
        photo: (H, W, 3) RGB.
        place: where the crop lies in it.
        edited: (size, size, 3), the edited crop.
        reconstruction: (size, size, 3), the crop as the model gives it unedited. With it, only the difference of the
            two is added to the photo, which keeps its sharpness: what the first stage blurs stays out, and an edit that
            changes nothing gives the photo back. Without it the edited crop replaces the photo's pixels.
        feather: width of the mask's slope as a share of half the crop, in (0, 1].

    Returns:
        (H, W, 3), a new array.

    Raises:
        UserError: shapes that do not match, or a feather out of range.
    """
    _check_image("photo", photo, (*place.photo, 3))
    _check_image("edited", edited, (place.size, place.size, 3))
    if reconstruction is not None:
        _check_image("reconstruction", reconstruction, (place.size, place.size, 3))
    rows, columns = _window(place)
    weights = _weights(place, feather)[..., None]
    out = photo.copy()
    under = photo[rows, columns].astype(np.float32)
    if reconstruction is None:
        change = _back(edited.astype(np.float32), place) - under
    else:
        change = _back(edited.astype(np.float32) - reconstruction.astype(np.float32), place)
    out[rows, columns] = np.clip(np.rint(under + weights * change), 0, 255).astype(np.uint8)
    return out


def _back(crop: npt.NDArray[np.float32], place: Placement) -> npt.NDArray[np.float32]:
    """A crop (size, size, 3) in the window of the photo."""
    rows, columns = _window(place)
    # Px of the crop in one of the photo: where there are several, detail that the photo cannot hold goes first.
    density = float(np.sqrt(np.linalg.det(place.affine[:, :2])))
    if density > 1:
        crop = cv2.GaussianBlur(crop, (0, 0), 0.5 * np.sqrt(density**2 - 1), borderType=cv2.BORDER_REPLICATE)
    shift = np.array([[1.0, 0.0, columns.start], [0.0, 1.0, rows.start]])
    moved = cv2.warpAffine(
        crop,
        chained(place.affine, shift),
        (columns.stop - columns.start, rows.stop - rows.start),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(moved, np.float32)


def _window(place: Placement) -> tuple[slice, slice]:
    """Rows and columns of the photo that the region touches; all weights outside are 0."""
    left, top, right, bottom = place.region
    height, width = place.photo
    return (
        slice(max(int(np.floor(top)), 0), min(int(np.ceil(bottom)), height)),
        slice(max(int(np.floor(left)), 0), min(int(np.ceil(right)), width)),
    )


def _weights(place: Placement, feather: float) -> Weights:
    if not 0 < feather <= 1:
        raise UserError(f"feather={feather:g} is out of range: give a share of half the crop, above 0 and at most 1.")
    rows, columns = _window(place)
    y, x = np.ogrid[rows, columns]
    (a, b, c), (d, e, f) = place.affine
    half = place.size / 2
    # In units in which the crop, and the region, reach from -1 to 1.
    u, v = (a * x + b * y + c + 0.5) / half - 1, (d * x + e * y + f + 0.5) / half - 1
    left, top, right, bottom = place.region
    s, t = 2 * (x + 0.5 - left) / (right - left) - 1, 2 * (y + 0.5 - top) / (bottom - top) - 1
    outline = (np.abs(u) ** ROUNDNESS + np.abs(v) ** ROUNDNESS) ** (1 / ROUNDNESS)
    # For an upright face the region's own edge lies outside the outline and changes nothing.
    inside = 1 - np.maximum(outline, np.maximum(np.abs(s), np.abs(t)))
    ramp = np.clip(inside / feather, 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)


def _check_turn(turn: Matrix, mode: AlignMode, aligned: bool, size: int) -> None:
    (a, b), (c, d) = turn[:, :2]
    scale = float(np.hypot(a, c))
    fits = np.allclose((a, b), (d, -c), atol=TOLERANCE) and scale > TOLERANCE
    if mode is not AlignMode.similarity or not aligned:
        fits = fits and abs(scale - 1) < TOLERANCE
    if not fits:
        raise UserError(
            f"the crop's matrix does not belong to its box, a size of {size} px and data.align.mode={mode.name}: give"
            " the geometry, size and data.align that the crop was cut with."
        )


def _check_image(name: str, image: UInt8Image, shape: tuple[int, ...]) -> None:
    if image.shape != shape or image.dtype != np.uint8:
        raise UserError(
            f"{name} is of shape {tuple(image.shape)} and type {image.dtype}: give one of shape {shape} and type uint8,"
            " as the crop's geometry has it."
        )


def _scaling(x: float, y: float) -> Matrix:
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0]])


def _centred(matrix: Matrix) -> Matrix:
    """A map between places counted from pixels' edges as one between places counted from their centres."""
    return np.column_stack([matrix[:, :2], apply(matrix, np.array([[0.5, 0.5]]))[0] - 0.5])


def _inverse(matrix: Matrix) -> Matrix:
    turn = np.linalg.inv(matrix[:, :2])
    return np.column_stack([turn, -turn @ matrix[:, 2]])
