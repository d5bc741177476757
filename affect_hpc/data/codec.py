"""Bytes <-> images, arrays, sounds: what shards hold. No pickle anywhere, and no size is believed unchecked."""

import io
import json
import struct
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from isal import isal_zlib
from PIL import Image

from affect_hpc.core.errors import UserError

UInt8Image = npt.NDArray[np.uint8]
Sound = tuple[npt.NDArray[np.int16], int]
"""Samples (N,) and their rate in Hz."""

PNG_HEAD, PNG_END = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"IEND\xaeB`\x82"
PNG_DEPTH, RGB_8_BITS, PNG_CHUNKS, PNG_UP = 24, b"\x08\x02\0\0\0", 33, 2
"""Where depth and colour type stand, and what they are for plain RGB; the first chunk after the header; a filter."""
JPEG_END, JPEG_TAIL = b"\xff\xd9", 256
RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


class DamagedMemberError(UserError):
    """A member of a shard that is not what its name says; its text stands after the member's name."""


@dataclass(frozen=True)
class Limits:
    """What a member may hold at the most; checked before anything of that size is allocated."""

    pixels: int = 4096 * 4096
    array_bytes: int = 1 << 30
    """Arrays; and a member of whatever kind, by the inspector of shards."""
    sound_samples: int = 48_000 * 3600
    json_bytes: int = 16 << 20


LIMITS = Limits()


def encode_png(image: UInt8Image) -> bytes:
    """Lossless PNG of an (H, W, 3) uint8 image; the bytes depend on the pixels alone.

    Every row is stored as its difference from the row above: a tenth larger than the best filter for each row, and
    read three times as fast (``_differences``).
    """
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    return cv2.imencode(".png", image[..., ::-1], settings)[1].tobytes()


def encode_npy(array: npt.NDArray[Any]) -> bytes:
    """An array in NumPy's .npy format."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def encode_json(content: Any) -> bytes:
    """Plain data as JSON with sorted keys; infinities and NaN are refused: they are no JSON."""
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def encode_wav(samples: npt.NDArray[np.int16], rate: int) -> bytes:
    """Mono 16-bit sound (N,) at ``rate`` Hz as WAV."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def decode(extension: str, content: bytes, limits: Limits = LIMITS) -> Any:
    """The value of a member.

    Args:
        extension: of the member; what stands after the last dot decides.
        content: its bytes.

    Returns:
        jpg, png, webp: (H, W, 3) uint8; npy: array; json: plain data; wav, flac: Sound; safetensors: name -> array.

    Raises:
        DamagedMemberError: another kind, too large, or not what its name says.
    """
    kind = extension.rpartition(".")[2].lower()
    if kind not in DECODERS:
        raise DamagedMemberError(f"has the unknown kind {kind!r}: shards hold {', '.join(DECODERS)}")
    try:
        return DECODERS[kind](content, limits)
    except DamagedMemberError:
        raise
    except Exception as error:
        # Decoders of hostile bytes raise whatever they like; all of it means the same here.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedMemberError(f"is no {kind} ({reason})") from error


def decode_png(content: bytes) -> UInt8Image:
    """(H, W, 3) uint8 image of a PNG."""
    image: UInt8Image = decode("png", content)
    return image


def decode_npy(content: bytes) -> npt.NDArray[Any]:
    """The array of a .npy file."""
    array: npt.NDArray[Any] = decode("npy", content)
    return array


def images_to_tensor(images: Sequence[UInt8Image]) -> torch.Tensor:
    """(H, W, 3) uint8 images -> (B, 3, H, W) float32 in [-1, 1]: x / 127.5 - 1."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return (stacked.float() / 127.5 - 1).contiguous()


def tensor_to_images(tensor: torch.Tensor) -> list[UInt8Image]:
    """(B, 3, H, W) in [-1, 1] -> (H, W, 3) uint8 images; clamped, rounded to the nearest level."""
    levels = ((tensor.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).cpu().numpy())


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if not 0 < width * height <= limits.pixels:
        raise DamagedMemberError(f"is {width} x {height} px: 1 to {limits.pixels} in all are read")


def _png(content: bytes, limits: Limits) -> UInt8Image:
    # Some releases of OpenCV fill up what is cut off, hence the mark.
    if not content.startswith(PNG_HEAD):
        raise DamagedMemberError("is no png: it does not begin as one")
    width, height = struct.unpack_from(">II", content, len(PNG_HEAD))
    _check_pixels(width, height, limits)
    if not content.endswith(PNG_END):
        raise DamagedMemberError("is cut off: the end mark of a png is missing")
    found = _differences(content, width, height) if content.startswith(RGB_8_BITS, PNG_DEPTH) else None
    return _opencv(content, "png") if found is None else found


def _differences(content: bytes, width: int, height: int) -> UInt8Image | None:
    """The pixels of a plain RGB PNG whose rows are all stored as differences from the row above; None for another."""
    place, packed = PNG_CHUNKS, []
    while place + 12 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        if kind == b"IDAT":
            packed.append(content[place + 8 : place + 8 + size])
        elif kind != b"IEND":
            return None
        place += 12 + size
    # One byte more than promised, so that a longer content shows.
    inflater = isal_zlib.decompressobj()
    rows = inflater.decompress(b"".join(packed), height * (1 + 3 * width) + 1)
    if len(rows) != height * (1 + 3 * width) or not inflater.eof:
        raise DamagedMemberError(f"promises {width} x {height} px and holds another number")
    table = np.frombuffer(rows, np.uint8).reshape(height, 1 + 3 * width)
    if (table[:, 0] != PNG_UP).any():
        return None
    # Sums wrap at 256, as the format has it (PNG specification, section 9.2).
    return np.add.accumulate(table[:, 1:].reshape(height, width, 3), axis=0, dtype=np.uint8)


def _jpeg(content: bytes, limits: Limits) -> UInt8Image:
    _check_pixels(*_jpeg_size(content), limits)
    # What is cut off, decoders fill with grey. Some writers put a few bytes behind the end mark.
    if JPEG_END not in content[-JPEG_TAIL:]:
        raise DamagedMemberError("is cut off: the end mark of a jpeg is missing")
    return _opencv(content, "jpeg")


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Width and height, from the first frame header (ITU T.81, section B.2)."""
    place = 2
    if not content.startswith(b"\xff\xd8"):
        raise DamagedMemberError("is no jpeg: it does not begin as one")
    while True:
        mark, kind, length = struct.unpack_from(">BBH", content, place)
        if mark != 0xFF:
            raise DamagedMemberError("is a damaged jpeg")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", content, place + 5)
            return width, height
        place += 1 if kind == 0xFF else 2 + length


def _opencv(content: bytes, kind: str) -> UInt8Image:
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), RGB)
    if decoded is None:
        raise DamagedMemberError(f"is a damaged {kind}")
    return np.asarray(decoded, np.uint8)


def _webp(content: bytes, limits: Limits) -> UInt8Image:
    # Pillow makes room for the picture when it opens it, hence the header is read here.
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(content[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", content, 26))
    _check_pixels(width, height, limits)
    with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
        return np.asarray(image.convert("RGB"))


def _npy(content: bytes, limits: Limits) -> npt.NDArray[Any]:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = header[version](stream)
    if dtype.hasobject:
        raise DamagedMemberError("holds Python objects (pickle), which are refused")
    if not dtype.itemsize:
        raise DamagedMemberError(f"holds items of no size ({dtype})")
    size = dtype.itemsize * int(np.prod(shape, dtype=object))
    if size > limits.array_bytes:
        raise DamagedMemberError(f"holds {size} bytes, more than {limits.array_bytes}")
    if size != len(content) - stream.tell():
        raise DamagedMemberError(f"promises {size} bytes and holds {len(content) - stream.tell()}")
    stream.seek(0)
    array: npt.NDArray[Any] = np.load(stream, allow_pickle=False)
    return array


def _json(content: bytes, limits: Limits) -> Any:
    if len(content) > limits.json_bytes:
        raise DamagedMemberError(f"holds {len(content)} bytes, more than {limits.json_bytes}")

    def refuse(name: str) -> None:
        raise DamagedMemberError(f"holds {name}, which is no JSON")

    return json.loads(content, parse_constant=refuse)


def _wav(content: bytes, limits: Limits) -> Sound:
    with wave.open(io.BytesIO(content), "rb") as reader:
        if (reader.getnchannels(), reader.getsampwidth()) != (1, 2):
            raise DamagedMemberError("is no mono sound of 16 bits")
        count = reader.getnframes()
        _check_samples(count, limits)
        samples = np.frombuffer(reader.readframes(count), "<i2")
        return _whole(samples.astype(np.int16), count, reader.getframerate())


def _flac(content: bytes, limits: Limits) -> Sound:
    # The first block of every FLAC file: rate (20 bits), channels - 1 (3), bits - 1 (5), samples (36, 0 = unknown).
    if content[:4] != b"fLaC" or len(content) < 26:
        raise DamagedMemberError("is no flac: it does not begin as one")
    head = int.from_bytes(content[18:26], "big")
    rate, channels, depth, count = head >> 44, 1 + (head >> 41 & 7), 1 + (head >> 36 & 31), head & (1 << 36) - 1
    if (channels, depth) != (1, 16):
        raise DamagedMemberError("is no mono sound of 16 bits")
    _check_samples(count, limits)
    parts: list[npt.NDArray[np.int16]] = []
    total = 0
    with av.open(io.BytesIO(content), format="flac") as container:
        for frame in container.decode(container.streams.audio[0]):
            total += frame.samples
            _check_samples(total, limits)
            parts.append(frame.to_ndarray()[0].astype(np.int16, casting="equiv"))
    return _whole(np.concatenate(parts or [np.zeros(0, np.int16)]), count or total, rate)


def _check_samples(count: int, limits: Limits) -> None:
    if count > limits.sound_samples:
        raise DamagedMemberError(f"holds {count} samples, more than {limits.sound_samples}")


def _whole(samples: npt.NDArray[np.int16], promised: int, rate: int) -> Sound:
    if len(samples) != promised:
        raise DamagedMemberError(f"promises {promised} samples and holds {len(samples)}")
    if not rate:
        raise DamagedMemberError("has a rate of 0 Hz")
    return samples, rate


def _safetensors(content: bytes, limits: Limits) -> Mapping[str, npt.NDArray[Any]]:
    if len(content) > limits.array_bytes:
        raise DamagedMemberError(f"holds {len(content)} bytes, more than {limits.array_bytes}")
    # The library itself checks that header and offsets lie within the content.
    return dict(safetensors.numpy.load(content))


DECODERS: Mapping[str, Callable[[bytes, Limits], Any]] = {
    "jpg": _jpeg,
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "npy": _npy,
    "json": _json,
    "wav": _wav,
    "flac": _flac,
    "safetensors": _safetensors,
}
