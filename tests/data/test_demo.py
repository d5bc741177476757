"""Laws of the drawn faces: the same everywhere, and an expression moves the face and nothing else."""

import hashlib
import subprocess
import sys
from dataclasses import astuple, replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.data.corpora.demo import Expression, draw_face, face_mask, render, sample_expression, sample_identity
from affect_hpc.data.corpora.demo.expression import MIN_INTENSITY
from affect_hpc.data.corpora.demo.identity import HAIR_STYLES, Identity

PEOPLE = range(24)
FEELINGS = [emotion for emotion in EMOTIONS if emotion != "neutral"]


def _difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Mean absolute difference in 8-bit levels."""
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


def _digest(pictures: list[NDArray[np.uint8]]) -> str:
    return hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest()


def test_another_process_draws_the_same_pictures() -> None:
    program = (
        "import hashlib, sys\n"
        "from affect_hpc.core.emotions import EMOTIONS\n"
        "from affect_hpc.data.corpora.demo import render\n"
        "pictures = [render(7, emotion, 64, seed=3) for emotion in EMOTIONS]\n"
        "print(hashlib.sha256(b''.join(picture.tobytes() for picture in pictures)).hexdigest())\n"
        "assert 'torch' not in sys.modules\n"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == _digest([render(7, emotion, 64, seed=3) for emotion in EMOTIONS])


def test_order_of_calls_does_not_matter() -> None:
    forwards = [render(person, "happy") for person in PEOPLE]
    np.random.seed(1)  # the global generator must not matter either
    backwards = [render(person, "happy") for person in reversed(PEOPLE)][::-1]
    assert _digest(forwards) == _digest(backwards)


@pytest.mark.parametrize("emotion", FEELINGS)
def test_expression_changes_nothing_outside_the_face(emotion: str) -> None:
    for person in PEOPLE:
        outside = face_mask(sample_identity(person), 64) == 0
        rest, moved = render(person, "neutral"), render(person, emotion)
        assert outside.mean() > 0.3
        np.testing.assert_array_equal(rest[outside], moved[outside])
        assert not np.array_equal(rest, moved)


def test_hair_hides_what_reaches_under_it() -> None:
    identity = sample_identity(0)
    forehead_only = replace(identity, hairline=0.2, glasses=None)  # hair down to just above the eyes
    low, high = (draw_face(forehead_only, Expression(brow_inner=up, brow_outer=up), 64) for up in (2.0, 6.0))
    np.testing.assert_array_equal(low[:22], high[:22])


def test_identity_is_what_render_shows_for_every_emotion() -> None:
    for emotion in EMOTIONS:
        expected = draw_face(sample_identity(5, 2), sample_expression(emotion, 5, 2), 64)
        np.testing.assert_array_equal(render(5, emotion, 64, seed=2), expected)


def test_identities_and_populations_differ() -> None:
    pictures = [render(person, "neutral") for person in PEOPLE]
    pictures += [render(person, "neutral", seed=1) for person in PEOPLE]
    assert min(_difference(a, b) for a, b in combinations(pictures, 2)) > 5


def test_another_person_differs_more_than_another_emotion() -> None:
    for person in PEOPLE:
        same_person = max(_difference(render(person, "neutral"), render(person, e)) for e in FEELINGS)
        assert same_person < _difference(render(person, "neutral"), render(person + 1, "neutral"))


def test_every_pair_of_emotions_differs_visibly() -> None:
    for person in PEOPLE:
        inside = face_mask(sample_identity(person), 64) == 1
        faces = [render(person, emotion)[inside].astype(int) for emotion in EMOTIONS]
        for (first, a), (second, b) in combinations(zip(EMOTIONS, faces, strict=True), 2):
            strongly_changed = (np.abs(a - b).max(-1) > 40).mean()
            assert strongly_changed > 0.02, f"person {person}: {first} looks like {second}"


@pytest.mark.parametrize("size", [96, 128])
def test_sizes_look_alike(size: int) -> None:
    def at_common_size(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(picture).reduce(picture.shape[0] // 32))  # divides 64, 96 and 128

    for person in PEOPLE:
        emotion = EMOTIONS[person % len(EMOTIONS)]
        large = render(person, emotion, size)
        assert large.shape == (size, size, 3)
        assert _difference(at_common_size(render(person, emotion, 64)), at_common_size(large)) < 1.5


def test_expressions_follow_intensity() -> None:
    steps = np.linspace(0.0, 1.0, 5)

    def along(emotion: str, name: str) -> list[float]:
        return [getattr(sample_expression(emotion, 3, intensity=float(step)), name) for step in steps]

    rising = [
        ("happy", "mouth_corners"),
        ("happy", "mouth_open"),
        ("surprised", "lid_open"),
        ("scared", "brow_inner"),
        ("scared", "mouth_width"),
        ("disgusted", "nose_wrinkle"),
        ("angry", "brow_gather"),
        ("contempt", "mouth_one_side"),
    ]
    for emotion, name in rising:
        values = along(emotion, name)
        assert all(low < high for low, high in pairwise(values)), (emotion, name)
    falling = [("sad", "mouth_corners"), ("angry", "brow_inner"), ("disgusted", "lid_open")]
    for emotion, name in falling:
        values = along(emotion, name)
        assert all(low > high for low, high in pairwise(values)), (emotion, name)


@pytest.mark.parametrize("emotion", FEELINGS)
def test_stronger_expressions_move_the_picture_further_from_rest(emotion: str) -> None:
    identity = sample_identity(4)
    rest, weak, full = (
        draw_face(identity, sample_expression(emotion, 4, intensity=step), 64) for step in (0.0, 0.5, 1.0)
    )
    assert 0 < _difference(rest, weak) < _difference(rest, full)


def test_intensity_without_a_wish_is_strong_enough() -> None:
    for person in PEOPLE:
        weakest = sample_expression("contempt", person, intensity=MIN_INTENSITY)
        drawn = sample_expression("contempt", person)
        full = sample_expression("contempt", person, intensity=1.0)
        assert weakest.mouth_one_side <= drawn.mouth_one_side <= full.mouth_one_side
        assert weakest.side == drawn.side == full.side


def test_one_sided_expressions_take_both_sides() -> None:
    assert {sample_expression("contempt", person).side for person in PEOPLE} == {-1, 1}


def test_neutral_is_rest_at_any_intensity() -> None:
    assert sample_expression("neutral", 0, intensity=0.0) == sample_expression("neutral", 0, intensity=1.0)


def test_hair_and_background_stay_apart_from_their_neighbours() -> None:
    people = [sample_identity(person) for person in range(300)]
    assert {person.hair_style for person in people} == set(HAIR_STYLES)
    assert all(_colour_distance(person.hair, person.skin) > 40 for person in people)
    # Hues of all kinds: no channel of the background dominates on average.
    mean_background = np.mean([person.background_top for person in people], axis=0)
    assert np.ptp(mean_background) < 40


def _colour_distance(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    return float(np.linalg.norm(np.subtract(first, second)))


def test_identity_tells_nothing_about_the_expression() -> None:
    people = range(400)
    sizes = np.array([_numbers(sample_identity(person)) for person in people])
    opened = np.array([sample_expression("happy", person).mouth_open for person in people])
    correlations = [np.corrcoef(column, opened)[0, 1] for column in sizes.T]
    assert np.abs(correlations).max() < 0.2


def _numbers(identity: Identity) -> list[float]:
    return [value for value in astuple(identity) if isinstance(value, float)]


def test_unknown_emotion_is_named_with_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"'bored'.*neutral.*contempt"):
        render(0, "bored")


def test_too_small_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"63.*64"):
        render(0, "happy", size=63)


@pytest.mark.parametrize("intensity", [-0.1, 1.1, float("nan")])
def test_intensity_out_of_range_is_refused(intensity: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        sample_expression("happy", 0, intensity=intensity)
