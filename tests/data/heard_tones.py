"""Reads a sentence in tones back from its sound, by the frequencies alone."""

import numpy as np
import pytest

from affect_hpc.config.voices import espeak_version
from affect_hpc.data.corpora.demo.speech import LETTER_S, PAUSE_S, Samples, letter_tones

ALPHABET = "abcdefghijklmnopqrstuvwxyz"

needs_espeak = pytest.mark.skipif(not espeak_version(), reason="eSpeak NG is not installed")


def read_tones(sound: Samples, rate: int) -> str:
    """The text of a sentence in tones, from its sound alone: the letter whose two tones are strongest in each slot."""
    pause, count = round(PAUSE_S * rate), round(LETTER_S * rate)
    slots = sound[pause:-pause].astype(float).reshape(-1, count)
    time_s = np.arange(count) / rate

    def strength(hertz: int) -> np.ndarray:
        return np.abs(np.einsum("st,t->s", slots, np.exp(-2j * np.pi * hertz * time_s)))

    scores = np.stack([strength(low) * strength(high) for low, high in map(letter_tones, ALPHABET)])
    letters = [ALPHABET[best] for best in scores.argmax(axis=0)]
    return "".join(letter if slot.any() else " " for letter, slot in zip(letters, slots, strict=True))
