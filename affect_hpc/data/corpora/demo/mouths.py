"""From the phones of a sentence to what the mouth does over time.

Phones that look alike on the lips share a viseme: the 14 of MPEG-4 face animation (ISO/IEC 14496-2) and silence, under
the names that lip-sync tools give them. Between visemes the mouth blends with the weights of Cohen and Massaro (1993,
"Modeling coarticulation in synthetic visual speech"): each one rules around its middle, and some are stronger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from affect_hpc.data.corpora.demo.expression import Expression
from affect_hpc.data.corpora.demo.speech import Phone

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mouth:
    """Movements of the mouth in speech, apart from those of an emotion.

    Args:
        opening: gap between the lips in units of 1/64 of the image.
        width: factor on the width of the mouth at rest.
        rounding: of the gap, 0 to 1; rounded lips also come forward.
        spread: how square the gap is, 0 to 1.
        upper_teeth, lower_teeth: visibility, 0 to 1.
        tuck: how far the lower lip lies under the upper teeth, 0 to 1.
        tongue, tongue_lift: visibility, and how far its tip is raised, 0 to 1.
        closed: how firmly the lips are shut, 0 to 1; at 1 nothing opens them.
    """

    opening: float = 0.0
    width: float = 1.0
    rounding: float = 0.0
    spread: float = 0.0
    upper_teeth: float = 0.0
    lower_teeth: float = 0.0
    tuck: float = 0.0
    tongue: float = 0.0
    tongue_lift: float = 0.0
    closed: float = 0.0


SILENCE, CLOSURE = "sil", "PP"

VISEMES: Mapping[str, Mouth] = {
    SILENCE: Mouth(),
    CLOSURE: Mouth(width=0.95),
    "FF": Mouth(opening=1.5, width=1.0, upper_teeth=1.0, tuck=1.0),
    "TH": Mouth(opening=2.6, width=1.02, upper_teeth=0.8, tongue=1.0, tongue_lift=1.0),
    "DD": Mouth(opening=2.4, width=1.05, spread=0.2, upper_teeth=0.8, tongue=0.7, tongue_lift=0.6),
    "kk": Mouth(opening=3.2, width=1.0, upper_teeth=0.5, tongue=0.5),
    "CH": Mouth(opening=2.8, width=0.72, rounding=0.5, spread=0.3, upper_teeth=1.0, lower_teeth=1.0),
    "SS": Mouth(opening=2.0, width=1.15, spread=0.7, upper_teeth=1.0, lower_teeth=1.0),
    "nn": Mouth(opening=2.6, width=1.02, upper_teeth=0.6, tongue=0.9, tongue_lift=0.7),
    "RR": Mouth(opening=2.4, width=0.78, rounding=0.6, upper_teeth=0.3),
    "aa": Mouth(opening=7.4, width=0.98, rounding=0.3, upper_teeth=0.6, tongue=0.7),
    "E": Mouth(opening=4.6, width=1.14, spread=0.2, upper_teeth=0.8, tongue=0.5),
    "ih": Mouth(opening=2.8, width=1.26, spread=0.4, upper_teeth=1.0, tongue=0.3),
    "oh": Mouth(opening=5.4, width=0.72, rounding=1.0, tongue=0.4),
    "ou": Mouth(opening=2.4, width=0.5, rounding=1.0),
}

_IPA: Mapping[str, str] = {
    **{CLOSURE: "pbm", "FF": "fv", "TH": "θð", "DD": "tdɾ", "kk": "kɡgŋhxʔ", "CH": "ʃʒ", "SS": "sz", "nn": "nl"},
    **{"RR": "ɹrɚɝ", "aa": "aɑæʌɐ", "E": "eɛəɜ", "ih": "iɪjᵻ", "oh": "oɔɒ", "ou": "uʊwʍ"},
}
VISEME_OF: Mapping[str, str] = {letter: viseme for viseme, letters in _IPA.items() for letter in letters}
"""IPA letter -> viseme."""
_WITHOUT_SHAPE = "ːˑˈˌ̩ʲ"  # length, stress and the like
_ONE_SHAPE = {"tʃ": "ʃ", "dʒ": "ʒ"}

_STRENGTH: Mapping[str, float] = {CLOSURE: 4.0, "FF": 4.0, "CH": 2.0, "ou": 2.0, "SS": 1.5, SILENCE: 0.5}
"""How far a viseme keeps its shape against its neighbours; 1 for the others."""
_REACH = 0.6
"""Distance from its middle, in its own lengths, at which the weight of a viseme has fallen to 1 / e."""
_SHUT = (0.45, 0.3)
"""Share of its length for which a closure is firm before and after its middle: the burst is near the end."""
_RAMP_S = 0.05
"""Time in which the lips open out of a firm closure."""
_TEETH_FROM = 2.0
"""Opening from which teeth are seen as far as the viseme shows them."""


@dataclass(frozen=True)
class Segment:
    """A stretch of time with one viseme."""

    viseme: str
    begin_s: float
    end_s: float

    @property
    def middle_s(self) -> float:
        """Where the viseme is clearest."""
        return (self.begin_s + self.end_s) / 2


def visemes_of(symbol: str) -> tuple[str, ...]:
    """The visemes of a phone in IPA: one, or several in turn for a diphthong.

    Raises:
        ValueError: a letter has no viseme.
    """
    letters = symbol
    for pair, single in _ONE_SHAPE.items():
        letters = letters.replace(pair, single)
    letters = "".join(letter for letter in letters if letter not in _WITHOUT_SHAPE)
    unknown = [letter for letter in letters if letter not in VISEME_OF]
    if unknown or not letters:
        raise ValueError(f"the phone {symbol!r} has no mouth shape; known are the letters {''.join(sorted(VISEME_OF))}")
    return tuple(VISEME_OF[letter] for letter in letters)


def segments(phones: Sequence[Phone], length_s: float) -> list[Segment]:
    """The visemes of a sentence, without a gap from 0 to ``length_s``: pauses are silence."""
    found: list[Segment] = []
    now = 0.0
    for phone in phones:
        if phone.begin_s > now:
            found.append(Segment(SILENCE, now, phone.begin_s))
        visemes = visemes_of(phone.symbol)
        edges = np.linspace(phone.begin_s, phone.end_s, len(visemes) + 1).tolist()
        found += [Segment(one, *edge) for one, edge in zip(visemes, pairwise(edges), strict=True)]
        now = phone.end_s
    if length_s > now:
        found.append(Segment(SILENCE, now, length_s))
    return found


def visemes_at(timeline: Sequence[Segment], times_s: Values) -> list[str]:
    """The viseme of each time (T,)."""
    begins = np.array([segment.begin_s for segment in timeline])
    places = np.searchsorted(begins, times_s, side="right") - 1
    return [timeline[place].viseme for place in np.maximum(places, 0)]


def articulate(timeline: Sequence[Segment], times_s: Values, frame_s: float) -> list[Mouth]:
    """The mouth at each time (T,).

    Args:
        timeline: of ``segments``.
        times_s: middles of the frames.
        frame_s: length of a frame; a closure is firm in the frame that holds its middle, however short it is.
    """
    targets = np.array([astuple(VISEMES[segment.viseme]) for segment in timeline])
    middle = np.array([segment.middle_s for segment in timeline])
    length = np.array([segment.end_s - segment.begin_s for segment in timeline])
    strength = np.array([_STRENGTH.get(segment.viseme, 1.0) for segment in timeline])
    exponent = np.log(strength) - ((times_s[:, None] - middle) / (_REACH * length)) ** 2
    weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    values = weight @ targets / weight.sum(axis=1, keepdims=True)
    closed = _closed(timeline, times_s, frame_s)
    names = [field.name for field in fields(Mouth)]
    mouths = [Mouth(**dict(zip(names, row, strict=True))) for row in values.tolist()]
    return [
        replace(mouth, opening=mouth.opening * (1 - shut), closed=shut)
        for mouth, shut in zip(mouths, closed.tolist(), strict=True)
    ]


def _closed(timeline: Sequence[Segment], times_s: Values, frame_s: float) -> Values:
    """How firmly p, b and m shut the lips at each time (T,), 0 to 1."""
    closed = np.zeros(len(times_s))
    for segment in timeline:
        if segment.viseme == CLOSURE:
            length = segment.end_s - segment.begin_s
            before, after = (max(share * length, frame_s / 2) for share in _SHUT)
            late = times_s - segment.middle_s
            beyond = np.maximum(np.maximum(-late - before, late - after), 0) / _RAMP_S
            closed = np.maximum(closed, 0.5 + 0.5 * np.cos(np.pi * np.minimum(beyond, 1)))
    return closed


def with_speech(expression: Expression, mouth: Mouth) -> Expression:
    """An emotion on a face that speaks: brows, eyes and corners of the mouth stay, the lips follow the speech."""
    free = 1 - mouth.closed
    opening = mouth.opening + 0.2 * expression.mouth_open * free
    # A slit between lips that are about to meet is dark: teeth would make it paler than the line of shut lips.
    lit = max(min(opening / _TEETH_FROM, 1.0) ** 2, mouth.tuck)
    return replace(
        expression,
        mouth_open=opening,
        mouth_width=mouth.width + 0.5 * (expression.mouth_width - 1),
        mouth_corners=expression.mouth_corners * (1 - 0.5 * mouth.rounding),
        mouth_one_side=expression.mouth_one_side * (1 - 0.5 * mouth.rounding),
        mouth_round=mouth.rounding,
        mouth_square=max(mouth.spread, 0.5 * expression.mouth_square),
        upper_lip=0.5 * expression.upper_lip * free,
        lip_press=max(0.5 * expression.lip_press, 0.25 * mouth.closed),
        lip_pucker=mouth.rounding,
        lip_tuck=mouth.tuck,
        upper_teeth=lit * max(mouth.upper_teeth, 0.5 * expression.upper_teeth),
        lower_teeth=lit * mouth.lower_teeth,
        tongue=mouth.tongue,
        tongue_lift=mouth.tongue_lift,
    )
