"""Photos and videos -> RGB images. What cannot be read raises BadFileError with the reason, never anything else."""

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from affect_hpc.data.source import UInt8Image

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded."""
BREAK_TOLERANCE = 0.9
"""A video whose frames end before this share of what its container promises is damaged; containers also count frames
that are never shown."""
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


class BadFileError(Exception):
    """A file that cannot be used; its text is the reason, to be put after the file's name."""


def read_photo(path: Path) -> UInt8Image:
    """The (H, W, 3) RGB image of a photo, upright as its EXIF orientation says."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, lower warning of large images; remarks on odd metadata
            with Image.open(path, formats=PHOTO_FORMATS) as image:
                _check_size(image.width, image.height)
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Image.DecompressionBombError:
        raise BadFileError(f"is larger than {MAX_PIXELS // 10**6} megapixels") from None
    except UnidentifiedImageError:
        raise BadFileError(f"is no image in one of the formats {', '.join(PHOTO_FORMATS)}") from None
    # Pillow's decoders raise all of these for damaged files.
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error, zlib.error) as error:
        raise BadFileError(f"cannot be read ({_reason(error)})") from error


def frame_count(path: Path) -> int:
    """Frames of a video, without decoding: from its header, else by counting its packets."""
    try:
        with av.open(str(path)) as container:
            stream = _stream(container)
            if stream.frames:
                return int(stream.frames)
            sizes_and_times = [(packet.size, packet.pts or 0) for packet in container.demux(stream)]
            lasts_s = max(time for _, time in sizes_and_times) * float(stream.time_base or 0)
            promised_s = (container.duration or 0) / av.time_base
            if lasts_s < BREAK_TOLERANCE * promised_s:
                raise BadFileError(f"breaks off after {lasts_s:.1f} s, though its header promises {promised_s:.1f} s")
            return sum(size > 0 for size, _ in sizes_and_times)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadFileError(f"cannot be read as a video ({_reason(error)})") from error


def read_frames(path: Path, wanted: Sequence[int]) -> Iterator[tuple[int, UInt8Image]]:
    """The frames of a video with the numbers ``wanted`` (ascending), as (number, (H, W, 3) RGB image).

    Decoding starts at the first frame of the file: numbers are then exact in every container.

    Raises:
        BadFileError: the video cannot be opened, or breaks off before the last wanted frame.
    """
    rest = iter(wanted)
    target = next(rest, None)
    number = -1
    try:
        with av.open(str(path)) as container:
            stream = _stream(container)
            stream.thread_type = "NONE"
            for number, frame in enumerate(container.decode(stream)):
                if target is None:
                    return
                if number == target:
                    image = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                    # Phones store the picture as the sensor saw it, and by how much to turn it.
                    yield number, np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
                    target = next(rest, None)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadFileError(f"cannot be decoded after {number + 1} frames ({_reason(error)})") from error
    if target is not None and number + 1 < BREAK_TOLERANCE * wanted[-1]:
        raise BadFileError(f"breaks off after {number + 1} frames, though its container promises {wanted[-1] + 1}")


def _stream(container: "av.container.InputContainer") -> "av.VideoStream":
    if not container.streams.video:
        raise BadFileError("holds no picture stream")
    stream = container.streams.video[0]
    _check_size(stream.codec_context.width, stream.codec_context.height)
    return stream


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadFileError(f"is {width} x {height} px, larger than {MAX_PIXELS // 10**6} megapixels")


def _reason(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror or error or type(error).__name__).splitlines()[0].strip()
