"""What a drawn face does: movements of brows, lids, nose and mouth for an emotion."""

from dataclasses import dataclass, replace

import numpy as np

from affect_hpc.core.emotions import EMOTIONS

_STREAM = 22  # identities use another one, so that neither tells anything about the other

# Weaker expressions than this are hard to name at 64 px.
MIN_INTENSITY = 0.7


@dataclass(frozen=True)
class Expression:
    """Movements of the face, 0 at rest unless said otherwise.

    Lengths are in units of 1/64 of the image and count upwards.

    Args:
        brow_inner, brow_outer: lift of the two ends of both brows.
        brow_arch: height of the bow of a brow, 1 at rest.
        brow_gather: how far the inner ends come together; folds appear between them.
        brow_one_side: additional lift of the brow on `side`; the other one sinks a little.
        lid_open: opening of the upper lids relative to rest, 1 at rest.
        lid_droop: how far the outer corners of the upper lids hang, 0 to 1.
        lid_flat: how much the lids cut straight across the eye, 0 to 1.
        squint: raise of the lower lids, 0 to 1.
        blink: how far both lids have closed, 0 to 1.
        gaze_x, gaze_y: shift of the irises, to the right and downwards.
        nose_wrinkle: wrinkles on the bridge and folds beside the nose, 0 to 1.
        mouth_corners: lift of both corners of the mouth.
        mouth_one_side: additional lift of the corner on `side`; beyond 1 with a dimple.
        mouth_width: factor on the width of the mouth, 1 at rest.
        mouth_open: gap between the lips.
        mouth_round, mouth_square: shape of the gap, each 0 to 1.
        upper_lip: lift of the middle of the upper lip.
        lip_press: how much the lips disappear, 0 to 1.
        lip_pucker: how far the lips are pushed out, 0 to 1.
        lip_tuck: how far the lower lip lies under the upper teeth, 0 to 1.
        upper_teeth, lower_teeth: visibility of the rows of teeth, 0 to 1.
        tongue: visibility of the tongue, 0 to 1.
        tongue_lift: how far its tip is raised to the upper teeth, 0 to 1.
        side: 1 or -1, the side of the image that one-sided movements are on, right or left.
    """

    brow_inner: float = 0.0
    brow_outer: float = 0.0
    brow_arch: float = 1.0
    brow_gather: float = 0.0
    brow_one_side: float = 0.0
    lid_open: float = 1.0
    lid_droop: float = 0.0
    lid_flat: float = 0.0
    squint: float = 0.0
    blink: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    nose_wrinkle: float = 0.0
    mouth_corners: float = 0.0
    mouth_one_side: float = 0.0
    mouth_width: float = 1.0
    mouth_open: float = 0.0
    mouth_round: float = 0.0
    mouth_square: float = 0.0
    upper_lip: float = 0.0
    lip_press: float = 0.0
    lip_pucker: float = 0.0
    lip_tuck: float = 0.0
    upper_teeth: float = 0.0
    lower_teeth: float = 0.0
    tongue: float = 0.0
    tongue_lift: float = 0.0
    side: int = 1


# Change from rest at intensity 1.
_MOVEMENTS: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {
        "brow_inner": 0.6,
        "brow_outer": 0.8,
        "squint": 0.55,
        "mouth_corners": 4.6,
        "mouth_width": 0.36,
        "mouth_open": 4.4,
        "upper_teeth": 1.0,
    },
    "sad": {
        "brow_inner": 3.4,
        "brow_outer": -2.8,
        "brow_arch": -0.8,
        "lid_open": -0.2,
        "lid_droop": 0.75,
        "gaze_y": 1.0,
        "mouth_corners": -4.4,
        "mouth_width": -0.06,
    },
    "surprised": {
        "brow_inner": 3.4,
        "brow_outer": 3.2,
        "brow_arch": 1.2,
        "lid_open": 0.55,
        "mouth_open": 8.6,
        "mouth_width": -0.4,
        "mouth_round": 1.0,
        "tongue": 0.6,
    },
    "scared": {
        "brow_inner": 4.0,
        "brow_outer": 0.4,
        "brow_arch": -0.9,
        "brow_gather": 2.0,
        "lid_open": 0.6,
        "mouth_corners": -2.4,
        "mouth_width": 0.36,
        "mouth_open": 5.0,
        "mouth_square": 1.0,
        "upper_teeth": 1.0,
        "lower_teeth": 1.0,
    },
    "disgusted": {
        "brow_inner": -2.4,
        "brow_outer": -0.8,
        "brow_arch": -0.5,
        "lid_open": -0.42,
        "squint": 0.75,
        "nose_wrinkle": 1.0,
        "mouth_corners": -2.6,
        "mouth_width": 0.02,
        "mouth_open": 3.6,
        "upper_lip": 2.2,
        "upper_teeth": 0.8,
        "tongue": 1.0,
    },
    "angry": {
        "brow_inner": -4.0,
        "brow_outer": 2.6,
        "brow_arch": -0.5,
        "brow_gather": 2.2,
        "lid_open": 0.1,
        "mouth_corners": -1.8,
        "mouth_width": 0.1,
        "lip_press": 1.0,
    },
    "contempt": {
        "brow_inner": -0.4,
        "brow_one_side": 3.6,
        "lid_open": -0.36,
        "lid_flat": 1.0,
        "mouth_corners": -1.4,
        "mouth_one_side": 6.5,
        "lip_press": 0.4,
    },
}

# Standard deviation of what differs from one sample to the next, whatever the intensity.
_JITTER: dict[str, float] = {
    "brow_inner": 0.3,
    "brow_outer": 0.3,
    "brow_arch": 0.12,
    "lid_open": 0.05,
    "squint": 0.04,
    "gaze_x": 0.4,
    "gaze_y": 0.2,
    "mouth_corners": 0.25,
    "mouth_width": 0.04,
}

_CONTEMPT_GAZE = 1.3  # to the side of the smirk


def sample_expression(emotion: str, identity: int, seed: int = 0, intensity: float | None = None) -> Expression:
    """How person number `identity` shows `emotion`; always the same for the same arguments.

    `intensity` is between 0 (rest) and 1 (full); without one it is drawn from `MIN_INTENSITY` to 1. It scales
    the movements of the emotion and leaves the small individual deviations as they are.
    """
    if emotion not in EMOTIONS:
        raise ValueError(f"unknown emotion {emotion!r}; valid are {', '.join(EMOTIONS)}")
    if intensity is not None and not 0.0 <= intensity <= 1.0:
        raise ValueError(f"intensity {intensity} is not between 0 and 1")
    rng = np.random.default_rng([_STREAM, seed, identity, EMOTIONS.index(emotion)])
    drawn_intensity = rng.uniform(MIN_INTENSITY, 1.0)
    side = 1 if rng.random() < 0.5 else -1
    strength = drawn_intensity if intensity is None else intensity
    changes = {name: strength * size for name, size in _MOVEMENTS[emotion].items()}
    if emotion == "contempt":
        changes["gaze_x"] = strength * side * _CONTEMPT_GAZE
    for name, deviation in _JITTER.items():
        changes[name] = changes.get(name, 0.0) + rng.normal(0.0, deviation)
    rest = Expression()
    return replace(rest, side=side, **{name: getattr(rest, name) + size for name, size in changes.items()})
