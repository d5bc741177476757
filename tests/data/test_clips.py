"""What conditions a model of talking faces: masks, landmark vectors, windows of features, identity frames."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from affect_hpc.core.errors import UserError
from affect_hpc.data.clips import ClipSet, IdentityRule, landmark_vector, window
from affect_hpc.data.corpora.source import Clip, Face
from affect_hpc.data.shards import ShardSet, ShardWriter

SIZE = 32


def clip(number: int, frames: int, sound: int = 0) -> Clip:
    """A clip whose pixels, landmarks, mask and sound can be told by its number."""
    rng = np.random.default_rng(number)
    landmarks = rng.uniform(-4, SIZE + 4, (frames, 68, 2)).astype(np.float32)
    landmarks[frames // 2] = np.nan
    return Clip(
        key=f"clip-{number}",
        frames=list(rng.integers(1, 256, (frames, SIZE, SIZE, 3), dtype=np.uint8)),
        label=number % 8,
        identity=f"M{number:03d}",
        source="made",
        fps=30.0,
        landmarks=landmarks,
        mask_row=rng.integers(0, SIZE + 1, frames, dtype=np.int16),
        sound=rng.integers(-32768, 32768, sound, dtype=np.int16),
        sample_rate=16_000,
    )


CLIPS = [clip(0, 5, 2667), clip(1, 9), clip(2, 1, 533)]


@pytest.fixture
def clips(tmp_path: Path) -> ClipSet:
    for number, part in enumerate((CLIPS[:2], CLIPS[2:])):
        with ShardWriter(tmp_path, f"shard-{number:05d}") as writer:
            for one in part:
                writer.write(one.key, one.members(), one.info())
    return ClipSet.open([tmp_path])


def test_what_was_written_is_read(clips: ClipSet) -> None:
    assert len(clips) == 3
    for i, one in enumerate(CLIPS):
        assert clips.frames(i) == len(one.frames)
        for k, frame in enumerate(one.frames):
            np.testing.assert_array_equal(clips.frame(i, k), frame)
        np.testing.assert_array_equal(clips.landmarks(i), one.landmarks)
        np.testing.assert_array_equal(clips.mask_rows(i), one.mask_row)
    sound = clips.sound(0)
    assert sound is not None and sound[1] == 16_000 and clips.sound(1) is None
    np.testing.assert_array_equal(sound[0], CLIPS[0].sound)


def test_masked_rows_are_black_and_the_others_untouched(clips: ClipSet) -> None:
    for i, one in enumerate(CLIPS):
        for k, frame in enumerate(one.frames):
            seen, row = clips.masked(i, k), one.mask_row[k]
            np.testing.assert_array_equal(seen[:row], frame[:row])
            assert not seen[row:].any()


def test_shards_of_faces_are_refused(tmp_path: Path) -> None:
    face = Face("a", np.zeros((SIZE, SIZE, 3), np.uint8), 0, "someone", "drawn")
    with ShardWriter(tmp_path, "shard-00000") as writer:
        writer.write(face.key, face.members(), face.info())
    with pytest.raises(UserError, match="the sample a is no talking clip: give shards of data=mead"):
        ClipSet(ShardSet.open([tmp_path]))


@pytest.mark.parametrize("size", [64, 128])
def test_the_landmark_vector_is_the_inverse_of_its_formula(size: int, clips: ClipSet) -> None:
    points = np.random.default_rng(0).uniform(0, size, (68, 2)).astype(np.float32)
    vector = landmark_vector(points, size)
    assert vector.dtype == np.float32 and len(vector) == 96
    np.testing.assert_allclose((vector.reshape(48, 2) + 1) * size / 2, points[:48], rtol=1e-5, atol=1e-4)
    # The middle of the crop is 0, its border and all beyond it are -1 and 1; the mouth changes nothing.
    points[0], points[1], points[2] = (size / 2, size / 2), (-5, size + 5), (0, size)
    assert landmark_vector(points, size)[:6].tolist() == [0, 0, -1, 1, -1, 1]
    moved = points.copy()
    moved[48:] += 7
    np.testing.assert_array_equal(landmark_vector(moved, size), landmark_vector(points, size))
    np.testing.assert_array_equal(clips.landmark_vector(0, 1), landmark_vector(CLIPS[0].landmarks[1], SIZE))
    assert np.isnan(clips.landmark_vector(0, 2)).all()


@pytest.mark.parametrize("w", [0, 1, 4, 16])
@pytest.mark.parametrize("frames", [1, 5, 40])
def test_a_window_equals_one_of_padded_features(w: int, frames: int) -> None:
    features = np.random.default_rng(w).normal(size=(frames, 3)).astype(np.float32)
    padded = np.pad(features, ((w, w), (0, 0)), mode="edge")
    for k in range(frames):
        np.testing.assert_array_equal(window(features, k, w), padded[k : k + 2 * w + 1])
        np.testing.assert_array_equal(window(features, k, w)[w], features[k])


def test_identity_candidates_by_hand() -> None:
    thesis = IdentityRule()
    assert thesis.candidates(200, 0) == list(range(60)) and thesis.candidates(200, 100) == list(range(160))
    assert thesis.candidates(200, 180) == list(range(200)) and thesis.candidates(20, 3) == list(range(20))
    assert IdentityRule(symmetric=True).candidates(200, 100) == list(range(41, 160))
    assert IdentityRule(exclude_target=True).candidates(4, 2) == [0, 1, 3]
    assert IdentityRule(first=True).candidates(200, 100) == [0]
    assert IdentityRule(exclude_target=True).candidates(1, 0) == [0]
    assert IdentityRule(ahead=2, symmetric=True, exclude_target=True).candidates(9, 4) == [3, 5]


@pytest.mark.parametrize("rule", [IdentityRule(ahead=4), IdentityRule(ahead=4, exclude_target=True, symmetric=True)])
def test_identity_frames_are_drawn_evenly(rule: IdentityRule) -> None:
    allowed = rule.candidates(10, 5)
    drawn = Counter(rule.choose(10, 5, place, seed=3) for place in range(6000))
    assert sorted(drawn) == allowed
    expected = 6000 / len(allowed)
    chi_squared = sum((drawn[frame] - expected) ** 2 / expected for frame in allowed)
    assert chi_squared < len(allowed) - 1 + 4 * np.sqrt(2 * (len(allowed) - 1))


def test_identity_frames_hang_on_place_and_seed_alone(clips: ClipSet) -> None:
    rule = IdentityRule()
    first = [rule.choose(90, 30, place, seed=0) for place in range(40)]
    assert first == [rule.choose(90, 30, place, seed=0) for place in range(40)]
    assert first != [rule.choose(90, 30, place, seed=1) for place in range(40)]
    # Pinned: another machine or version has to draw the same.
    assert first[:6] == [67, 32, 82, 51, 14, 43]
    np.testing.assert_array_equal(
        clips.identity_frame(1, 4, rule, 7, 0), CLIPS[1].frames[rule.choose(9, 4, place=7, seed=0)]
    )
