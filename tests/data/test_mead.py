"""MEAD against a generated one whose faces, motion and tones are known: labels, splits, boxes, masks, sound."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from generated_mead import (
    ENLARGED,
    FPS,
    FRAMES,
    HEIGHT,
    OTHER_ACTORS,
    TALKS,
    TEST_ACTOR,
    TONE_HZ,
    TONES_S,
    Talk,
    heard_tones_s,
    still,
    write_mead,
    write_sound,
    write_video,
)
from PIL import Image

from affect_hpc.config.corpora import MeadDataConfig
from affect_hpc.config.data import AlignConfig, AlignMode, OnBadFile
from affect_hpc.config.packaged import missing
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.data.align import Points, landmark_box
from affect_hpc.data.clips import mask_rows
from affect_hpc.data.corpora.mead import MeadSource, find_clips, read_transcripts, split_of_actors
from affect_hpc.data.corpora.source import Clip, UInt8Image
from affect_hpc.data.faces import Cropper, Region, load_landmarks

needs_dlib = pytest.mark.skipif(bool(missing("dlib_landmarks")), reason="dlib's landmark network is not installed")

SIZE, SEARCHED = 128, (216, 384)
TO_SEARCHED = SEARCHED[0] / HEIGHT


def config(root: Path, **changes: object) -> MeadDataConfig:
    align = AlignConfig(AlignMode.none, "dlib", resize=list(SEARCHED), margin_px=10, video_margin=0.0)
    values: dict[str, object] = {"name": "mead", "size": SIZE, "samples_per_shard": 3, "root": str(root)}
    values |= {"test_actors": [TEST_ACTOR, "W009"], "val_actors": 1, "align": align, "on_bad_file": OnBadFile.skip}
    made = MeadDataConfig(**(values | changes))  # type: ignore[arg-type]
    made.check()
    return made


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mead")
    write_mead(folder)
    return folder


@pytest.fixture(scope="session")
def source(root: Path) -> MeadSource:
    return MeadSource(config(root, transcripts=str(root / "transcripts.csv")))


@pytest.fixture(scope="session")
def clips(source: MeadSource) -> dict[str, Clip]:
    return {clip.key: clip for plan in source.shards() for clip in source.samples(plan)}


@pytest.fixture(scope="session")
def truth() -> Points:
    """Landmarks of the still, found once where it is large, in its own px."""
    large, backend = still(4.0), load_landmarks("dlib")
    (region,) = backend.regions(large)
    return backend.points(large, region) / 4


def searched_points(truth: Points, talk: Talk, k: int) -> Points:
    """Where the landmarks of frame ``k`` stand in the image that is searched."""
    return (truth * ENLARGED + talk.place(k)) * TO_SEARCHED


def crop_points(truth: Points, clip: Clip, talk: Talk, k: int) -> Points:
    """Where they stand in the crop, by the box alone."""
    left, top, side = clip.more["box"]
    return (searched_points(truth, talk, k) - (left, top)) * SIZE / side


WITH_FACE = [talk for talk in TALKS if len(talk.faceless) < FRAMES]


@needs_dlib
def test_clips_have_the_labels_and_actors_of_their_folders(clips: dict[str, Clip]) -> None:
    assert set(clips) == {talk.key for talk in WITH_FACE}
    ours = {"fear": "scared"}
    for talk in WITH_FACE:
        clip = clips[talk.key]
        assert EMOTIONS[clip.label or 0] == ours.get(talk.emotion, talk.emotion)
        assert (clip.identity, clip.source, len(clip.frames), clip.fps) == (talk.actor, talk.video, FRAMES, FPS)
        info = clip.info()
        assert (info["emotion"], info["level"], info["view"]) == (talk.emotion, f"level_{talk.level}", "front")
        assert info["transcript"] == "she had your dark suit"


def test_splits_are_by_actor_and_shards_in_order_of_keys(source: MeadSource) -> None:
    plans = source.shards()
    split_of = {unit.actor: plan.split for plan in plans for unit in plan.units}
    assert split_of[TEST_ACTOR] == "test"
    assert sorted(split_of[actor] for actor in OTHER_ACTORS) == ["train", "train", "val"]
    for split in ("train", "val", "test"):
        mine = [plan for plan in plans if plan.split == split]
        keys = [unit.key for plan in mine for unit in plan.units]
        assert keys == sorted(talk.key for talk in TALKS if split_of[talk.actor] == split)
        assert [len(plan.units) for plan in mine[:-1]] == [3] * (len(mine) - 1)
    assert [plan.split for plan in plans] == sorted([plan.split for plan in plans], key=["train", "val", "test"].index)


@needs_dlib
def test_the_box_is_that_of_the_first_face_ten_pixels_wider(clips: dict[str, Clip], truth: Points) -> None:
    for talk in WITH_FACE:
        first = min(set(range(FRAMES)) - set(talk.faceless))
        want = landmark_box(searched_points(truth, talk, first), 0.0, 10)
        assert clips[talk.key].more["box"] == pytest.approx([want.left, want.top, want.side], abs=3)


@needs_dlib
def test_the_crop_is_what_stands_in_the_box(clips: dict[str, Clip]) -> None:
    for talk in WITH_FACE[:2]:
        box, matrix = clips[talk.key].more["box"], np.array(clips[talk.key].more["matrix"])
        assert matrix == pytest.approx(np.array([[1, 0, -box[0]], [0, 1, -box[1]]]) * SIZE / box[2], abs=1e-4)
        left, top, side = np.array(box) / TO_SEARCHED
        for k in (0, FRAMES // 2):
            whole = talk.picture(k)[round(top) : round(top + side), round(left) : round(left + side)]
            small = np.asarray(Image.fromarray(whole).resize((SIZE, SIZE)))
            assert np.abs(small.astype(int) - clips[talk.key].frames[k]).mean() < 6


@needs_dlib
def test_landmarks_follow_the_face(clips: dict[str, Clip], truth: Points) -> None:
    errors = []
    for talk in WITH_FACE:
        for k in sorted(set(range(FRAMES)) - set(talk.faceless)):
            want = crop_points(truth, clips[talk.key], talk, k)
            errors.append(np.linalg.norm(clips[talk.key].landmarks[k] - want, axis=1))
    assert np.mean(errors, axis=1).max() < 1.5, "mean over the points of a frame, in px"
    assert np.quantile(errors, 0.99) < 3


@needs_dlib
def test_the_mask_begins_above_the_upper_lip(clips: dict[str, Clip], truth: Points) -> None:
    for talk in WITH_FACE:
        clip = clips[talk.key]
        for k in sorted(set(range(FRAMES)) - set(talk.faceless)):
            lips = crop_points(truth, clip, talk, k)[48:68, 1].min()
            assert clip.mask_row[k] == pytest.approx(int(lips) - 5, abs=3)
            assert clip.mask_row[k] == int(clip.landmarks[k, 48:68, 1].min()) - 5


@needs_dlib
def test_frames_without_a_face_are_counted_and_masked_in_the_middle(clips: dict[str, Clip], source: MeadSource) -> None:
    (talk,) = [talk for talk in WITH_FACE if talk.faceless]
    clip = clips[talk.key]
    assert clip.more["missing_landmarks"] == list(talk.faceless)
    assert np.isnan(clip.landmarks[list(talk.faceless)]).all() and np.isfinite(clip.landmarks).sum() == 136 * 20
    assert (clip.mask_row[list(talk.faceless)] == 64).all()
    assert source.findings.counts() == {
        "clip without sound": 1,
        "frame without landmarks": len(talk.faceless),
        f"shows no face in any of its {FRAMES} frames": 1,
    }
    assert source.findings.left_out() == {TALKS[-1].video: f"shows no face in any of its {FRAMES} frames"}


@needs_dlib
def test_sound_is_as_long_as_the_frames_and_in_step(clips: dict[str, Clip]) -> None:
    for talk in WITH_FACE:
        clip = clips[talk.key]
        if talk.sound == "none":
            assert len(clip.sound) == 0 and "wav" not in clip.members()
            continue
        assert len(clip.sound) == round(FRAMES / FPS * clip.sample_rate)
        assert heard_tones_s(clip.sound, clip.sample_rate) == pytest.approx(TONES_S, abs=0.5 / FPS)
        start = round((TONES_S[0] + 0.02) * clip.sample_rate)
        spectrum = np.abs(np.fft.rfft(clip.sound[start : start + 800].astype(float)))
        assert np.argmax(spectrum) * clip.sample_rate / 800 == pytest.approx(TONE_HZ, abs=20)


@needs_dlib
def test_a_shard_is_the_same_whatever_was_made_before_it(root: Path, clips: dict[str, Clip]) -> None:
    alone = MeadSource(config(root))
    (plan,) = [plan for plan in alone.shards() if plan.split == "test"]
    for clip in alone.samples(plan):
        one, other = clip.members(), clips[clip.key].members()
        assert one.keys() == other.keys()
        assert all(one[name] == other[name] for name in one if name != "json"), "the transcripts were not given"


def test_facts_count_against_the_published_numbers(source: MeadSource) -> None:
    facts = source.facts()
    counted = {split: Counter(numbers) for split, numbers in facts["clips"].items()}
    assert sum(counted.values(), Counter()) == Counter(talk.emotion for talk in TALKS)
    assert facts["differences"] == [
        "train and val: 8 clips, the thesis has 21739",
        "test: 2 clips, the thesis has 3692",
    ]
    assert facts["actors"]["test"] == [TEST_ACTOR] and facts["absent_test_actors"] == ["W009"]
    assert facts["transcripts"] == {"clips_with_text": 9, "clips_without_text": 1, "texts_of_unknown_clips": 1}


class NoFace:
    """A landmark backend that never finds anything."""

    name = "none"

    def regions(self, image: UInt8Image) -> list[Region]:
        return []

    def points(self, image: UInt8Image, region: Region) -> Points:
        raise AssertionError("nothing was found")


def grey(k: int) -> UInt8Image:
    return np.full((36, 64, 3), 90, np.uint8)


@pytest.mark.parametrize("way", list(OnBadFile))
def test_bad_clips_are_all_named_together(tmp_path: Path, way: OnBadFile) -> None:
    folder = tmp_path / "M005" / "video" / "front" / "happy" / "level_1"
    write_video(folder / "001.mp4", 3, grey)
    (folder / "002.mp4").write_bytes(b"words")
    (folder / "._002.mp4").write_bytes(b"left by another system")
    cfg = config(tmp_path, on_bad_file=way, val_actors=0)
    broken = MeadSource(cfg, Cropper(cfg.align, SIZE, landmarks=NoFace()))
    assert [clip for plan in broken.shards() for clip in broken.samples(plan)] == []
    assert len(broken.findings.left_out()) == 2
    if way is OnBadFile.skip:
        broken.verdict()
        return
    with pytest.raises(UserError) as caught:
        broken.verdict()
    lines = str(caught.value).splitlines()
    assert [line.split()[0][-7:] for line in lines] == ["001.mp4", "002.mp4"]
    assert all("data.on_bad_file=skip" in line for line in lines)


@needs_dlib
def test_sound_of_another_length_is_fitted_and_damaged_sound_is_noted(tmp_path: Path) -> None:
    long, damaged = Talk("M005", "happy", 1, "001"), Talk("M005", "happy", 1, "002")
    for talk in (long, damaged):
        write_video(tmp_path / talk.video, 3, talk.picture)
    write_sound(tmp_path / long.audio, np.full(48_000, 0.25))
    (tmp_path / damaged.audio).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / damaged.audio).write_bytes(b"no sound")
    talking = MeadSource(config(tmp_path, val_actors=0))
    first, second = (clip for plan in talking.shards() for clip in talking.samples(plan))
    assert len(first.sound) == 1600 and len(second.sound) == 0
    reasons = talking.findings.counts()
    assert reasons.pop("sound more than 0.1 s longer or shorter than the picture, cut or padded") == 1
    assert reasons.pop("clip without sound") == 1
    (left,) = reasons
    assert left.startswith("sound file that cannot be used: it cannot be read as sound (")


def test_who_is_held_out_hangs_on_names_and_seed_alone(tmp_path: Path) -> None:
    actors = {f"M{i:03d}" for i in range(3, 43)}
    cfg = config(tmp_path, val_actors=6, test_actors=["M003"])
    splits = split_of_actors(actors, cfg)
    held_out = {actor for actor, split in splits.items() if split == "val"}
    assert len(held_out) == 6 and splits["M003"] == "test"
    smaller = split_of_actors(actors - {"M010"} if "M010" not in held_out else actors - {"M003"}, cfg)
    assert {actor for actor, split in smaller.items() if split == "val"} == held_out
    other = split_of_actors(actors, config(tmp_path, val_actors=6, test_actors=["M003"], seed=1))
    assert {actor for actor, split in other.items() if split == "val"} != held_out
    with pytest.raises(UserError, match=r"data.val_actors=6 leaves no actor to train on: .* has 2 .* at most 1"):
        split_of_actors({"M003", "M004", "M005"}, cfg)


@pytest.mark.parametrize("size", [64, 128, 224])
def test_mask_rows_by_their_formula(size: int) -> None:
    landmarks = np.full((4, 68, 2), 0.9 * size, np.float32)
    landmarks[0, 50, 1] = 0.6 * size + 0.7
    landmarks[1] = np.nan
    landmarks[2, 61, 1] = 0.01
    landmarks[3, 48:, 1] = 2.0 * size
    margin = {64: 2, 128: 5, 224: 9}[size]
    want = [int(np.float32(0.6 * size + 0.7)) - margin, size // 2, 0, size]
    assert mask_rows(landmarks, size, 5).tolist() == want


def test_a_layout_that_is_not_meads_is_one_sentence(tmp_path: Path, root: Path) -> None:
    with pytest.raises(UserError, match=r"data.root=.*nowhere is no folder: give the folder"):
        find_clips(tmp_path / "nowhere", "front")
    (tmp_path / "M3").mkdir()
    with pytest.raises(UserError, match=r"holds no folder of an actor \(M003, ...\), but M3"):
        find_clips(tmp_path, "front")
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    with pytest.raises(UserError, match=r"lacks the folder video/top of M003, M005, M007, W011, whose views are front"):
        find_clips(copy, "top")
    (copy / "M005" / "video" / "front" / "fearful").mkdir()
    with pytest.raises(
        UserError, match=r"fearful is named after no emotion of MEAD: .*contempt, .*, fear, .*surprised"
    ):
        find_clips(copy, "front")
    (copy / "M005" / "video" / "front" / "fearful").rename(copy / "M005" / "video" / "front" / "fear")
    (copy / "M005" / "video" / "front" / "fear" / "loud").mkdir()
    with pytest.raises(UserError, match=r"loud is no level: rename it to level_1"):
        find_clips(copy, "front")
    (copy / "M005" / "video" / "front" / "fear" / "loud").rename(copy / "M005" / "video" / "front" / "fear" / "level_2")
    assert {clip.key for clip in find_clips(copy, "front")} == {talk.key for talk in TALKS}
    (copy / "M005" / "video" / "front" / "fear" / "level_2" / "1.2.mp4").touch()
    with pytest.raises(UserError, match=r"1\.2\.mp4 is no clip of MEAD"):
        find_clips(copy, "front")


def test_transcripts_that_cannot_be_used_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "said.csv"
    path.write_text('\ufeffclip,text\nM003_angry_level_1_001,"well, then"\n', encoding="utf-8")
    assert read_transcripts(path) == {"M003_angry_level_1_001": "well, then"}
    path.write_text("clip,words\na,b\n")
    with pytest.raises(
        UserError, match=r"said.csv has no column text, but clip, words: its first line must be clip,text"
    ):
        read_transcripts(path)
    path.write_text("clip,text\na,b\na,c\n")
    with pytest.raises(UserError, match=r"names the clip 'a' again in line 3"):
        read_transcripts(path)
    path.write_bytes(b"clip,text\na,\xff\n")
    with pytest.raises(UserError, match=r"cannot be read .*give a CSV file in UTF-8"):
        read_transcripts(path)
    with pytest.raises(UserError, match=r"cannot be read .*No such file"):
        read_transcripts(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "align", [AlignConfig(AlignMode.roll_only, "dlib"), AlignConfig(AlignMode.none, "dlib", fixed_box=False)]
)
def test_frames_of_a_clip_may_not_be_cut_each_by_itself(tmp_path: Path, align: AlignConfig) -> None:
    with pytest.raises(UserError, match=r"data=mead needs mode=none and fixed_box=true"):
        config(tmp_path, align=align)
