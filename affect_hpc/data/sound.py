"""Sound files, and the sound of videos -> samples at a fixed rate. What cannot be read raises BadFileError."""

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from affect_hpc.data.media import BREAK_TOLERANCE, BadFileError, reason_of

Samples = npt.NDArray[np.int16]

FULL_SCALE = 32768
MAX_OFFSET_S = 60.0
"""Sound that begins longer than this before or after the picture has damaged time stamps."""


def read_sound(path: Path, rate: int) -> Samples:
    """(N,) samples of a file's first sound stream, all channels averaged, resampled to ``rate`` Hz.

    Where the file holds pictures too, the samples begin when its first picture does: sound before it is cut, missing
    sound is silence.

    Raises:
        BadFileError: the file cannot be opened, holds no sound, is damaged or breaks off.
    """
    parts: list[npt.NDArray[np.float32]] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise BadFileError("holds no sound stream")
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="fltp", rate=rate)
            began_s = None
            for frame in container.decode(stream):
                if began_s is None:
                    began_s = float(frame.time or 0)
                parts += [piece.to_ndarray().mean(axis=0) for piece in resampler.resample(frame)]
            if began_s is None:
                raise BadFileError("holds no sound")
            parts += [piece.to_ndarray().mean(axis=0) for piece in resampler.resample(None)]
            promised_s = float((stream.duration or 0) * (stream.time_base or 0))
            picture_s = _first_picture_s(container)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadFileError(f"cannot be read as sound ({reason_of(error)})") from error
    wave = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if len(wave) < BREAK_TOLERANCE * promised_s * rate:
        raise BadFileError(f"breaks off after {len(wave) / rate:.1f} s, though its header promises {promised_s:.1f} s")
    samples = np.clip(np.rint(wave * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    return samples if picture_s is None else shifted(samples, began_s - picture_s, rate)


def shifted(samples: Samples, late_s: float, rate: int) -> Samples:
    """Sound that begins ``late_s`` after the picture (before, if negative), made to begin with it."""
    if abs(late_s) > MAX_OFFSET_S:
        raise BadFileError(f"has sound that begins {late_s:.0f} s after the picture")
    late = round(late_s * rate)
    return np.pad(samples, (late, 0)) if late > 0 else samples[-late:]


def fitted(samples: Samples, count: int) -> Samples:
    """The first ``count`` samples, with silence behind them where there are fewer."""
    return np.pad(samples[:count], (0, max(count - len(samples), 0)))


def _first_picture_s(container: "av.container.InputContainer") -> float | None:
    for stream in container.streams.video:
        is_cover = bool(stream.disposition & av.stream.Disposition.attached_pic)
        if not is_cover and stream.start_time is not None:
            return float(stream.start_time * stream.time_base)
    return None
