"""The corpus of drawn talking clips: who says what with which emotion, and how the head moves meanwhile."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from affect_hpc.config.corpora import DemoClipsDataConfig, DemoDataConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.data.clips import mask_rows
from affect_hpc.data.corpora.demo.drawing import draw_face
from affect_hpc.data.corpora.demo.expression import sample_expression
from affect_hpc.data.corpora.demo.identity import Identity, sample_identity
from affect_hpc.data.corpora.demo.landmarks import landmarks
from affect_hpc.data.corpora.demo.mouths import articulate, segments, visemes_at, with_speech
from affect_hpc.data.corpora.demo.source import DemoSource
from affect_hpc.data.corpora.demo.speech import speak
from affect_hpc.data.corpora.source import Clip, Findings, ShardPlan

_STREAM = 33  # faces and expressions use others

VOCABULARY: tuple[str, ...] = tuple(
    "apple bath beach blue boat book bread brown cheese chair cloud coffee door dream father fish five flower garden"
    " green happy horse house jump king lamp leaf mother moon mouth nine paper piano purple queen river rose shoe"
    " silver smile snow spoon star summer sun table thumb tree umbrella violin voice water window wolf yellow"
    " zebra".split()
)
"""Plain words; said by eSpeak NG they show every viseme."""
LEVEL = "level_1"
MASK_MARGIN_PX = 5
"""As MEAD's: how far above the mouth the masked rows begin, at 128 px."""

BLINK_S = 0.2
"""From open to open."""
SECONDS_BETWEEN_BLINKS = (1.5, 4.0)


class DemoClipsSource:
    """Talking clips drawn by sample index (see corpora/source.py for the protocol).

    Who shows which emotion is as in the corpus of drawn faces: the splits share no identity. A clip hangs on its
    index, the seed and the voice alone.

    Args:
        config: with ``voice`` settled: espeak or tones.
    """

    def __init__(self, config: DemoClipsDataConfig) -> None:
        self.config = config
        self.findings = Findings()
        self._cast = DemoSource(
            DemoDataConfig(
                name=config.name,
                size=config.size,
                samples_per_shard=config.samples_per_shard,
                train_samples=config.train_samples,
                val_samples=config.val_samples,
                emotions_per_identity=config.emotions_per_identity,
                seed=config.seed,
            )
        )

    def shards(self) -> list[ShardPlan]:
        """All shards, train first."""
        return self._cast.shards()

    def samples(self, shard: ShardPlan) -> Iterator[Clip]:
        """Draw the clips of one shard."""
        for index in shard.units:
            yield self._clip(shard.split, index)

    def facts(self) -> dict[str, Any]:
        """The voice, since another one is another corpus."""
        return {"voice": self.config.voice, "voice_version": self.config.voice_version}

    def verdict(self) -> None:
        """Drawn clips are always good."""

    def _clip(self, split: str, index: int) -> Clip:
        config = self.config
        number, label = self._cast.subject(split, index)
        rng = np.random.default_rng([_STREAM, config.seed, number, label])
        text = " ".join(rng.choice(VOCABULARY, size=config.words, replace=False).tolist())
        speech = speak(text, config.voice, config.sample_rate)
        # What is left of a frame at the end is cut: nothing but silence.
        count = int(len(speech.sound) * config.fps / config.sample_rate)
        length_s = count / config.fps
        times_s = (np.arange(count, dtype=np.float64) + 0.5) / config.fps
        timeline = segments(speech.phones, length_s)
        mouths = articulate(timeline, times_s, 1 / config.fps)
        head, blinks = HeadMotion.sample(rng), blinking(rng, times_s)

        person = sample_identity(number, config.seed)
        feeling = sample_expression(EMOTIONS[label], number, config.seed)
        poses = [head.at(person, time_s) for time_s in times_s.tolist()]
        faces = [
            replace(with_speech(feeling, mouth), blink=blink)
            for mouth, blink in zip(mouths, blinks.tolist(), strict=True)
        ]
        drawn = list(zip(poses, faces, strict=True))
        points = np.stack([landmarks(pose, face, config.size) for pose, face in drawn])
        return Clip(
            key=f"{split}-{index:07d}",
            frames=[draw_face(pose, face, config.size) for pose, face in drawn],
            label=label,
            identity=f"demo-{number}",
            source=f"demo clip seed {config.seed} identity {number} {EMOTIONS[label]} {config.voice}",
            fps=config.fps,
            landmarks=points,
            mask_row=mask_rows(points, config.size, MASK_MARGIN_PX),
            sound=speech.sound[: round(length_s * config.sample_rate)],
            sample_rate=config.sample_rate,
            more={
                "level": LEVEL,
                "actor": f"demo-{number}",
                "emotion": EMOTIONS[label],
                "transcript": text,
                "phones": [[phone.symbol, round(phone.begin_s, 6), round(phone.end_s, 6)] for phone in speech.phones],
                "visemes": visemes_at(timeline, times_s),
            },
        )


@dataclass(frozen=True)
class HeadMotion:
    """Slow swaying of a head while it speaks: a sine each for shift and roll."""

    amplitude: tuple[float, float, float]
    """Of shift_x and shift_y in units of 1/64 of the image, and of roll in radians."""
    hertz: tuple[float, float, float]
    phase: tuple[float, float, float]
    """In radians."""

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "HeadMotion":
        """A motion of its own for each clip."""
        x, y, roll = rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.4), np.radians(rng.uniform(0.4, 1.6))
        hertz, phase = rng.uniform(0.15, 0.6, 3), rng.uniform(0, 2 * np.pi, 3)
        return cls((x, y, float(roll)), tuple(hertz.tolist()), tuple(phase.tolist()))

    def at(self, person: Identity, time_s: float) -> Identity:
        """``person`` with the head as it is held at a time."""
        angle = 2 * np.pi * np.array(self.hertz) * time_s + np.array(self.phase)
        x, y, roll = (np.array(self.amplitude) * np.sin(angle)).tolist()
        return replace(person, shift_x=person.shift_x + x, shift_y=person.shift_y + y, roll=person.roll + roll)


def blinking(rng: np.random.Generator, times_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How far the lids are shut at each time (T,), 0 to 1."""
    shut = np.zeros(len(times_s))
    at_s = rng.uniform(0.3, SECONDS_BETWEEN_BLINKS[1])
    while len(times_s) and at_s < times_s[-1] + BLINK_S:
        shut = np.maximum(shut, np.clip(1.3 - np.abs(times_s - at_s) / (BLINK_S / 2), 0, 1))
        at_s += rng.uniform(*SECONDS_BETWEEN_BLINKS)
    return shut
