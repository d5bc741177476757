"""Where the 68 landmarks of the iBUG scheme lie on a drawn face, from the curves it is drawn with."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from affect_hpc.data.corpora.demo import features, head
from affect_hpc.data.corpora.demo.canvas import OVERSAMPLING, Canvas, Points
from affect_hpc.data.corpora.demo.expression import Expression
from affect_hpc.data.corpora.demo.identity import Identity

# Places on the curves of features.py, from left to right in the image: 17 points an eye, 15 a brow, 33 a mouth.
_BROW = [0, 4, 7, 10, 14]
_LID = [5, 11]
_OUTER_LIP = [5, 11, 16, 21, 27]
_INNER_LIP = [8, 16, 24]


def landmarks(identity: Identity, expression: Expression, size: int) -> npt.NDArray[np.float32]:
    """(68, 2), x and y in px, where pixel (0, 0) has its middle at (0, 0), of ``draw_face`` with the same arguments.

    Mouth, lids and brows lie on the drawn curves (brows: their middle line), jaw and nose on the drawn outlines.
    """
    points = np.concatenate(
        [
            _jaw(identity),
            *(_brow(identity, expression, side) for side in (-1, 1)),
            _nose(identity, expression),
            *(_eye(identity, expression, side) for side in (-1, 1)),
            _mouth(identity, expression),
        ]
    )
    drawn = Canvas(identity, Image.new("1", (size * OVERSAMPLING,) * 2)).to_pixels(points)
    # Each pixel is the mean of OVERSAMPLING drawn ones.
    return ((drawn + 0.5) / OVERSAMPLING - 0.5).astype(np.float32)


def _jaw(identity: Identity) -> Points:
    """0..16: along the outline, from one temple over the chin to the other."""
    outline = head.face_outline(identity)
    angle = np.linspace(0.0, 2 * np.pi, len(outline))
    wanted = np.linspace(np.pi, 0.0, 17)
    return np.stack([np.interp(wanted, angle, outline[:, axis]) for axis in (0, 1)], 1)


def _brow(identity: Identity, expression: Expression, side: int) -> Points:
    """17..21 and 22..26: from left to right."""
    x, y = features.brow_curve(identity, expression, side)
    return np.stack([x, y], 1)[_BROW][::side]


def _nose(identity: Identity, expression: Expression) -> Points:
    """27..30 down the bridge to the tip, 31..35 along its base from left to right."""
    base = features.nose_base(identity, expression)
    bridge = np.linspace(identity.eye_height, features.nose_tip(identity, expression), 4)
    return np.concatenate([np.stack([np.zeros(4), bridge], 1), base[[0, 3, 6, 9, 12]]])


def _eye(identity: Identity, expression: Expression, side: int) -> Points:
    """36..41 and 42..47: left corner, upper lid, right corner, lower lid back."""
    x, upper, lower = features.lid_curves(identity, expression, side)
    above, below = np.stack([x, upper], 1), np.stack([x, lower], 1)
    return np.concatenate([above[:1], above[_LID], above[-1:], below[_LID[::-1]]])


def _mouth(identity: Identity, expression: Expression) -> Points:
    """48..59 around the lips, 60..67 around the gap, each from the left corner clockwise as one looks at it."""
    mouth = features.mouth_curves(identity, expression)
    upper, lower = mouth.upper, mouth.lower
    if expression.mouth_open <= features.OPEN_MOUTH:
        upper = lower = (upper + lower) / 2  # drawn as one line
    outer = _around(mouth.outer_x, mouth.top, mouth.bottom, _OUTER_LIP)
    return np.concatenate([outer, _around(mouth.inner_x, upper, lower, _INNER_LIP)])


def _around(x: Points, top: Points, bottom: Points, between: list[int]) -> Points:
    above, below, middle = np.stack([x, top], 1), np.stack([x, bottom], 1), np.stack([x, (top + bottom) / 2], 1)
    return np.concatenate([middle[:1], above[between], middle[-1:], below[between[::-1]]])
