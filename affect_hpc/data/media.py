"""Photos and videos -> RGB images. What cannot be read raises BadFileError with the reason, never anything else."""

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from affect_hpc.data.codec import UInt8Image

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded."""
BREAK_TOLERANCE = 0.9
"""A video whose frames end before this share of what its container promises is damaged; containers also count frames
that are never shown."""
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


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
        raise BadFileError(f"cannot be read ({reason_of(error)})") from error


def frame_count(path: Path) -> int:
    """Frames of a video, without decoding: from its header, else by counting its packets."""
    try:
        with av.open(str(path)) as container:
            stream = _stream(container)
            if stream.frames:
                return int(stream.frames)
            count: int = sum(packet.size > 0 for packet in container.demux(stream))
            if not count:
                raise BadFileError("holds no pictures")
        _check_whole(path)
        return count
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadFileError(f"cannot be read as a video ({reason_of(error)})") from error


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
                    yield number, _upright(frame)
                    target = next(rest, None)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadFileError(f"cannot be decoded after {number + 1} frames ({reason_of(error)})") from error
    if target is not None and number + 1 < BREAK_TOLERANCE * wanted[-1]:
        raise BadFileError(f"breaks off after {number + 1} frames, though its container promises {wanted[-1] + 1}")


def read_clip(path: Path, fps: float) -> Iterator[UInt8Image]:
    """A video at a fixed rate: (H, W, 3) RGB images at the times 0, 1/fps, 2/fps, ... after its first frame.

    Each is the last frame that has begun by then. A video of that very rate gives exactly its frames; others, and
    those whose rate varies, have frames left out or repeated.

    Raises:
        BadFileError: the video cannot be opened, holds no pictures, is damaged or breaks off.
    """
    count, due = 0, None
    step = 1 / Fraction(fps).limit_denominator(1001)
    try:
        with av.open(str(path)) as container:
            stream = _stream(container)
            stream.thread_type = "NONE"
            # Containers round times to their own unit: a frame that begins within the rounding has begun.
            slack = min((stream.time_base or Fraction(0)) / 2, step / 4)
            for frame, begins, ends in _intervals(container, stream, step):
                count += 1
                due = begins if due is None else due
                image = _upright(frame) if due + slack < ends else None
                while image is not None and due + slack < ends:
                    yield image
                    due += step
            if count < BREAK_TOLERANCE * stream.frames:
                raise BadFileError(f"breaks off after {count} frames, though its header promises {stream.frames}")
            if not stream.frames:
                _check_whole(path)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadFileError(f"cannot be decoded after {count} frames ({reason_of(error)})") from error


def _intervals(
    container: "av.container.InputContainer", stream: "av.VideoStream", step: Fraction
) -> "Iterator[tuple[av.VideoFrame, Fraction, Fraction]]":
    """Each frame with when it begins and ends, in s; ``step`` is how long one lasts where nothing tells."""
    usual = 1 / stream.average_rate if stream.average_rate else step
    last, began = None, -usual
    for number, frame in enumerate(container.decode(stream)):
        if frame.is_corrupt:
            raise BadFileError(f"is damaged at frame {number}")
        begins = began + usual if frame.pts is None else frame.pts * stream.time_base
        if last is not None:
            yield last, began, begins
        last, began = frame, begins
    if last is None:
        raise BadFileError("holds no pictures")
    yield last, began, began + (last.duration * stream.time_base if last.duration else usual)


def reason_of(error: BaseException) -> str:
    """What a library says of a file it cannot read, in one line."""
    strerror = getattr(error, "strerror", None)
    return str(strerror or error or type(error).__name__).splitlines()[0].strip()


def _check_whole(path: Path) -> None:
    """Raise BadFileError where a file without a count of its frames ends well before the time its header promises."""
    with av.open(str(path)) as container:
        ends = [
            (packet.pts + (packet.duration or 0)) * packet.time_base
            for packet in container.demux()
            if packet.pts is not None and packet.time_base is not None
        ]
        lasts_s, promised_s = float(max(ends, default=0)), (container.duration or 0) / av.time_base
    if lasts_s < BREAK_TOLERANCE * promised_s:
        raise BadFileError(f"breaks off after {lasts_s:.1f} s, though its header promises {promised_s:.1f} s")


def _upright(frame: "av.VideoFrame") -> UInt8Image:
    # Phones store the picture as the sensor saw it, and by how much to turn it.
    image = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def _stream(container: "av.container.InputContainer") -> "av.VideoStream":
    if not container.streams.video:
        raise BadFileError("holds no picture stream")
    stream = container.streams.video[0]
    _check_size(stream.codec_context.width, stream.codec_context.height)
    return stream


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadFileError(f"is {width} x {height} px, larger than {MAX_PIXELS // 10**6} megapixels")
