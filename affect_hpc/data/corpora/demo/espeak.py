"""A program that speaks one sentence with eSpeak NG and ends; see speech.py.

The library carries state from one sentence to the next that nothing resets: only in a process of its own does a
sentence always sound the same. It is run by its path, so it imports the standard library alone and starts in 30 ms.

In: a line of JSON with ``library``, ``voice``, ``words_per_minute`` and ``text``. Out: a line of JSON with ``rate`` in
Hz and ``phones`` as [IPA symbol, begin in s, end in s], then the samples as 16-bit integers. Exit code 3: no library.
"""

import ctypes
import json
import sys
from itertools import pairwise
from typing import Any

NO_LIBRARY = 3

_SYNCHRONOUS = 2
_PHONE_EVENTS, _IPA, _RETURN_ON_FAILURE = 0x0001, 0x0002, 0x8000
_UTF8, _CHARACTERS = 1, 1
_RATE = 1
_END_OF_LIST, _END_OF_CLAUSE, _PHONE = 0, 5, 7


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_void_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """espeak_EVENT of espeak-ng/speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


def synthesise(library: Any, voice: str, words_per_minute: int, text: str) -> tuple[int, list[list[Any]], bytes]:
    """Rate in Hz, phones and samples of ``text``, spoken by the loaded ``library``."""
    sound = bytearray()
    marks: list[tuple[str, float]] = []  # what begins, and when; an empty name is a pause

    def receive(samples: int | None, count: int, events: Any) -> int:
        if samples and count > 0:
            sound.extend(ctypes.string_at(samples, 2 * count))
        position = 0
        while events[position].type != _END_OF_LIST:
            event = events[position]
            if event.type == _PHONE:
                marks.append((event.id.string.decode("utf-8"), event.audio_position / 1000))
            elif event.type == _END_OF_CLAUSE:
                marks.append(("", event.audio_position / 1000))
            position += 1
        return 0

    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONE_EVENTS | _IPA | _RETURN_ON_FAILURE)
    if rate <= 0:
        raise RuntimeError("eSpeak NG does not find its data (espeak-ng-data)")
    callback = _Callback(receive)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise RuntimeError(f"eSpeak NG has no voice {voice}")
    library.espeak_SetParameter(_RATE, words_per_minute, 0)
    content = text.encode()
    library.espeak_Synth.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
        *(ctypes.c_void_p, ctypes.c_void_p),
    ]
    if library.espeak_Synth(content, len(content) + 1, 0, _CHARACTERS, 0, _UTF8, None, None) != 0:
        raise RuntimeError("eSpeak NG refuses the text")
    marks.append(("", len(sound) / 2 / rate))
    phones = [[symbol, begin, end] for (symbol, begin), (_, end) in pairwise(marks) if symbol and end > begin]
    return rate, phones, bytes(sound)


def main() -> int:
    """Read the order from stdin, write the answer to stdout."""
    order = json.loads(sys.stdin.readline())
    try:
        library = ctypes.CDLL(order["library"])
    except OSError:
        return NO_LIBRARY
    rate, phones, sound = synthesise(library, order["voice"], order["words_per_minute"], order["text"])
    sys.stdout.buffer.write(json.dumps({"rate": rate, "phones": phones}).encode() + b"\n" + sound)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
