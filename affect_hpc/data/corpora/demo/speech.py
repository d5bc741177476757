"""From a sentence to its sound, and when each phone is heard."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from affect_hpc.config.checks import one_of
from affect_hpc.config.voices import ESPEAK_LIBRARY, VOICES, WITHOUT_ESPEAK
from affect_hpc.core.errors import UserError
from affect_hpc.data.corpora.demo import espeak

Samples = npt.NDArray[np.int16]

PAUSE_S = 0.2
"""Silence before the first phone and after the last one."""

ESPEAK_VOICE = "en-us"
WORDS_PER_MINUTE = 130
"""A little slower than eSpeak NG's own 175: the shortest phones still last about a frame."""
TIME_LIMIT_S = 60
_STOPS = "ptkbdɡ"
_SILENT = 0.004  # of full scale

LETTER_S = 0.12
"""tones: length of a letter, and of the silence between words."""
_FADE_S = 0.015
_LOUDNESS = 0.35  # of full scale, for each of the two tones
_LOW_HZ = tuple(range(300, 900, 120))
_HIGH_HZ = tuple(range(1200, 2640, 240))
PHONE_OF_LETTER: Mapping[str, str] = {
    **{"a": "æ", "b": "b", "c": "k", "d": "d", "e": "ɛ", "f": "f", "g": "ɡ", "h": "h", "i": "ɪ", "j": "dʒ"},
    **{"k": "k", "l": "l", "m": "m", "n": "n", "o": "ɔ", "p": "p", "q": "k", "r": "ɹ", "s": "s", "t": "t"},
    **{"u": "ʊ", "v": "v", "w": "w", "x": "s", "y": "j", "z": "z"},
}
"""tones: the phone, in IPA, that a letter stands for; spelling is taken as it stands."""


@dataclass(frozen=True)
class Phone:
    """One sound of speech."""

    symbol: str
    """IPA"""
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class Speech:
    """A spoken sentence."""

    sound: Samples
    """(N,) mono; it begins and ends with PAUSE_S of silence."""
    phones: tuple[Phone, ...]
    """In order, without overlap; where there is none, there is a pause."""


def speak(text: str, voice: str, rate: int) -> Speech:
    """``text`` as sound at ``rate`` Hz; always the same for the same arguments (and version of eSpeak NG).

    Args:
        text: English; for tones the letters a to z and single spaces.
        voice: espeak, a formant synthesiser; or tones, two sines for each letter, from which the text can be read
            back.

    Raises:
        UserError: unknown voice, eSpeak NG is not installed, or tones has no tone for a character.
    """
    one_of("data.voice", voice, VOICES)
    spoken = _with_espeak(text, rate) if voice == "espeak" else _with_tones(text, rate)
    pause = np.zeros(round(PAUSE_S * rate), np.int16)
    # The pause in whole samples, so that phones stay where they are heard.
    late = len(pause) / rate
    phones = (Phone(phone.symbol, phone.begin_s + late, phone.end_s + late) for phone in spoken.phones)
    return Speech(np.concatenate([pause, spoken.sound, pause]), tuple(phones))


def letter_tones(letter: str) -> tuple[int, int]:
    """The two frequencies in Hz of a letter from a to z; no two letters share both."""
    row, column = divmod(ord(letter) - ord("a"), len(_HIGH_HZ))
    return _LOW_HZ[row], _HIGH_HZ[column]


def _with_tones(text: str, rate: int) -> Speech:
    unknown = sorted(set(text) - set(PHONE_OF_LETTER) - {" "})
    if unknown:
        raise UserError(
            f"data.voice=tones has no tone for {', '.join(map(repr, unknown))} in {text!r}: use the letters a to z and"
            " spaces, or data.voice=espeak."
        )
    count = round(LETTER_S * rate)
    time_s = np.arange(count) / rate
    # Fades in and out, else each letter would begin with a click.
    envelope = np.clip(np.minimum(time_s, time_s[::-1]) / _FADE_S, 0, 1)
    sound = np.zeros((len(text), count))
    phones = []
    for place, letter in enumerate(text):
        if letter != " ":
            tones = sum(np.sin(2 * np.pi * hertz * time_s) for hertz in letter_tones(letter))
            sound[place] = _LOUDNESS * envelope * tones
            phones.append(Phone(PHONE_OF_LETTER[letter], place * count / rate, (place + 1) * count / rate))
    return Speech(_as_samples(sound.reshape(-1)), tuple(phones))


def _with_espeak(text: str, rate: int) -> Speech:
    order = {"library": ESPEAK_LIBRARY, "voice": ESPEAK_VOICE, "words_per_minute": WORDS_PER_MINUTE, "text": text}
    answer = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(espeak.__file__))],
        input=json.dumps(order).encode(),
        capture_output=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    if answer.returncode == espeak.NO_LIBRARY:
        raise UserError(WITHOUT_ESPEAK)
    if answer.returncode != 0:
        reason = answer.stderr.decode(errors="replace").strip() or f"exit code {answer.returncode}"
        raise RuntimeError(f"eSpeak NG did not speak {text!r}: {reason.splitlines()[-1]}")
    head, _, content = answer.stdout.partition(b"\n")
    told = json.loads(head)
    own_rate = int(told["rate"])
    shared = math.gcd(rate, own_rate)
    wave = np.frombuffer(content, "<i2") / 2**15
    sound = _as_samples(resample_poly(wave, rate // shared, own_rate // shared))
    phones = [Phone(*phone) for phone in told["phones"]]
    return Speech(sound, tuple(_with_closures(phones, np.abs(wave) > _SILENT, own_rate)))


def _with_closures(phones: list[Phone], is_loud: npt.NDArray[np.bool_], rate: int) -> list[Phone]:
    """Phones whose stops begin when the mouth shuts, not when it bursts open.

    eSpeak NG counts the silence in the middle of "happy" to the vowel before; but the lips shut when it begins.
    """
    found = list(phones)
    for place in range(1, len(phones)):
        before, stop = found[place - 1], phones[place]
        first, last = round(before.begin_s * rate), round(stop.begin_s * rate)
        loud = np.flatnonzero(is_loud[first:last])
        if stop.symbol[0] in _STOPS and before.end_s == stop.begin_s and len(loud):
            shut_s = (first + int(loud[-1]) + 1) / rate
            found[place - 1], found[place] = replace(before, end_s=shut_s), replace(stop, begin_s=shut_s)
    return found


def _as_samples(wave: npt.NDArray[np.float64]) -> Samples:
    return np.clip(np.rint(wave * 2**15), -(2**15), 2**15 - 1).astype(np.int16)
