"""The parts of a drawn face that no expression moves: hair, neck, ears, skin and glasses."""

import numpy as np

from affect_hpc.data.corpora.demo.canvas import Canvas, Points, band, ellipse, shade
from affect_hpc.data.corpora.demo.identity import HairStyle, Identity

_COVERS_EARS: frozenset[HairStyle] = frozenset({"long", "bob"})
_SIDEBURNS: dict[HairStyle, float] = {
    "short": 8.0,
    "long": 13.0,
    "bob": 12.0,
    "parted": 7.0,
    "receding": 9.0,
    "curly": 9.0,
}


def face_outline(identity: Identity) -> Points:
    """The edge of the face as a polygon (72, 2)."""
    angle = np.linspace(0.0, 2 * np.pi, 72)
    cos, sin = np.cos(angle), np.sin(angle)
    x = np.sign(cos) * np.abs(cos) ** (2 / identity.squareness) * identity.half_width
    narrowing = (1 - identity.jaw) * np.clip(sin, 0, 1) ** 1.3
    return np.stack([x * (1 - narrowing), sin * identity.half_height], 1)


def draw_back_hair(canvas: Canvas, identity: Identity) -> None:
    """Hair that stands off the head and, in some styles, hangs behind the face."""
    width, height, volume = identity.half_width, identity.half_height, identity.hair_volume
    colour = shade(identity.hair, 0.82)
    if identity.hair_style == "long":
        x = np.linspace(-1.0, 1.0, 40)
        top = -(height + volume) * np.sqrt(np.clip(1 - x**2, 0, 1))
        edge = width + volume + 1.5
        canvas.polygon(band(edge * x, top, np.full_like(x, height + 12.0)), colour)
    elif identity.hair_style == "bob":
        canvas.polygon(ellipse(0.0, -1.5, width + volume + 2.5, height + volume - 1.0), colour)
    # Without a rim of hair behind it, a high hairline at the temple leaves a gap beside the face.
    x, crown = _crown(identity)
    canvas.polygon(band(x, crown, np.maximum(crown, -0.2 * height)), identity.hair)


def draw_bust(canvas: Canvas, identity: Identity) -> None:
    """Neck, shoulders and, where hair leaves them free, ears."""
    height = identity.half_height
    neck = np.array([(-8.5, height - 9), (8.5, height - 9), (9.5, height + 14), (-9.5, height + 14)])
    canvas.polygon(neck, shade(identity.skin, 0.76))
    canvas.polygon(ellipse(0.0, height + 14.0, 28.0, 11.0), identity.clothes)
    if identity.hair_style not in _COVERS_EARS:
        for side in (-1, 1):
            ear = ellipse(side * (identity.half_width + 0.2), -0.5, 2.6, 4.4)
            canvas.polygon(ear, shade(identity.skin, 0.86))


def draw_skin(canvas: Canvas, identity: Identity) -> None:
    """The bare face."""
    canvas.polygon(face_outline(identity), identity.skin)


def draw_front_hair(canvas: Canvas, identity: Identity) -> None:
    """Hair from the crown down to the hairline; it covers what brows reach under it."""
    x, crown = _crown(identity)
    canvas.polygon(band(x, crown, np.maximum(crown, _hairline(identity, x))), identity.hair)


def draw_glasses(canvas: Canvas, identity: Identity) -> None:
    """Round glasses, where the identity wears them."""
    if identity.glasses is None:
        return
    x, y = identity.eye_distance, identity.eye_height + 0.5
    half_width = min(6.6, x - 0.9)
    for side in (-1, 1):
        canvas.line(ellipse(side * x, y, half_width, 6.0, 48), 1.0, identity.glasses)
        temple = np.array([(side * (x + half_width), y - 0.5), (side * identity.half_width, y - 1.5)])
        canvas.line(temple, 1.0, identity.glasses)
    canvas.line(np.array([(half_width - x, y - 0.5), (x - half_width, y - 0.5)]), 1.0, identity.glasses)


def _crown(identity: Identity) -> tuple[Points, Points]:
    """Upper edge of the hair: positions x (61,) and heights (61,), from temple to temple."""
    angle = np.linspace(np.pi * 1.02, np.pi * 1.98, 61)
    exponent = 2 / identity.squareness
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** exponent
    y = -(np.abs(np.sin(angle)) ** exponent)
    radius = 1 + 0.09 * np.abs(np.sin(8 * angle)) if identity.hair_style == "curly" else np.ones_like(angle)
    reach = identity.half_width + 0.6 * identity.hair_volume
    return reach * radius * x, (identity.half_height + identity.hair_volume) * radius * y


def _hairline(identity: Identity, x: Points) -> Points:
    """Height of the lower edge of the front hair at the positions `x`."""
    across = x / identity.half_width
    towards_parting = 1.0 if identity.hair_parting >= 0 else -1.0
    middle = -identity.hairline * identity.half_height
    shapes: dict[HairStyle, Points] = {
        "short": middle + 2.0 * across**2,
        "long": middle - 2.5 + 6.0 * np.abs(across - identity.hair_parting) ** 1.5,
        "bob": middle + 0.8 - 0.8 * across**2,
        "parted": middle - 1.0 + 4.5 * np.clip(across * towards_parting, -0.6, 1.0),
        "receding": middle * 1.15 + 5.0 * across**2,
        "curly": middle - 0.5 + 0.7 * np.cos(2.2 * x) + 2.0 * across**2,
    }
    at_temple = np.clip((np.abs(across) - 0.84) / 0.16, 0, 1)
    line: Points = shapes[identity.hair_style] + at_temple * _SIDEBURNS[identity.hair_style]
    return line
