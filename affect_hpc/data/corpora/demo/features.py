"""The parts of a drawn face that an expression moves: nose, eyes, brows and mouth."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from affect_hpc.data.corpora.demo.canvas import Canvas, Points, band, ellipse, mix, shade
from affect_hpc.data.corpora.demo.expression import Expression
from affect_hpc.data.corpora.demo.identity import Colour, Identity

_WHITE: Colour = (248, 248, 244)
_TEETH: Colour = (250, 248, 238)
_PUPIL: Colour = (14, 12, 12)
_MOUTH: Colour = (62, 14, 20)
_TONGUE: Colour = (222, 92, 98)
_LIPS: Colour = (168, 42, 58)

_MOUTH_HALF_WIDTH = 7.4
OPEN_MOUTH = 0.4  # gaps below this are one line


def draw_nose(canvas: Canvas, identity: Identity, expression: Expression) -> None:
    """Nose with a shadow on the side away from the light; wrinkled, it shortens and gets folds."""
    tip, width = nose_tip(identity, expression), _nose_width(identity, expression)
    bridge = identity.eye_height + 1.5
    dark_side = 1.0 if identity.light_x < 0 else -1.0
    shadow = np.array([(0.8, bridge), (1.8, bridge), (0.8 * width, tip), (0.1 * width, tip)])
    canvas.polygon(shadow * [dark_side, 1.0], shade(identity.skin, 0.84))
    base = nose_base(identity, expression)
    canvas.stroke(base[:, 0], base[:, 1], 1.2, shade(identity.skin, 0.62))
    if expression.nose_wrinkle > 0:
        _draw_nose_wrinkles(canvas, identity, expression, tip, width)


def _draw_nose_wrinkles(canvas: Canvas, identity: Identity, expression: Expression, tip: float, width: float) -> None:
    colour = shade(identity.skin, 0.5)
    x = np.linspace(-1.0, 1.0, 9)
    for row in (0, 1):
        height = identity.eye_height + 0.4 + 2.6 * row - 0.9 * np.cos(1.5 * x)
        canvas.stroke((2.6 - 0.2 * row) * x, height, 1.3 * expression.nose_wrinkle, colour)
    along = np.linspace(0.0, 1.0, 9)
    fold = np.stack([width + 1.0 + 3.8 * along, tip - 1.2 + 6.4 * along**1.3], 1)
    for side in (-1, 1):
        canvas.line(fold * [side, 1.0], 1.4 * expression.nose_wrinkle, colour)


def draw_eyes(canvas: Canvas, identity: Identity, expression: Expression) -> None:
    """Eyeballs, seen through the lids, and the lids."""
    x, y = identity.eye_distance, identity.eye_height
    lids = {side: lid_curves(identity, expression, side) for side in (-1, 1)}
    behind = Canvas(identity, Image.new("RGB", canvas.image.size, tuple(int(c) for c in _WHITE)))
    for side in (-1, 1):
        iris_x, iris_y = side * x + expression.gaze_x, y - 0.2 + expression.gaze_y
        behind.polygon(ellipse(iris_x, iris_y, 2.5, 2.5), identity.iris)
        behind.polygon(ellipse(iris_x, iris_y, 1.25, 1.25), _PUPIL)
        behind.polygon(ellipse(iris_x - 0.8, iris_y - 0.9, 0.6, 0.6, 12), (255.0, 255.0, 255.0))
    openings = [band(eye_x, upper, lower) for eye_x, upper, lower in lids.values()]
    canvas.image.paste(behind.image, (0, 0), canvas.mask(openings))
    lash = shade(mix(identity.hair, identity.skin, 0.3), 0.35)
    for side, (eye_x, upper, lower) in lids.items():
        centre = side * x
        if expression.lid_flat > 0:
            _draw_heavy_lid(canvas, identity, eye_x, upper, expression.lid_flat)
        canvas.stroke(centre + (eye_x - centre) * 1.06, upper - 0.35, 1.3, lash)
        thickness = 0.6 + 0.6 * float(np.clip(expression.squint, 0, 1))
        canvas.stroke(eye_x, lower + 0.2, thickness, shade(identity.skin, 0.66))


def lid_curves(identity: Identity, expression: Expression, side: int) -> tuple[Points, Points, Points]:
    """Positions x (17,) across the eye on ``side`` and the heights of its upper and lower lid there."""
    across = np.linspace(-1.0, 1.0, 17)
    opening = max(0.25, expression.lid_open)
    bow = 1 - np.abs(across) ** 2.2
    flat_bow = 1 - np.abs(across) ** 6
    upper_bow = bow + expression.lid_flat * (0.75 * flat_bow - bow)
    droop = expression.lid_droop * np.clip(across * side + 0.3, 0, None) * 1.5
    squint = float(np.clip(expression.squint, 0.0, 0.9))
    lower = 2.2 * (0.55 + 0.45 * opening) * (1 - 0.8 * squint) * bow
    upper = np.maximum(3.0 * opening * upper_bow - droop, -lower * 0.3)
    upper = upper - expression.blink * (upper + 0.8 * lower)
    lower = lower - 0.2 * expression.blink * lower
    x = side * identity.eye_distance + identity.eye_half_width * across
    return x, identity.eye_height - upper, identity.eye_height + lower


def _draw_heavy_lid(canvas: Canvas, identity: Identity, x: Points, upper: Points, amount: float) -> None:
    """The visible skin of a lowered upper lid."""
    across = np.linspace(-1.0, 1.0, len(x))
    top = upper - 1.9 * amount * (1 - np.abs(across) ** 3)
    canvas.polygon(band(x, top, upper), shade(identity.skin, 0.78))


def draw_brows(canvas: Canvas, identity: Identity, expression: Expression) -> None:
    """Brows, thick at the inner end, and the folds between them when they are drawn together."""
    colour = mix(shade(identity.hair, 0.4), shade(identity.skin, 0.3), 0.6)
    for side in (-1, 1):
        x, height = brow_curve(identity, expression, side)
        thickness = identity.brow_thickness * (1.15 - 0.5 * np.linspace(0.0, 1.0, len(x)))
        canvas.stroke(x, height, thickness, colour)
    if expression.brow_gather > 0:
        _draw_frown_lines(canvas, identity, expression)


def brow_curve(identity: Identity, expression: Expression, side: int) -> tuple[Points, Points]:
    """Positions x (15,) along the brow on ``side``, from its inner to its outer end, and its heights there."""
    outwards = np.linspace(0.0, 1.0, 15)
    inner_x = max(1.2, identity.eye_distance - 5.2 - expression.brow_gather)
    outer_x = identity.eye_distance + 5.4
    lift = expression.brow_inner * (1 - outwards) + expression.brow_outer * outwards
    lift = lift + 1.1 * expression.brow_arch * np.sin(np.pi * outwards)
    one_side = expression.brow_one_side * (1.0 if side == expression.side else -0.35)
    height = identity.eye_height - 5.6 - lift - one_side * (0.7 + 0.3 * np.sin(np.pi * outwards))
    return side * (inner_x + (outer_x - inner_x) * outwards), height


def _draw_frown_lines(canvas: Canvas, identity: Identity, expression: Expression) -> None:
    bottom = identity.eye_height - 3.2 - 0.5 * max(0.0, expression.brow_inner)
    line = np.array([(1.1, bottom), (1.3, bottom - 3.4)])
    for side in (-1, 1):
        canvas.line(line * [side, 1.0], 0.5 * expression.brow_gather, shade(identity.skin, 0.6))


@dataclass(frozen=True)
class MouthCurves:
    """Curves (33,) of the gap between the lips and of the lips' outer edges, from left to right."""

    x: Points
    upper: Points
    lower: Points
    bow: Points  # 0 at the corners, 1 in the middle
    top: Points
    bottom: Points

    @property
    def outer_x(self) -> Points:
        """Positions of the outer edges."""
        return self.x * 1.06

    @property
    def inner_x(self) -> Points:
        """Positions of the gap."""
        return self.x * 0.97


def draw_mouth(canvas: Canvas, identity: Identity, expression: Expression) -> None:
    """Lips, what is seen between them, and the folds that a moved corner makes in the cheek."""
    mouth = mouth_curves(identity, expression)
    lips = mix(identity.skin, _LIPS, 0.6)
    canvas.polygon(band(mouth.outer_x, mouth.top, mouth.bottom), lips)
    if expression.mouth_open > OPEN_MOUTH:
        _draw_inside_of_mouth(canvas, mouth, expression)
    else:
        line = (mouth.upper + mouth.lower) / 2
        canvas.stroke(mouth.x * 1.02, line, 1.3 + 0.4 * expression.lip_press, shade(lips, 0.4))
    if expression.mouth_corners > 1:
        _draw_smile_lines(canvas, identity, expression, mouth)
    if expression.mouth_one_side > 1:
        _draw_dimple(canvas, identity, expression, mouth)


def mouth_curves(identity: Identity, expression: Expression) -> MouthCurves:
    """Where the lips are."""
    across = np.linspace(-1.0, 1.0, 33)
    middle = nose_tip(identity, expression) + 6.4 + 0.6 * expression.nose_wrinkle
    lift = expression.mouth_corners * (0.75 * across**2 - 0.3)
    lift = lift + expression.mouth_one_side * np.clip(across * expression.side - 0.1, 0, 1) ** 2
    exponent = 2.0 + 4.0 * expression.mouth_square
    bow = np.clip(1 - np.abs(across) ** exponent, 0, 1) ** (1 / (1 + expression.mouth_round))
    upper = middle - lift - (0.38 * expression.mouth_open + 0.75 * expression.upper_lip) * bow
    lower = middle - lift + 0.62 * expression.mouth_open * bow
    x = _MOUTH_HALF_WIDTH * expression.mouth_width * across
    thickness = identity.lip_thickness * (1 - 0.5 * expression.lip_press) * (0.4 + 0.6 * bow)
    thickness = thickness * (1 + 0.35 * expression.lip_pucker)
    bottom = lower + 1.35 * thickness * (1 - 0.55 * expression.lip_tuck)
    return MouthCurves(x, upper, lower, bow, upper - thickness, bottom)


def _draw_inside_of_mouth(canvas: Canvas, mouth: MouthCurves, expression: Expression) -> None:
    gap = mouth.lower - mouth.upper
    canvas.polygon(band(mouth.inner_x, mouth.upper, mouth.lower), _MOUTH)
    if expression.tongue > 0:
        inner = slice(8, 25)
        height = 0.42 * expression.tongue * (1 + expression.tongue_lift)
        top = mouth.lower[inner] - height * gap[inner] * mouth.bow[inner]
        canvas.polygon(band(mouth.x[inner], top, mouth.lower[inner]), _TONGUE)
    if expression.upper_teeth > 0:
        row = np.minimum((0.5 + 0.5 * expression.lip_tuck) * gap, 2.4 * expression.upper_teeth)
        canvas.polygon(band(mouth.x * 0.93, mouth.upper, mouth.upper + row), _TEETH)
    if expression.lower_teeth > 0:
        row = np.minimum(0.32 * gap, 1.6 * expression.lower_teeth)
        canvas.polygon(band(mouth.x * 0.9, mouth.lower - row, mouth.lower), _TEETH)


def _draw_smile_lines(canvas: Canvas, identity: Identity, expression: Expression, mouth: MouthCurves) -> None:
    along = np.linspace(0.0, 1.0, 9)
    start_x, start_y = identity.nose_half_width + 1.6, nose_tip(identity, expression) - 0.2
    end_x, end_y = float(mouth.x[-1]) + 1.4, float(mouth.upper[-1]) - 0.4
    fold = np.stack([start_x + (end_x - start_x) * along, start_y + (end_y - start_y) * along**1.6], 1)
    for side in (-1, 1):
        canvas.line(fold * [side, 1.0], 1.0, shade(identity.skin, 0.72))


def _draw_dimple(canvas: Canvas, identity: Identity, expression: Expression, mouth: MouthCurves) -> None:
    corner = -1 if expression.side > 0 else 0
    x, y = float(mouth.x[corner]) + 1.5 * expression.side, float(mouth.upper[corner])
    along = np.linspace(-1.0, 1.0, 9)
    dimple = np.stack([x + 0.9 * expression.side * (1 - along**2), y - 0.4 + 2.6 * along], 1)
    canvas.line(dimple, 1.6, shade(identity.skin, 0.52))


def nose_base(identity: Identity, expression: Expression) -> Points:
    """The line (13, 2) under the nose, from left to right."""
    x = np.linspace(-1.0, 1.0, 13)
    return np.stack([_nose_width(identity, expression) * x, nose_tip(identity, expression) + 0.9 * np.cos(1.5 * x)], 1)


def _nose_width(identity: Identity, expression: Expression) -> float:
    return identity.nose_half_width + 0.6 * expression.nose_wrinkle


def nose_tip(identity: Identity, expression: Expression) -> float:
    """Height of the tip of the nose."""
    return identity.eye_height + identity.nose_length - 0.9 * expression.nose_wrinkle
