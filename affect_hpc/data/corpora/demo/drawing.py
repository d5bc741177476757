"""From an identity and an expression to pixels."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from affect_hpc.data.corpora.demo import features, head
from affect_hpc.data.corpora.demo.canvas import FACE_CENTRE, OVERSAMPLING, UNITS, Canvas
from affect_hpc.data.corpora.demo.expression import Expression, sample_expression
from affect_hpc.data.corpora.demo.identity import Identity, sample_identity

MIN_SIZE = 64  # pixels; smaller images lose the brows and the mouth


def render(identity: int, emotion: str, size: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Person number `identity` of the population `seed` with `emotion`: RGB (size, size, 3), 0 to 255.

    The same arguments give the same picture everywhere, and another emotion changes the expression only.
    """
    return draw_face(sample_identity(identity, seed), sample_expression(emotion, identity, seed), size)


def draw_face(identity: Identity, expression: Expression, size: int) -> NDArray[np.uint8]:
    """The picture of `identity` with `expression`: RGB (size, size, 3), 0 to 255; `size` >= 64 in pixels."""
    _check_size(size)
    canvas = Canvas(identity, _background(identity, size * OVERSAMPLING))
    head.draw_back_hair(canvas, identity)
    head.draw_bust(canvas, identity)
    head.draw_skin(canvas, identity)
    _draw_expression(canvas, identity, expression)
    head.draw_front_hair(canvas, identity)
    head.draw_glasses(canvas, identity)
    pixels = np.asarray(canvas.image.reduce(OVERSAMPLING), dtype=np.float32)
    lit = pixels * _light(identity, size)[..., None]
    picture: NDArray[np.uint8] = np.clip(lit + 0.5, 0, 255).astype(np.uint8)
    return picture


def face_mask(identity: Identity, size: int) -> NDArray[np.float32]:
    """How much of each pixel the face covers: (size, size), 0 to 1; where it is 0 no expression shows."""
    _check_size(size)
    canvas = Canvas(identity, Image.new("L", (size * OVERSAMPLING,) * 2))
    mask = canvas.mask([head.face_outline(identity)]).reduce(OVERSAMPLING)
    return np.asarray(mask, dtype=np.float32) / np.float32(255)


def _check_size(size: int) -> None:
    if size < MIN_SIZE:
        raise ValueError(f"size {size} is too small for a face; it must be at least {MIN_SIZE} pixels")


def _background(identity: Identity, size: int) -> Image.Image:
    down = np.linspace(0.0, 1.0, size)[:, None, None]
    gradient = np.array(identity.background_top) * (1 - down) + np.array(identity.background_bottom) * down
    return Image.fromarray(np.broadcast_to(gradient, (size, size, 3)).astype(np.uint8))


def _draw_expression(canvas: Canvas, identity: Identity, expression: Expression) -> None:
    # On a copy, of which only the face is taken: an expression never leaves the face.
    moving = Canvas(identity, canvas.image.copy())
    features.draw_nose(moving, identity, expression)
    features.draw_eyes(moving, identity, expression)
    features.draw_brows(moving, identity, expression)
    features.draw_mouth(moving, identity, expression)
    canvas.image.paste(moving.image, (0, 0), canvas.mask([head.face_outline(identity)]))


def _light(identity: Identity, size: int) -> NDArray[np.float32]:
    """Factor (size, size) on the brightness: a lamp at one side, and a face that darkens towards its edge."""
    position = ((np.arange(size) + 0.5) * UNITS / size).astype(np.float32)
    x = ((position - FACE_CENTRE[0] - identity.shift_x) / identity.half_width)[None, :]
    y = ((position - FACE_CENTRE[1] - identity.shift_y) / identity.half_height)[:, None]
    lamp = identity.light_strength * (identity.light_x * x - identity.light_y * y)
    edge = 0.1 * np.clip(x**2 + y**2 - 0.45, 0, 1)
    on_face = np.clip(face_mask(identity, size) + 0.35, 0, 1)  # the background takes part of the light
    factor: NDArray[np.float32] = (1 + (lamp - edge) * on_face).astype(np.float32)
    return factor
