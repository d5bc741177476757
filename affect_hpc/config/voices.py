"""Which voices speak here. Asked by the plan, so it loads the synthesiser's library and never lets it speak."""

import ctypes

from affect_hpc.config.checks import one_of
from affect_hpc.core.errors import UserError

VOICES: tuple[str, ...] = ("espeak", "tones")
ESPEAK_LIBRARY = "libespeak-ng.so.1"
WITHOUT_ESPEAK = (
    f"data.voice=espeak needs {ESPEAK_LIBRARY}, which is not installed here: install eSpeak NG (Debian and Ubuntu: "
    "apt-get install espeak-ng), or set data.voice=tones, which needs nothing."
)


def settle_voice(name: str) -> tuple[str, str]:
    """The voice ``name``, or for auto the one that is here (espeak before tones), and its version.

    Raises:
        UserError: unknown, or eSpeak NG is not installed.
    """
    one_of("data.voice", name, ("auto", *VOICES))
    if name == "tones":
        return name, ""
    version = espeak_version()
    if version:
        return "espeak", version
    if name == "auto":
        return "tones", ""
    raise UserError(WITHOUT_ESPEAK)


def espeak_version() -> str:
    """Version of the eSpeak NG library; empty where it is not installed."""
    try:
        library = ctypes.CDLL(ESPEAK_LIBRARY)
    except OSError:
        return ""
    library.espeak_Info.restype = ctypes.c_char_p
    library.espeak_Info.argtypes = [ctypes.c_void_p]
    version: bytes = library.espeak_Info(None)
    return version.decode()
