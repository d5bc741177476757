"""Drawn talking clips: lips follow phones, landmarks lie where the lips are drawn, a clip hangs on its index alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
from heard_tones import needs_espeak, read_tones

from affect_hpc.config.corpora import DemoClipsDataConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.data.corpora.demo import Expression, draw_face, sample_expression, sample_identity
from affect_hpc.data.corpora.demo.clips import VOCABULARY, DemoClipsSource, blinking
from affect_hpc.data.corpora.demo.identity import Identity
from affect_hpc.data.corpora.demo.landmarks import landmarks
from affect_hpc.data.corpora.demo.mouths import (
    CLOSURE,
    SILENCE,
    VISEMES,
    Mouth,
    visemes_of,
    with_speech,
)
from affect_hpc.data.corpora.demo.speech import speak
from affect_hpc.data.corpora.source import Clip, UInt8Image

VOWELS = ("aa", "E", "ih", "oh", "ou")


# ---------------------------------------------------------------------------------------------------- what is drawn

SIZE = 256
PX = SIZE / 64  # of a unit


def upright(number: int) -> Identity:
    """A person whose pictures can be measured: no roll, even light, the size as it is."""
    return replace(sample_identity(number), roll=0.0, light_strength=0.0, scale=1.0, glasses=None)


def column(picture: UInt8Image, x: float) -> np.ndarray:
    """Brightness of red (size,) down the column nearest to x."""
    return picture[:, round(x), 0].astype(float)


@pytest.mark.parametrize("opening", [1.5, 3.0, 6.0])
@pytest.mark.parametrize("number", [0, 3, 6])
def test_inner_lip_landmarks_lie_on_the_drawn_gap(number: int, opening: float) -> None:
    person, face = upright(number), with_speech(Expression(), Mouth(opening=opening, rounding=0.5))
    points = landmarks(person, face, SIZE)
    for above, below in ((61, 67), (62, 66), (63, 65)):
        assert points[above, 0] == points[below, 0]
        red = column(draw_face(person, face, SIZE), points[above, 0])
        # Skin, upper lip, gap, lower lip, skin: nothing but the gap is dark between nose and chin.
        lip, rows = red[round(points[below, 1]) + 3], np.arange(SIZE)
        dark = rows[(red < (62 + lip) / 2) & (rows > points[33, 1] + PX) & (rows < points[8, 1] - PX)]
        assert dark[0] - 0.5 == pytest.approx(points[above, 1], abs=1.0)
        assert dark[-1] + 0.5 == pytest.approx(points[below, 1], abs=1.0)
    assert np.hypot(*(points[66] - points[62])) == pytest.approx(opening * PX, abs=1e-3)


@pytest.mark.parametrize("number", [0, 3, 6])
def test_outer_landmarks_lie_on_the_edges_of_lips_and_jaw(number: int) -> None:
    person, face = upright(number), with_speech(Expression(), VISEMES["oh"])
    points = landmarks(person, face, SIZE)
    picture = draw_face(person, face, SIZE).astype(int)
    bare = draw_face(person, replace(face, mouth_width=1e-3), SIZE).astype(int)
    moved = np.abs(picture - bare).max(axis=-1) > 8
    rows, columns = np.flatnonzero(moved[:, round(points[50, 0])]), np.nonzero(moved)[1]
    assert points[50, 0] == points[58, 0]
    assert rows.min() - 0.5 == pytest.approx(points[50, 1], abs=1.0)
    assert rows.max() + 0.5 == pytest.approx(points[58, 1], abs=1.0)
    assert columns.min() == pytest.approx(points[48, 0], abs=1.5)
    assert columns.max() == pytest.approx(points[54, 0], abs=1.5)
    # The chin stands on the border of skin and neck.
    chin = column(picture.astype(np.uint8), points[8, 0])
    steps = np.abs(np.diff(chin))
    y = round(float(points[8, 1]))
    assert steps[y - 3 : y + 3].max() > 0.1 * chin[y - 8]


def test_landmarks_are_in_the_order_of_ibug() -> None:
    for number in range(12):
        person = sample_identity(number)
        points = landmarks(replace(person, roll=0.0), sample_expression(EMOTIONS[number % 8], number), SIZE)
        x, y = points.T
        assert (np.diff(x[:17]) > 0).all() and y[8] == y[:17].max()  # jaw
        assert (np.diff(x[17:27]) > 0).all()  # brows
        assert (np.diff(y[27:31]) > 0).all() and (np.diff(x[31:36]) > 0).all()  # nose
        for first in (36, 42):
            corner, upper, other, lower = first, [first + 1, first + 2], first + 3, [first + 5, first + 4]
            assert x[corner] < x[upper[0]] < x[upper[1]] < x[other]
            assert (y[upper] < y[lower]).all()
        assert (np.diff(x[48:55]) > 0).all() and (np.diff(x[54:60]) < 0).all()
        assert (y[49:54] < y[59:54:-1]).all()
        assert (np.diff(x[60:65]) > 0).all() and (np.diff(x[64:68]) < 0).all()
        assert x[39] < x[27] < x[42] and y[17:27].max() < y[27] < y[33] < y[51] < y[57] < y[8]


def test_landmarks_follow_the_size_and_the_head() -> None:
    person, face = sample_identity(1), sample_expression("happy", 1)
    small, large = (landmarks(person, face, size) + 0.5 for size in (64, 256))
    # A pixel is the mean of 4 x 4 drawn ones at any size: half a drawn pixel is another share of it.
    np.testing.assert_allclose(small * 4, large, atol=0.6)
    moved = landmarks(replace(person, shift_x=person.shift_x + 3, shift_y=person.shift_y - 2), face, 256) + 0.5
    np.testing.assert_allclose(moved - large, np.broadcast_to([12.0, -8.0], (68, 2)), atol=1e-3)


def test_a_blink_shuts_the_eyes_and_only_them() -> None:
    person = upright(2)
    white = [
        int((draw_face(person, Expression(blink=blink), SIZE).min(axis=-1) > 235).sum()) for blink in (0.0, 0.5, 1.0)
    ]
    assert white[0] > white[1] > 20 * max(white[2], 1)
    mouths = [draw_face(person, Expression(blink=blink), SIZE)[round(0.62 * SIZE) :] for blink in (0.0, 1.0)]
    np.testing.assert_array_equal(*mouths)


def test_lids_shut_and_open_again() -> None:
    times_s = (np.arange(600) + 0.5) / 30
    shut = blinking(np.random.default_rng(0), times_s)
    assert (shut == 1).any() and (shut[:6] == 0).all()
    assert (shut == 0).mean() > 0.85


# ---------------------------------------------------------------------------------------------------- the corpus


def source(train: int = 8, val: int = 4, per_shard: int = 3, **changes: object) -> DemoClipsSource:
    values: dict[str, object] = {"train_samples": train, "val_samples": val, "voice": "tones", "words": 2, "fps": 25.0}
    config = DemoClipsDataConfig("demo_clips", 64, per_shard, **(values | changes))  # type: ignore[arg-type]
    config.check()
    return DemoClipsSource(config)


def clips(corpus: DemoClipsSource) -> dict[str, Clip]:
    found = [clip for plan in corpus.shards() for clip in corpus.samples(plan)]
    assert len({clip.key for clip in found}) == len(found)
    return {clip.key: clip for clip in found}


@pytest.fixture(scope="module")
def corpus() -> dict[str, Clip]:
    return clips(source())


def test_every_clip_is_there_once(corpus: dict[str, Clip]) -> None:
    assert set(corpus) == {*(f"train-{i:07d}" for i in range(8)), *(f"val-{i:07d}" for i in range(4))}


def test_splits_share_no_identity(corpus: dict[str, Clip]) -> None:
    people = {split: {clip.identity for key, clip in corpus.items() if key.startswith(split)} for split in ("tr", "va")}
    assert len(people["tr"]) == 4 and len(people["va"]) == 4 and not people["tr"] & people["va"]
    assert {clip.label for key, clip in corpus.items() if key.startswith("train")} == set(range(8))


def test_sound_lasts_as_long_as_the_frames(corpus: dict[str, Clip]) -> None:
    for clip in corpus.values():
        count = len(clip.frames)
        assert len(clip.sound) == round(count / clip.fps * clip.sample_rate)
        assert len(clip.landmarks) == len(clip.mask_row) == len(clip.more["visemes"]) == count
        assert all(begin < end < count / clip.fps for _, begin, end in clip.more["phones"])


def test_the_sound_says_the_transcript(corpus: dict[str, Clip]) -> None:
    assert len({clip.more["transcript"] for clip in corpus.values()}) == len(corpus)
    for clip in corpus.values():
        words = clip.more["transcript"].split()
        assert len(set(words)) == 2 and set(words) <= set(VOCABULARY)
        whole = speak(clip.more["transcript"], "tones", clip.sample_rate).sound
        cut = np.pad(clip.sound, (0, len(whole) - len(clip.sound)))
        assert read_tones(cut, clip.sample_rate) == clip.more["transcript"]


def test_lips_are_shut_in_the_frames_of_closures(corpus: dict[str, Clip]) -> None:
    found = 0
    for clip in corpus.values():
        inner = np.abs(clip.landmarks[:, 61:64] - clip.landmarks[:, [67, 66, 65]]).max(axis=(1, 2))
        for symbol, begin, end in clip.more["phones"]:
            frame = int((begin + end) / 2 * clip.fps)
            if symbol in ("p", "b", "m"):
                assert inner[frame] < 1e-4 and clip.more["visemes"][frame] == CLOSURE
                found += 1
        open_frames = [frame for frame, viseme in enumerate(clip.more["visemes"]) if viseme in VOWELS]
        assert inner[open_frames].max() > 2
    assert found >= 8


def test_a_drawn_closure_shows_nothing_of_the_mouths_inside(corpus: dict[str, Clip]) -> None:
    for clip in corpus.values():
        middles = [int((begin + end) / 2 * clip.fps) for symbol, begin, end in clip.more["phones"] if symbol in "pbm"]
        widest = int(np.argmax(clip.landmarks[:, 66, 1] - clip.landmarks[:, 62, 1]))
        for frame in middles:
            points = clip.landmarks[frame]
            lips = points[57, 1] - points[51, 1]
            assert lips < 0.75 * (clip.landmarks[widest, 57, 1] - clip.landmarks[widest, 51, 1])
            # The whole height of the shut mouth holds no white of teeth.
            top, bottom = int(points[48:60, 1].min()), int(points[48:60, 1].max()) + 2
            left, right = int(points[49, 0]), int(points[53, 0]) + 1
            assert clip.frames[frame][top:bottom, left:right].min(axis=-1).max() < 225


def test_masks_begin_just_above_the_mouth(corpus: dict[str, Clip]) -> None:
    for clip in corpus.values():
        top = clip.landmarks[:, 48:68, 1].min(axis=1)
        np.testing.assert_array_equal(clip.mask_row, np.trunc(top).astype(int) - 2)  # 5 px at 128
        assert (clip.mask_row > clip.landmarks[:, 36:48, 1].max(axis=1)).all()


def test_a_clip_hangs_on_its_index_alone(corpus: dict[str, Clip]) -> None:
    for key, other in clips(source(train=4, val=2, per_shard=1)).items():
        clip = corpus[key]
        assert other.info() == clip.info()
        for mine, theirs in ((clip.frames, other.frames), (clip.landmarks, other.landmarks), (clip.sound, other.sound)):
            np.testing.assert_array_equal(mine, theirs)
    reseeded = clips(source(train=4, val=2, seed=1))
    assert all(reseeded[key].more["transcript"] != corpus[key].more["transcript"] for key in reseeded)


def test_what_the_index_says_survives_json(corpus: dict[str, Clip]) -> None:
    clip = corpus["val-0000001"]
    info = json.loads(json.dumps(clip.info()))
    assert info == clip.info()
    assert info["actor"] == clip.identity and info["level"] == "level_1" and info["frames"] == len(clip.frames)


def test_members_hold_every_frame_and_the_sound(corpus: dict[str, Clip]) -> None:
    clip = corpus["train-0000000"]
    frames = [f"{number:06d}.png" for number in range(len(clip.frames))]
    assert list(clip.members()) == [*frames, "landmarks.npy", "mask_row.npy", "wav", "json"]


def test_the_head_moves_a_little(corpus: dict[str, Clip]) -> None:
    for clip in corpus.values():
        way = np.ptp(clip.landmarks[:, 27], axis=0)  # between the eyes
        assert 0.01 < np.hypot(*way) < 4


@needs_espeak
def test_every_word_has_mouth_shapes_when_espeak_says_it() -> None:
    spoken = speak(" ".join(VOCABULARY), "espeak", 16_000)
    shapes = {viseme for phone in spoken.phones for viseme in visemes_of(phone.symbol)}
    assert shapes | {SILENCE} == set(VISEMES)


@needs_espeak
def test_espeak_gives_the_same_clip_again() -> None:
    first, again = (clips(source(train=1, val=1, voice="espeak")) for _ in range(2))
    for key, clip in first.items():
        assert clip.info() == again[key].info()
        np.testing.assert_array_equal(clip.sound, again[key].sound)
        np.testing.assert_array_equal(clip.frames, again[key].frames)
        assert np.abs(clip.sound).max() > 3000
