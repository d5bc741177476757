"""Videos on a fixed time grid: every frame where its time stamp puts it, and one reason for what cannot be read."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from generated_mead import write_sound, write_video

from affect_hpc.data.corpora.source import UInt8Image
from affect_hpc.data.media import BadFileError, frame_count, read_clip, read_frames


def level(k: int) -> UInt8Image:
    """A picture that says its number by its grey level."""
    return np.full((48, 64, 3), 16 + 7 * k, np.uint8)


def noisy(k: int) -> UInt8Image:
    """A picture that takes many bytes."""
    return np.random.default_rng(k).integers(0, 256, (120, 160, 3), dtype=np.uint8)


def numbers(path: Path, fps: float) -> list[int]:
    """Which pictures a clip shows."""
    return [round((float(image.mean()) - 16) / 7) for image in read_clip(path, fps)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov"])
@pytest.mark.parametrize("rate", [25, 30])
def test_a_clip_of_that_rate_gives_exactly_its_frames(tmp_path: Path, suffix: str, rate: int) -> None:
    path = tmp_path / f"clip.{suffix}"
    write_video(path, 30, level, rate=rate)
    assert numbers(path, rate) == list(range(30))
    for one, (_, other) in zip(read_clip(path, rate), read_frames(path, range(30)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_another_rate_repeats_and_leaves_out_by_time(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    write_video(path, 30, level, rate=30)
    assert numbers(path, 60) == [k // 2 for k in range(60)]
    assert numbers(path, 15) == list(range(0, 30, 2))
    # 24 / 30 of the way: frame floor(30 k / 24) has begun at k / 24 s.
    assert numbers(path, 24) == [30 * k // 24 for k in range(24)]


def test_a_varying_rate_is_followed_by_its_time_stamps(tmp_path: Path) -> None:
    ticks = [0, 33, 67, 200, 210, 220, 300, 600]
    write_video(tmp_path / "vfr.mkv", len(ticks), level, ticks=ticks)
    shown = numbers(tmp_path / "vfr.mkv", 30)
    grid_ms = [Fraction(1000 * k, 30) for k in range(len(shown))]
    # Half a millisecond is how well the container knows its times.
    assert shown == [max(i for i, tick in enumerate(ticks) if tick <= at + Fraction(1, 2)) for at in grid_ms]
    assert shown[:10] == [0, 1, 2, 2, 2, 2, 3, 5, 5, 6] and shown[18] == 7


def test_the_grid_begins_at_the_first_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "late.mkv", 4, level, ticks=[500, 600, 700, 800])
    assert numbers(tmp_path / "late.mkv", 10)[:4] == [0, 1, 2, 3]


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_clip_is_turned_as_its_metadata_says(tmp_path: Path, degrees: int) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32] = 200
    write_video(tmp_path / "turned.mp4", 3, lambda _: image, degrees=degrees)
    seen = next(read_clip(tmp_path / "turned.mp4", 30))
    np.testing.assert_allclose(seen.astype(int), np.rot90(image, degrees // 90).astype(int), atol=30)
    assert (seen > 100).mean() == pytest.approx(0.25, abs=0.02)


def test_frames_of_one_video_are_the_same_each_time(tmp_path: Path) -> None:
    write_video(tmp_path / "noise.mp4", 8, noisy)
    for one, other in zip(read_clip(tmp_path / "noise.mp4", 30), read_clip(tmp_path / "noise.mp4", 30), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_video_of_no_frames_is_a_bad_file(tmp_path: Path) -> None:
    for suffix in ("mkv", "avi", "mp4"):
        path = tmp_path / f"none.{suffix}"
        write_video(path, 0, level)
        with pytest.raises(BadFileError, match=r"holds no picture|cannot be decoded after 0 frames"):
            list(read_clip(path, 30))
        with pytest.raises(BadFileError, match=r"holds no picture|cannot be read as a video"):
            frame_count(path)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    write_sound(tmp_path / "sound.m4a", np.zeros(4800))
    with pytest.raises(BadFileError, match="holds no picture stream"):
        list(read_clip(tmp_path / "sound.m4a", 30))


@pytest.mark.parametrize("suffix", ["avi", "mkv"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_clip_that_breaks_off_is_a_bad_file(tmp_path: Path, suffix: str, share: float) -> None:
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    write_video(whole, 40, noisy)
    content = whole.read_bytes()
    cut.write_bytes(content[: round(len(content) * share)])
    with pytest.raises(BadFileError, match=r"breaks off after|cannot be decoded after|is damaged at frame"):
        list(read_clip(cut, 30))


def test_a_file_that_is_no_video_is_a_bad_file(tmp_path: Path) -> None:
    for name, content in (("words.mp4", b"not a video at all"), ("empty.mp4", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadFileError, match=r"cannot be decoded after 0 frames \("):
            list(read_clip(tmp_path / name, 30))
    write_video(tmp_path / "whole.mp4", 20, noisy)
    (tmp_path / "half.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:20_000])
    with pytest.raises(BadFileError, match=r"cannot be decoded after 0 frames \("):
        list(read_clip(tmp_path / "half.mp4", 30))
