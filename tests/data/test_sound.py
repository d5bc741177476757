"""Sound: known samples come back, known tones stand at their times, also beside pictures that begin later."""

import wave
from pathlib import Path

import numpy as np
import pytest
from generated_mead import FPS, TONE_S, TONES_S, heard_tones_s, tones, write_sound, write_video

from affect_hpc.data.corpora.source import UInt8Image
from affect_hpc.data.media import BadFileError, read_clip
from affect_hpc.data.sound import fitted, read_sound, shifted

RATE = 16_000


def tone(hz: float, seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def test_lossless_sound_of_that_rate_is_returned_as_it_is(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(-32768, 32768, 5000)
    for name, codec in (("a.wav", "pcm_s16le"), ("a.flac", "flac")):
        write_sound(tmp_path / name, levels / 32768, codec, RATE)
        np.testing.assert_array_equal(read_sound(tmp_path / name, RATE), levels)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = np.random.default_rng(1).integers(-16000, 16000, (2, 4000)) * 2
    write_sound(tmp_path / "two.wav", np.stack([left, right]) / 32768, "pcm_s16le", RATE)
    np.testing.assert_array_equal(read_sound(tmp_path / "two.wav", RATE), (left + right) // 2)


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_another_rate_gives_the_same_tone(tmp_path: Path, rate: int) -> None:
    write_sound(tmp_path / "tone.wav", tone(440, 0.5, rate), "pcm_s16le", rate)
    sound = read_sound(tmp_path / "tone.wav", RATE) / 32768
    assert len(sound) == pytest.approx(0.5 * RATE, abs=2)
    inner = slice(400, 7600)  # the filter rings at both ends
    np.testing.assert_allclose(sound[inner], tone(440, 0.5, RATE)[inner], atol=0.002)


def test_tones_of_a_compressed_file_stand_at_their_times(tmp_path: Path) -> None:
    write_sound(tmp_path / "tones.m4a", tones(0.8))
    assert heard_tones_s(read_sound(tmp_path / "tones.m4a", RATE), RATE) == pytest.approx(TONES_S, abs=0.006)


def flash(k: int) -> UInt8Image:
    """White while a tone sounds."""
    white = any(start - 1e-9 <= k / FPS < start + TONE_S - 1e-9 for start in TONES_S)
    return np.full((48, 64, 3), 230 if white else 20, np.uint8)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("late_ms", [0, 100])
def test_sound_of_a_video_is_in_step_with_its_pictures(tmp_path: Path, suffix: str, late_ms: int) -> None:
    """The pictures begin at late_ms of the file, the sound at 0: what was heard before the first picture goes."""
    path = tmp_path / f"flash.{suffix}"
    ticks = [round(1000 * k / FPS) + late_ms for k in range(24)]
    before = np.zeros(late_ms * 48)
    write_video(path, 24, flash, ticks=ticks, sound=np.concatenate([before, tones(0.8)]))
    bright = [image.mean() > 120 for image in read_clip(path, FPS)]
    seen = [k / FPS for k in range(1, len(bright)) if bright[k] and not bright[k - 1]]
    heard = heard_tones_s(read_sound(path, RATE), RATE)
    assert heard == pytest.approx(seen, abs=0.5 / FPS)
    assert heard == pytest.approx(TONES_S, abs=0.006)


def test_sound_that_begins_after_the_picture_is_preceded_by_silence(tmp_path: Path) -> None:
    write_video(tmp_path / "late.mkv", 24, flash, sound=tones(0.6), late_s=0.2)
    sound = read_sound(tmp_path / "late.mkv", RATE)
    assert heard_tones_s(sound, RATE) == pytest.approx([start + 0.2 for start in TONES_S], abs=0.006)
    assert not sound[: round(0.15 * RATE)].any()


def test_shifting_there_and_back_is_nothing() -> None:
    samples = np.arange(1, 101, dtype=np.int16)
    assert (shifted(samples, 0, 100) == samples).all()
    assert (shifted(shifted(samples, 0.3, 100), -0.3, 100) == samples).all()
    assert (shifted(samples, -0.3, 100) == samples[30:]).all()
    with pytest.raises(BadFileError, match="begins 7200 s after the picture"):
        shifted(samples, 7200, 100)


def test_sound_is_cut_or_padded_to_a_length() -> None:
    samples = np.arange(1, 6, dtype=np.int16)
    assert fitted(samples, 3).tolist() == [1, 2, 3]
    assert fitted(samples, 5).tolist() == [1, 2, 3, 4, 5]
    assert fitted(samples, 7).tolist() == [1, 2, 3, 4, 5, 0, 0]


def test_files_without_usable_sound_say_why(tmp_path: Path) -> None:
    write_video(tmp_path / "silent.mp4", 3, flash)
    write_sound(tmp_path / "whole.m4a", tones(0.8))
    (tmp_path / "half.m4a").write_bytes((tmp_path / "whole.m4a").read_bytes()[:1500])
    (tmp_path / "empty.wav").write_bytes(b"")
    with wave.open(str(tmp_path / "nothing.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
    write_sound(tmp_path / "long.flac", np.random.default_rng(0).uniform(-1, 1, RATE), "flac", RATE)
    content = (tmp_path / "long.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    for name, reason in {
        "silent.mp4": "holds no sound stream",
        "half.m4a": r"cannot be read as sound \(",
        "empty.wav": r"cannot be read as sound \(",
        "nothing.wav": "holds no sound",
        "cut.flac": r"breaks off after 0\.\d s, though its header promises 1\.0 s|cannot be read as sound \(",
    }.items():
        with pytest.raises(BadFileError, match=reason):
            read_sound(tmp_path / name, RATE)
