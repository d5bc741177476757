"""A surface on which the parts of a face are polygons in units of the face."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from affect_hpc.data.corpora.demo.identity import Colour, Identity

Points = NDArray[np.float64]

UNITS = 64  # the image is this many units wide and high
OVERSAMPLING = 4
FACE_CENTRE = (32.0, 34.5)  # of an identity without shift, in units


class Canvas:
    """A picture of `OVERSAMPLING` times the final size, drawn on in the coordinates of one face.

    Points are arrays (n, 2) in units of 1/64 of the image from the centre of the face, y downwards; the
    canvas applies scale, roll and shift of the identity.
    """

    def __init__(self, identity: Identity, image: Image.Image) -> None:
        self.image = image
        self._draw = ImageDraw.Draw(image)
        pixels_per_unit = image.width / UNITS
        scale = identity.scale * pixels_per_unit
        cos, sin = scale * math.cos(identity.roll), scale * math.sin(identity.roll)
        self._matrix = np.array([[cos, sin], [-sin, cos]])
        centre = (FACE_CENTRE[0] + identity.shift_x, FACE_CENTRE[1] + identity.shift_y)
        self._centre = pixels_per_unit * np.array(centre)

    def polygon(self, points: Points, colour: Colour) -> None:
        """Fill the polygon through `points`."""
        red, green, blue = (int(channel) for channel in colour)
        self._draw.polygon(self._corners(points), fill=(red, green, blue))

    def stroke(self, x: Points, y: Points, thickness: float | Points, colour: Colour) -> None:
        """Draw the line through (x, y) with a vertical `thickness`, which may change along it."""
        self.polygon(band(x, y - np.asarray(thickness) / 2, y + np.asarray(thickness) / 2), colour)

    def line(self, points: Points, thickness: float, colour: Colour) -> None:
        """Draw the line through `points` in any direction with the same `thickness` and round ends."""
        red, green, blue = (int(channel) for channel in colour)
        pixels = self._corners(points)
        width = thickness * float(np.hypot(*self._matrix[0]))
        self._draw.line(pixels, fill=(red, green, blue), width=max(1, round(width)), joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            radius = width / 2
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(red, green, blue))

    def mask(self, polygons: list[Points]) -> Image.Image:
        """The inside of `polygons`: 255, outside 0, as large as the canvas."""
        mask = Image.new("L", self.image.size, 0)
        draw = ImageDraw.Draw(mask)
        for points in polygons:
            draw.polygon(self._corners(points), fill=255)
        return mask

    def to_pixels(self, points: Points) -> Points:
        """Where `points` (n, 2) lie in the picture, in its px, x and y."""
        pixels: Points = points @ self._matrix + self._centre
        return pixels

    def _corners(self, points: Points) -> list[tuple[float, float]]:
        return [(x, y) for x, y in self.to_pixels(points).tolist()]


def band(x: Points, top: Points, bottom: Points) -> Points:
    """The outline (2n, 2) of the area between the curves (x, top) and (x, bottom) of n points each."""
    upper, lower = np.stack([x, top], 1), np.stack([x, bottom], 1)
    return np.concatenate([upper, lower[::-1]])


def ellipse(x: float, y: float, half_width: float, half_height: float, points: int = 32) -> Points:
    """The outline (points, 2) of an ellipse around (x, y)."""
    angle = np.linspace(0.0, 2 * np.pi, points)
    return np.stack([x + half_width * np.cos(angle), y + half_height * np.sin(angle)], 1)


def shade(colour: Colour, factor: float) -> Colour:
    """`colour` made darker (`factor` below 1) or lighter."""
    red, green, blue = (min(255.0, factor * channel) for channel in colour)
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with a `share` (0 to 1) of `second`."""
    red, green, blue = (a + share * (b - a) for a, b in zip(first, second, strict=True))
    return red, green, blue
