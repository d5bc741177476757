"""Speech for the drawn clips: the same samples every time, phones where they are heard, and tones that can be read."""

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from heard_tones import ALPHABET, needs_espeak, read_tones

from affect_hpc.config import voices
from affect_hpc.config.corpora import DemoClipsDataConfig
from affect_hpc.config.voices import espeak_version, settle_voice
from affect_hpc.core.errors import UserError
from affect_hpc.data.corpora.demo import speech
from affect_hpc.data.corpora.demo.speech import LETTER_S, PAUSE_S, PHONE_OF_LETTER, Speech, letter_tones, speak

RATE = 16_000


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("text", ["boat wish mother", ALPHABET, " ".join(ALPHABET[::-1])])
def test_tones_are_read_back_exactly(text: str, rate: int) -> None:
    assert read_tones(speak(text, "tones", rate).sound, rate) == text


def test_no_two_letters_share_their_tones() -> None:
    assert all(letter_tones(a) != letter_tones(b) for a, b in combinations(ALPHABET, 2))


def test_tones_last_as_long_as_they_have_letters() -> None:
    spoken = speak("a boat", "tones", RATE)
    assert len(spoken.sound) == round((2 * PAUSE_S + 6 * LETTER_S) * RATE)
    assert [phone.symbol for phone in spoken.phones] == [PHONE_OF_LETTER[letter] for letter in "aboat"]
    begins = [PAUSE_S + LETTER_S * place for place in (0, 2, 3, 4, 5)]
    assert [phone.begin_s for phone in spoken.phones] == pytest.approx(begins)
    assert [phone.end_s for phone in spoken.phones] == pytest.approx([begin + LETTER_S for begin in begins])


def test_tones_begin_and_end_without_a_click() -> None:
    spoken = speak("aq", "tones", RATE)
    begin = round(PAUSE_S * RATE)
    for edge in (begin, begin + round(LETTER_S * RATE), len(spoken.sound) - begin):
        assert np.abs(spoken.sound[edge - 4 : edge + 4]).max() < 0.02 * np.abs(spoken.sound).max()


def test_what_has_no_tone_is_named() -> None:
    with pytest.raises(UserError, match=r"no tone for '!', 'é' in 'café!'.*a to z.*espeak"):
        speak("café!", "tones", RATE)


def test_an_unknown_voice_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(UserError, match=r"data.voice='robot'.*espeak, tones"):
        speak("boat", "robot", RATE)


def loudness(spoken: Speech, begin_s: float, end_s: float) -> float:
    """Root mean square in 16-bit levels."""
    part = spoken.sound[round(begin_s * RATE) : round(end_s * RATE)].astype(float)
    return float(np.sqrt((part**2).mean()))


@needs_espeak
def test_espeak_says_the_same_whatever_it_said_before() -> None:
    first = speak("boat wish mother", "espeak", RATE)
    other = speak("five zebra umbrella", "espeak", RATE)
    again = speak("boat wish mother", "espeak", RATE)
    np.testing.assert_array_equal(first.sound, again.sound)
    assert first.phones == again.phones != other.phones


@needs_espeak
def test_espeak_says_the_phones_of_the_words() -> None:
    spoken = speak("boat fish mouse", "espeak", RATE)
    assert [phone.symbol for phone in spoken.phones] == ["b", "oʊ", "t", "f", "ɪ", "ʃ", "m", "aʊ", "s"]


@needs_espeak
def test_phones_follow_each_other_within_the_sound() -> None:
    spoken = speak("happy umbrella spoon", "espeak", RATE)
    assert all(phone.begin_s < phone.end_s for phone in spoken.phones)
    assert all(a.end_s <= b.begin_s for a, b in pairwise(spoken.phones))
    assert spoken.phones[0].begin_s >= PAUSE_S
    # Its own closing silence lies between the last phone and the pause.
    assert len(spoken.sound) / RATE - 2 * PAUSE_S < spoken.phones[-1].end_s <= len(spoken.sound) / RATE - PAUSE_S
    assert not spoken.sound[: round(PAUSE_S * RATE)].any() and not spoken.sound[-round(PAUSE_S * RATE) :].any()


@needs_espeak
def test_vowels_are_heard_where_they_stand() -> None:
    spoken = speak("happy coffee water", "espeak", RATE)
    levels = {phone.symbol: loudness(spoken, phone.begin_s, phone.end_s) for phone in spoken.phones}
    consonants = [level for symbol, level in levels.items() if symbol in ("h", "p", "k", "f")]
    vowels = [level for symbol, level in levels.items() if symbol in ("æ", "ɔ", "ɔː", "ɚ")]
    assert len(consonants) == len(vowels) == 4
    assert min(vowels) > 2 * max(consonants)


@needs_espeak
def test_a_stop_between_vowels_begins_with_its_silence() -> None:
    spoken = speak("happy paper", "espeak", RATE)
    stops = [phone for phone in spoken.phones if phone.symbol == "p"]
    assert len(stops) == 3
    for stop in stops:
        assert loudness(spoken, stop.begin_s - 0.02, stop.begin_s) > 200
        assert loudness(spoken, stop.begin_s, stop.begin_s + 0.03) < 20
        assert loudness(spoken, stop.end_s - 0.02, stop.end_s) > 200


@needs_espeak
def test_another_rate_is_the_same_speech() -> None:
    low, high = speak("river", "espeak", 8000), speak("river", "espeak", 48_000)
    assert len(high.sound) / 48_000 == pytest.approx(len(low.sound) / 8000, abs=1e-3)
    assert [phone.symbol for phone in low.phones] == [phone.symbol for phone in high.phones]
    times = [[phone.begin_s for phone in one.phones] for one in (low, high)]
    assert times[0] == pytest.approx(times[1], abs=1e-3)


@pytest.fixture
def no_espeak(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (voices, speech):
        monkeypatch.setattr(module, "ESPEAK_LIBRARY", "libabsent-speech.so.1")


@pytest.mark.usefixtures("no_espeak")
def test_without_espeak_auto_takes_tones_and_espeak_says_how_to_get_it() -> None:
    assert settle_voice("auto") == settle_voice("tones") == ("tones", "")
    for ask in (lambda: settle_voice("espeak"), lambda: speak("boat", "espeak", RATE)):
        with pytest.raises(UserError, match="apt-get install espeak-ng"):
            ask()


@needs_espeak
def test_with_espeak_the_plan_remembers_its_version() -> None:
    assert settle_voice("auto") == settle_voice("espeak") == ("espeak", espeak_version())


def test_the_plan_settles_the_voice(tmp_path: Path) -> None:
    config = DemoClipsDataConfig("demo_clips", 64, 4, train_samples=8, val_samples=8)
    assert (config.voice, config.settled(tmp_path).voice) == ("auto", settle_voice("auto")[0])
    config.voice = "robot"
    with pytest.raises(UserError, match=r"data.voice='robot'.*auto, espeak, tones"):
        config.check()
