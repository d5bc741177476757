"""Who a drawn face is: shape, skin, hair, clothes, background and light."""

import colorsys
import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Colour = tuple[float, float, float]
HairStyle = Literal["short", "long", "bob", "parted", "receding", "curly"]

HAIR_STYLES: tuple[HairStyle, ...] = get_args(HairStyle)

_STREAM = 11  # expressions use another one, so that neither tells anything about the other

_SKINS: tuple[Colour, ...] = (
    (255, 226, 200),
    (243, 200, 160),
    (226, 176, 130),
    (202, 142, 98),
    (162, 108, 72),
    (124, 80, 56),
)
_HAIRS: tuple[Colour, ...] = (
    (30, 26, 28),
    (66, 42, 30),
    (116, 70, 36),
    (186, 132, 58),
    (236, 204, 120),
    (184, 72, 28),
    (120, 30, 36),
    (168, 170, 178),
)
_IRISES: tuple[Colour, ...] = ((74, 46, 24), (40, 88, 150), (52, 110, 62), (92, 108, 120), (118, 78, 30))
_FRAMES: tuple[Colour, ...] = ((28, 26, 32), (130, 36, 40), (40, 50, 120))

# Colours closer than this (Euclidean, 8-bit RGB) melt into each other at 64 px.
_MIN_COLOUR_DISTANCE = 75.0


@dataclass(frozen=True)
class Identity:
    """One person in front of one background; nothing in it depends on the expression.

    Lengths are in units of 1/64 of the image, measured from the centre of the face with y downwards;
    colours are 8-bit RGB.

    Args:
        half_width, half_height: half axes of the face.
        jaw: width of the chin relative to the face, below 1 is narrower.
        squareness: exponent of the face outline, 2 is an ellipse.
        hairline: height of the hairline as a fraction of `half_height`.
        hair_volume: how far the hair stands off the head.
        hair_parting: where the hair parts, -1 (left) to 1 (right).
        eye_distance: from the middle of the face to the centre of an eye.
        eye_height, eye_half_width: vertical position and half width of the eyes.
        nose_length, nose_half_width, lip_thickness, brow_thickness: sizes of the features.
        background_top, background_bottom: ends of the vertical background gradient.
        light_x, light_y: direction the light comes from, each at most 1 in size.
        light_strength: relative change of brightness from the centre of the face to its edge.
        roll: tilt of the head in radians.
        shift_x, shift_y, scale: placement of the head in the image.
    """

    half_width: float
    half_height: float
    jaw: float
    squareness: float
    skin: Colour
    hair: Colour
    hair_style: HairStyle
    hairline: float
    hair_volume: float
    hair_parting: float
    iris: Colour
    eye_distance: float
    eye_height: float
    eye_half_width: float
    nose_length: float
    nose_half_width: float
    lip_thickness: float
    brow_thickness: float
    glasses: Colour | None
    clothes: Colour
    background_top: Colour
    background_bottom: Colour
    light_x: float
    light_y: float
    light_strength: float
    roll: float
    shift_x: float
    shift_y: float
    scale: float


def sample_identity(identity: int, seed: int = 0) -> Identity:
    """The person with number `identity` (>= 0) of the population `seed` (>= 0); always the same one."""
    rng = np.random.default_rng([_STREAM, seed, identity])
    skin = _sample_skin(rng)
    hair = _sample_hair(rng, skin)
    top, bottom = _sample_background(rng, avoid=(skin, hair))
    has_glasses, frame = rng.random() < 0.2, _FRAMES[rng.integers(len(_FRAMES))]
    return Identity(
        half_width=rng.uniform(17.5, 20.5),
        half_height=rng.uniform(23.5, 26.0),
        jaw=rng.uniform(0.74, 1.0),
        squareness=rng.uniform(2.0, 2.5),
        skin=skin,
        hair=hair,
        hair_style=HAIR_STYLES[rng.integers(len(HAIR_STYLES))],
        hairline=rng.uniform(0.64, 0.74),
        hair_volume=rng.uniform(2.0, 4.0),
        hair_parting=rng.uniform(-0.6, 0.6),
        iris=_IRISES[rng.integers(len(_IRISES))],
        eye_distance=rng.uniform(8.0, 9.4),
        eye_height=rng.uniform(-3.4, -1.8),
        eye_half_width=rng.uniform(4.7, 5.6),
        nose_length=rng.uniform(7.4, 9.0),
        nose_half_width=rng.uniform(2.3, 3.6),
        lip_thickness=rng.uniform(1.1, 1.8),
        brow_thickness=rng.uniform(1.9, 2.6),
        glasses=frame if has_glasses else None,
        clothes=_colour_from_hsv(rng.uniform(), rng.uniform(0.2, 0.8), rng.uniform(0.25, 0.95)),
        background_top=top,
        background_bottom=bottom,
        light_x=rng.uniform(-1.0, 1.0),
        light_y=rng.uniform(0.0, 0.6),
        light_strength=rng.uniform(0.08, 0.2),
        roll=math.radians(float(np.clip(rng.normal(0.0, 3.0), -6.0, 6.0))),
        shift_x=rng.uniform(-2.0, 2.0),
        shift_y=rng.uniform(-1.0, 1.5),
        scale=rng.uniform(1.0, 1.08),
    )


def _sample_skin(rng: np.random.Generator) -> Colour:
    position = rng.uniform(0, len(_SKINS) - 1)
    lower = min(int(position), len(_SKINS) - 2)
    fraction = position - lower
    pairs = zip(_SKINS[lower], _SKINS[lower + 1], strict=True)
    return _triple([a + fraction * (b - a) + rng.normal(0, 4) for a, b in pairs])


def _sample_hair(rng: np.random.Generator, skin: Colour) -> Colour:
    visible = [hair for hair in _HAIRS if math.dist(hair, skin) > _MIN_COLOUR_DISTANCE]
    base = visible[rng.integers(len(visible))]
    return _triple([channel + rng.normal(0, 8) for channel in base])


def _sample_background(rng: np.random.Generator, avoid: tuple[Colour, ...]) -> tuple[Colour, Colour]:
    """Two neighbouring hues; the candidate farthest from `avoid` wins if none is far enough."""
    best: tuple[float, tuple[Colour, Colour]] | None = None
    for _ in range(8):
        hue, saturation, value = rng.uniform(), rng.uniform(0.25, 0.7), rng.uniform(0.45, 0.95)
        top = _colour_from_hsv(hue, saturation, value)
        bottom = _colour_from_hsv(hue + rng.uniform(-0.12, 0.12), saturation, value * rng.uniform(0.6, 1.0))
        distance = min(math.dist(a, b) for a in (top, bottom) for b in avoid)
        if best is None or distance > best[0]:
            best = (distance, (top, bottom))
        if distance > _MIN_COLOUR_DISTANCE:
            break
    assert best is not None
    return best[1]


def _colour_from_hsv(hue: float, saturation: float, value: float) -> Colour:
    return _triple([255 * channel for channel in colorsys.hsv_to_rgb(hue % 1.0, saturation, value)])


def _triple(channels: list[float]) -> Colour:
    red, green, blue = (min(255.0, max(0.0, float(channel))) for channel in channels)
    return red, green, blue
