"""A generated MEAD: its folders and file names, one face that moves as is known, tones at known times.

``python tests/data/generated_mead.py DIR`` writes it, to try a launch with data=mead data.root=DIR.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from affect_hpc.data.corpora.source import UInt8Image

FPS, FRAMES = 30, 24
WIDTH, HEIGHT = 640, 360
STILL = (slice(15, 235), slice(105, 345))
"""Rows and columns of scikit-image's portrait that are pasted into each frame."""
ENLARGED = 1.5
GREY = 90
SOUND_RATE = 48_000
TONES_S = (0.2, 0.5)
"""When tones begin; each lasts TONE_S."""
TONE_S, TONE_HZ, LOUDNESS = 0.1, 1000, 0.5
TEST_ACTOR, OTHER_ACTORS = "M003", ("M005", "M007", "W011")


@dataclass(frozen=True)
class Talk:
    """One generated clip."""

    actor: str
    emotion: str
    level: int
    number: str
    sound: str = "file"
    """file: beside the video; inside: in it; none."""
    faceless: tuple[int, ...] = ()
    """Frames without the face."""

    @property
    def key(self) -> str:
        return f"{self.actor}_{self.emotion}_level_{self.level}_{self.number}"

    @property
    def video(self) -> str:
        return f"{self.actor}/video/front/{self.emotion}/level_{self.level}/{self.number}.mp4"

    @property
    def audio(self) -> str:
        return f"{self.actor}/audio/{self.emotion}/level_{self.level}/{self.number}.m4a"

    def place(self, k: int) -> tuple[int, int]:
        """Left and top of the still in frame ``k``: it sways by a few pixels."""
        turn = 2 * np.pi * k / FRAMES + len(self.key + self.number)
        return 130 + round(12 * np.sin(turn)), 15 + round(5 * np.cos(turn))

    def picture(self, k: int) -> UInt8Image:
        """Frame ``k``."""
        image = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
        if k not in self.faceless:
            left, top = self.place(k)
            face = still(ENLARGED)
            image[top : top + face.shape[0], left : left + face.shape[1]] = face[: HEIGHT - top]
        return image


TALKS: tuple[Talk, ...] = (
    Talk(TEST_ACTOR, "neutral", 1, "001"),
    Talk(TEST_ACTOR, "fear", 3, "014"),
    *(Talk(actor, "neutral", 1, "001") for actor in OTHER_ACTORS),
    Talk("M005", "surprised", 2, "007"),
    Talk("M005", "contempt", 1, "030", sound="inside"),
    Talk("M007", "disgusted", 3, "002", sound="none"),
    Talk("W011", "angry", 2, "021", faceless=(0, 1, 2, 10)),
    Talk("W011", "sad", 1, "005", faceless=tuple(range(FRAMES))),
)


def still(scale: float) -> UInt8Image:
    """The face, enlarged."""
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the test face")
    image = Image.fromarray(data.astronaut()[STILL])
    return np.asarray(image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC))


def tones(seconds: float, rate: int = SOUND_RATE) -> npt.NDArray[np.float64]:
    """Silence with the tones, in [-1, 1]."""
    time = np.arange(round(seconds * rate)) / rate
    sounding = np.any([(time >= start) & (time < start + TONE_S) for start in TONES_S], axis=0)
    return LOUDNESS * np.sin(2 * np.pi * TONE_HZ * time) * sounding


def heard_tones_s(sound: npt.NDArray[np.int16], rate: int) -> list[float]:
    """When the tones of a sound begin, in s: where 5 ms are loud after 50 ms that were not."""
    size = rate // 200
    loud = np.abs(sound[: len(sound) // size * size].astype(float)).reshape(-1, size).max(axis=1) > 4000
    return [i * size / rate for i in np.flatnonzero(loud) if not loud[max(i - 10, 0) : i].any()]


def write_video(
    path: Path,
    count: int,
    picture: Callable[[int], UInt8Image],
    *,
    rate: int = FPS,
    ticks: Sequence[int] = (),
    unit: Fraction = Fraction(1, 1000),
    degrees: int = 0,
    sound: npt.NDArray[np.float64] | None = None,
    late_s: float = 0,
) -> None:
    """A video with H.264 pictures (MPEG-4 ones where this PyAV cannot encode that).

    Args:
        ticks: when each picture begins, in ``unit`` (s); by default they follow each other at ``rate``.
        degrees: by how much a player is to turn it.
        sound: samples at SOUND_RATE for a stream of its own.
        late_s: when the sound begins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        name = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        pictures = container.add_stream(name, rate=rate)
        pictures.height, pictures.width = picture(0).shape[:2] if count else (HEIGHT, WIDTH)
        pictures.pix_fmt, pictures.bit_rate = "yuv420p", 4_000_000
        if name == "libx264":
            pictures.options = {"preset": "ultrafast", "crf": "12"}
        if ticks:
            pictures.codec_context.time_base = unit
        if degrees:
            pictures.set_display_rotation(degrees)
        voice = None if sound is None else container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
            if ticks:
                frame.pts, frame.time_base = ticks[k], unit
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode())
        if voice is not None and sound is not None:
            _write_samples(container, voice, sound, round(late_s * SOUND_RATE))


def write_sound(path: Path, samples: npt.NDArray[np.float64], codec: str = "aac", rate: int = SOUND_RATE) -> None:
    """A sound file of one stream: (N,) samples, or (channels, N) of at most two."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        layout = "mono" if samples.ndim == 1 else "stereo"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        _write_samples(container, stream, samples, 0)


def _write_samples(
    container: "av.container.OutputContainer",
    stream: "av.AudioStream",
    samples: npt.NDArray[np.float64],
    start: int,
) -> None:
    planes = np.atleast_2d(samples)
    levels = np.clip(np.rint(planes * 32768), -32768, 32767).astype(np.int16)
    layout = "mono" if len(planes) == 1 else "stereo"
    for begin in range(0, levels.shape[1], 1024):
        piece = np.ascontiguousarray(levels[:, begin : begin + 1024].T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = stream.rate, start + begin, Fraction(1, stream.rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write_mead(root: Path, talks: Sequence[Talk] = TALKS) -> None:
    """The whole corpus, and a CSV of transcripts beside its folders."""
    voice = tones(FRAMES / FPS)
    for talk in talks:
        write_video(root / talk.video, FRAMES, talk.picture, sound=voice if talk.sound == "inside" else None)
        if talk.sound == "file":
            write_sound(root / talk.audio, voice)
    lines = [f"{talk.key},she had your dark suit" for talk in talks[:-1]]
    (root / "transcripts.csv").write_text("\n".join(["clip,text", *lines, "M099_happy_level_1_001,nobody"]) + "\n")


if __name__ == "__main__":
    write_mead(Path(sys.argv[1]))
