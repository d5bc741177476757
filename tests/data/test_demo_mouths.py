"""From phones to lips: shapes, closures and what neighbours do to each other."""

from dataclasses import astuple

import numpy as np
import pytest

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.data.corpora.demo import sample_expression
from affect_hpc.data.corpora.demo.mouths import (
    CLOSURE,
    SILENCE,
    VISEMES,
    Segment,
    articulate,
    segments,
    visemes_at,
    visemes_of,
    with_speech,
)
from affect_hpc.data.corpora.demo.speech import Phone

FRAME_S = 1 / 30


def phones_of(symbols: str, length_s: float = 0.12, begin_s: float = 0.2) -> list[Phone]:
    """Phones of one letter each, one after the other."""
    return [
        Phone(symbol, begin_s + length_s * place, begin_s + length_s * (place + 1))
        for place, symbol in enumerate(symbols)
    ]


def gaps(timeline: list[Segment], times_s: np.ndarray) -> np.ndarray:
    return np.array([mouth.opening for mouth in articulate(timeline, times_s, FRAME_S)])


def test_a_diphthong_is_two_shapes_and_an_affricate_one() -> None:
    shapes = {"b": [CLOSURE], "aɪ": ["aa", "ih"], "oʊ": ["oh", "ou"], "tʃ": ["CH"], "iː": ["ih"], "ɑːɹ": ["aa", "RR"]}
    assert {symbol: list(visemes_of(symbol)) for symbol in shapes} == shapes


@pytest.mark.parametrize("symbol", ["ʘ", "", "ː"])
def test_a_phone_without_a_shape_is_named(symbol: str) -> None:
    with pytest.raises(ValueError, match=f"phone '{symbol}' has no mouth shape"):
        visemes_of(symbol)


def test_segments_fill_the_time_without_a_gap() -> None:
    timeline = segments([Phone("b", 0.2, 0.3), Phone("oʊ", 0.3, 0.5), Phone("s", 0.7, 0.8)], 1.0)
    assert [segment.viseme for segment in timeline] == [SILENCE, CLOSURE, "oh", "ou", SILENCE, "SS", SILENCE]
    edges = [0.0, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 1.0]
    assert [segment.begin_s for segment in timeline] == pytest.approx(edges[:-1])
    assert [segment.end_s for segment in timeline] == pytest.approx(edges[1:])
    at = visemes_at(timeline, np.array([0.1, 0.25, 0.35, 0.45, 0.6, 0.75, 0.9]))
    assert at == [segment.viseme for segment in timeline]


@pytest.mark.parametrize("fps", [25, 30])
@pytest.mark.parametrize("length_s", [0.01, 0.03, 0.08, 0.3])
def test_lips_are_shut_in_the_frame_of_a_closures_middle(fps: int, length_s: float) -> None:
    for begin_s in np.linspace(0.3, 0.4, 13):  # wherever frames begin
        b = Phone("b", begin_s, begin_s + length_s)
        timeline = segments([Phone("ɑ", 0.2, b.begin_s), b, Phone("ɑ", b.end_s, b.end_s + 0.3)], b.end_s + 0.5)
        frame = int((b.begin_s + b.end_s) / 2 * fps)
        (mouth,) = articulate(timeline, np.array([(frame + 0.5) / fps]), 1 / fps)
        assert (mouth.opening, mouth.closed) == (0, 1)
        for emotion in EMOTIONS:
            face = with_speech(sample_expression(emotion, 3), mouth)
            assert (face.mouth_open, face.upper_lip) == (0, 0)


def test_open_vowels_open_the_mouth_further_than_close_ones() -> None:
    times_s = np.linspace(0, 0.8, 161)
    widest = [gaps(segments(phones_of(f"t{vowel}t"), 0.8), times_s).max() for vowel in "ɑɛɪ"]
    assert widest[0] > widest[1] > widest[2] > 2


@pytest.mark.parametrize("viseme", [viseme for viseme in VISEMES if viseme != CLOSURE])
def test_a_held_phone_takes_its_shape(viseme: str) -> None:
    timeline = [Segment(SILENCE, 0, 0.1), Segment(viseme, 0.1, 2.1), Segment(SILENCE, 2.1, 2.2)]
    (mouth,) = articulate(timeline, np.array([1.1]), FRAME_S)
    assert astuple(mouth) == pytest.approx(astuple(VISEMES[viseme]), abs=1e-3)


def test_coarticulation_stays_between_the_shapes_and_moves_smoothly() -> None:
    times_s = np.linspace(0, 1.4, 1401)
    mouths = articulate(segments(phones_of("sɑmfuʃilo"), 1.4), times_s, FRAME_S)
    values = np.array([astuple(mouth) for mouth in mouths])
    shapes = np.array([astuple(shape) for shape in VISEMES.values()])
    blended = values[:, :-1]  # closure is no blend
    assert (blended >= shapes.min(axis=0)[:-1] - 1e-9).all() and (blended <= shapes.max(axis=0)[:-1] + 1e-9).all()
    # No jump: a millisecond moves the lips by less than a twentieth of the widest gap.
    assert np.abs(np.diff(values[:, 0])).max() < 7.4 / 20


def test_neighbours_colour_a_short_phone() -> None:
    middle_s = np.array([0.2 + 1.5 * 0.12])
    widths = [articulate(segments(phones_of(f"{by}t{by}"), 0.8), middle_s, FRAME_S)[0].width for by in "iu"]
    assert widths[0] > VISEMES["DD"].width > widths[1]


def test_teeth_stand_on_the_lip_in_f() -> None:
    (mouth,) = articulate(segments(phones_of("ɑfɑ"), 0.8), np.array([0.2 + 1.5 * 0.12]), FRAME_S)
    assert mouth.tuck > 0.7 and mouth.upper_teeth > 0.7 and 0 < mouth.opening < 3.5


def test_speech_moves_the_mouth_and_nothing_else() -> None:
    feeling = sample_expression("angry", 2)
    spoken = with_speech(feeling, VISEMES["oh"])
    moved = {name for name, value in vars(spoken).items() if value != getattr(feeling, name)}
    assert moved and all(name.split("_")[0] in ("mouth", "lip", "upper", "lower", "tongue") for name in moved)
