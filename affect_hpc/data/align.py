"""From landmarks to an upright square crop (thesis section 4.3.1; D-01 to D-04). Pixels are (x, y), y down."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from affect_hpc.config.data import AlignMode
from affect_hpc.data.codec import UInt8Image

Points = npt.NDArray[np.float64]
"""(68, 2) landmarks of the iBUG scheme, x and y in pixels."""
Matrix = npt.NDArray[np.float64]
"""(2, 3): maps a point of the input to where it stands in the output."""

WORK_SIDE = 224
"""Side of the crop that is turned upright (thesis)."""
SPLINE_ORDER = 3
"""Cubic, as the original code."""
RIGHT_EYE, LEFT_EYE = slice(36, 42), slice(42, 48)
MOUTH_CORNERS = (48, 54)
CANONICAL = np.array([[0.284, 0.183], [0.716, 0.183], [0.317, 0.655], [0.683, 0.655]])
"""Where the eye centres and mouth corners lie in the tight landmark box of an upright face, as shares of the side: the
mean of 23 faces, made symmetric. Our choice, since neither thesis nor code gives canonical points."""


@dataclass(frozen=True)
class Box:
    """A square region of an image; it may reach past the border."""

    left: int
    top: int
    side: int

    def distance_to(self, region: tuple[float, float, float, float]) -> float:
        """Distance in px from the box's centre to that of another box (left, top, right, bottom)."""
        left, top, right, bottom = region
        half = self.side / 2
        return float(np.hypot((left + right) / 2 - self.left - half, (top + bottom) / 2 - self.top - half))

    def share_inside(self, points: Points) -> float:
        """Share of the points that lie in the box."""
        inside = (points >= (self.left, self.top)) & (points < (self.left + self.side, self.top + self.side))
        return float(inside.all(axis=1).mean())


def landmark_box(points: Points, margin: float, margin_px: int = 0) -> Box:
    """The square around the landmarks: their box, made square and widened on each side.

    Args:
        margin: by which share of the longer side.
        margin_px: by how many px besides.
    """
    low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
    side = max(round(float((high - low).max()) * (1 + 2 * margin)) + 2 * margin_px, 1)
    left, top = np.floor((low + high - side) / 2)
    return Box(int(left), int(top), side)


Edges = tuple[int, int, int, int]
"""A rectangle of an image: left, top, right, bottom, the last two outside."""


def edges_of(box: Box) -> Edges:
    """The whole box, wherever it lies."""
    return box.left, box.top, box.left + box.side, box.top + box.side


def edges_inside(box: Box, image: UInt8Image) -> Edges:
    """What of the box lies in the image (at least a pixel)."""
    height, width = image.shape[:2]
    left, top = min(max(box.left, 0), width - 1), min(max(box.top, 0), height - 1)
    return left, top, max(min(box.left + box.side, width), left + 1), max(min(box.top + box.side, height), top + 1)


def cut_matrix(edges: Edges, side: int) -> Matrix:
    """Maps a point of the image to where it stands in the rectangle resized to ``side``."""
    left, top, right, bottom = edges
    x, y = side / (right - left), side / (bottom - top)
    return np.array([[x, 0.0, -left * x], [0.0, y, -top * y]])


def chained(second: Matrix, first: Matrix) -> Matrix:
    """The map that does ``first``, then ``second``."""
    return np.column_stack([second[:, :2] @ first[:, :2], apply(second, first[:, 2][None])[0]])


def cut(image: UInt8Image, edges: Edges, side: int, truncate: bool = False) -> UInt8Image:
    """A rectangle of an (H, W, 3) image, resized to (side, side, 3).

    What lies past the image's border is filled by reflection.

    Args:
        truncate: see ``resize``.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = edges
    rows, columns = _reflected(np.arange(top, bottom), height), _reflected(np.arange(left, right), width)
    return resize(image[np.ix_(rows, columns)], side, side, truncate)


def _reflected(index: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    # d c b a | a b c d | d c b a, as scipy's mode "reflect"
    index = np.mod(index, 2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def resize(image: UInt8Image, width: int, height: int, truncate: bool = False) -> UInt8Image:
    """An image resized to (height, width, 3), bilinear with the filter widened where it shrinks.

    Args:
        truncate: grey levels are cut to whole numbers instead of being rounded, as the original code did.
    """
    if image.shape[:2] == (height, width):
        return image
    if not truncate:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(image, -1, 0)]
    resized = [np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(resized, axis=-1).clip(0, 255).astype(np.uint8)


def roll_of(points: Points) -> float:
    """Roll angle in radians: of the line between the eye centres, positive where the image's right eye is lower."""
    dx, dy = points[LEFT_EYE].mean(axis=0) - points[RIGHT_EYE].mean(axis=0)
    return float(np.arctan2(dy, dx))


def rotation(angle: float, center: tuple[float, float]) -> Matrix:
    """Rotation that makes a line of the given angle (radians) horizontal and leaves ``center`` (x, y) in place."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    shift = np.asarray(center) - turn @ np.asarray(center)
    return np.column_stack([turn, shift])


def similarity(points: Points, targets: Points) -> Matrix:
    """Rotation, scale and shift that bring points (N, 2) nearest to targets (N, 2) in least squares."""
    # With complex numbers z -> a z + b, a and b have a closed form.
    source, target = points @ np.array([1, 1j]), targets @ np.array([1, 1j])
    centered = source - source.mean()
    a = np.vdot(centered, target - target.mean()) / np.vdot(centered, centered)
    b = target.mean() - a * source.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def alignment(points: Points, mode: AlignMode, side: int) -> Matrix:
    """The transform that turns a face upright.

    Args:
        points: landmarks in a crop of ``side`` px.
        mode: none leaves all in place. roll_only turns about the eye midpoint. repo_compat turns about the point
            whose x and y are those of the eye midpoint exchanged, with eye centres in whole pixels (D-02). similarity
            also moves and scales, to canonical eye and mouth points.
    """
    if mode is AlignMode.none:
        return np.eye(2, 3)
    right, left = points[RIGHT_EYE].mean(axis=0), points[LEFT_EYE].mean(axis=0)
    if mode is AlignMode.similarity:
        anchors = np.vstack([right, left, points[list(MOUTH_CORNERS)]])
        return similarity(anchors, CANONICAL * side)
    if mode is AlignMode.roll_only:
        x, y = (right + left) / 2
        return rotation(roll_of(points), (float(x), float(y)))
    right, left = np.trunc(right), np.trunc(left)
    dx, dy = left - right
    x, y = (right + left) // 2
    return rotation(float(np.arctan2(dy, dx)), (float(y), float(x)))


def warp(image: UInt8Image, matrix: Matrix) -> UInt8Image:
    """An (H, W, 3) image under ``matrix``, of the same size; empty regions are filled by reflection."""
    inverse = np.linalg.inv(matrix[:, :2])
    # SciPy wants output (row, column) -> input (row, column).
    exchanged = inverse[::-1, ::-1]
    offset = -(inverse @ matrix[:, 2])[::-1]
    planes = np.moveaxis(image, -1, 0).astype(np.float32)
    moved = [ndimage.affine_transform(plane, exchanged, offset, order=SPLINE_ORDER, mode="reflect") for plane in planes]
    out: UInt8Image = np.clip(np.rint(np.stack(moved, axis=-1)), 0, 255).astype(np.uint8)
    return out


def apply(matrix: Matrix, points: Points) -> Points:
    """Where ``matrix`` brings points (N, 2)."""
    return points @ matrix[:, :2].T + matrix[:, 2]
