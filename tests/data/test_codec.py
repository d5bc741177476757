"""Members of shards: written as promised, read as written, and refused in one way whatever is wrong with them."""

import io
import json
import pickle
import struct
import wave
import zlib
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from PIL import Image

from affect_hpc.data.codec import (
    DECODERS,
    LIMITS,
    DamagedMemberError,
    Limits,
    decode,
    decode_npy,
    decode_png,
    encode_json,
    encode_npy,
    encode_png,
    encode_wav,
)

RATE = 16_000
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (17, 23, 3), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(32), np.arange(48))[..., None].repeat(3, 2).astype(np.uint8)
SOUND = (20_000 * np.sin(np.arange(1000) / 9)).astype(np.int16)
ARRAYS = {"a": RANDOM.standard_normal((3, 4)).astype(np.float32), "b": np.arange(5, dtype=np.int64)}
INFO = {"label": 3, "identity": "père", "box": [1.5, -2.0, None, True], "more": {"z": 1, "a": "\n"}}


def pillow(image: npt.NDArray[np.uint8], kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **settings)
    return buffer.getvalue()


def flac(samples: npt.NDArray[np.int16], layout: str = "mono") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=RATE, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return buffer.getvalue()


def is_image(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3


def is_sound(value: Any) -> bool:
    samples, rate = value
    return bool(samples.dtype == np.int16 and samples.ndim == 1 and rate > 0)


MEMBERS: dict[str, tuple[bytes, Callable[[Any], bool]]] = {
    "png": (encode_png(IMAGE), is_image),
    "jpg": (pillow(IMAGE, "JPEG"), is_image),
    "jpeg": (pillow(SMOOTH, "JPEG", progressive=True), is_image),
    "webp": (pillow(IMAGE, "WEBP"), is_image),
    "npy": (encode_npy(ARRAYS["a"]), lambda value: isinstance(value, np.ndarray)),
    "json": (encode_json(INFO), lambda value: True),
    "wav": (encode_wav(SOUND, RATE), is_sound),
    "flac": (flac(SOUND), is_sound),
    "safetensors": (
        safetensors.numpy.save(ARRAYS),
        lambda value: all(isinstance(array, np.ndarray) for array in value.values()),
    ),
}


def test_what_is_written_is_read() -> None:
    assert np.array_equal(decode_png(encode_png(IMAGE)), IMAGE)
    for array in [*ARRAYS.values(), np.float16(3.5).reshape(()), np.zeros((0, 4), np.int16), np.asfortranarray(IMAGE)]:
        assert np.array_equal(decode_npy(encode_npy(array)), array)
    assert decode("json", encode_json(INFO)) == INFO
    for sound in (SOUND, SOUND[:0], np.array([-32768, 32767], np.int16)):
        samples, rate = decode("wav", encode_wav(sound, RATE))
        assert np.array_equal(samples, sound) and rate == RATE
    samples, rate = decode("flac", MEMBERS["flac"][0])
    assert np.array_equal(samples, SOUND) and rate == RATE
    read = decode("safetensors", MEMBERS["safetensors"][0])
    assert read.keys() == ARRAYS.keys() and all(np.array_equal(read[name], ARRAYS[name]) for name in ARRAYS)


@pytest.mark.parametrize(
    ("kind", "settings"), [("webp", {"lossless": True}), ("webp", {"lossless": True, "icc_profile": b"x"})]
)
def test_pictures_without_loss_are_read_to_the_bit(kind: str, settings: dict[str, Any]) -> None:
    assert np.array_equal(decode(kind, pillow(IMAGE, kind, **settings)), IMAGE)


@pytest.mark.parametrize("kind", ["jpg", "jpeg", "webp"])
def test_pictures_with_loss_have_the_colours_in_order(kind: str) -> None:
    red = np.zeros((24, 40, 3), np.uint8) + np.array([200, 60, 10], np.uint8)
    found = decode(kind, pillow(red, "WEBP" if kind == "webp" else "JPEG"))
    assert found.shape == red.shape and np.abs(found.astype(int) - red).max() <= 6


def test_all_pictures_become_three_channels_of_eight_bits() -> None:
    grey = IMAGE[..., 0]
    assert np.array_equal(decode_png(pillow(grey, "PNG")), np.stack([grey] * 3, axis=2))
    clear = np.dstack([IMAGE, np.full(grey.shape, 7, np.uint8)])
    assert np.array_equal(decode_png(pillow(clear, "PNG")), IMAGE)
    deep = (grey.astype(np.uint16) << 8) + 3
    assert np.array_equal(decode_png(pillow(deep, "PNG")), np.stack([grey] * 3, axis=2))


def test_orientation_is_left_to_whoever_wrote_the_crop() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, name in [("PNG", "png"), ("JPEG", "jpg")]:
        assert decode(name, pillow(SMOOTH, kind, exif=exif)).shape == SMOOTH.shape


def test_bytes_hang_on_the_content_alone() -> None:
    shuffled = dict(reversed(INFO.items()))
    assert encode_json(shuffled) == encode_json(INFO)
    assert encode_json({"b": 1, "a": [2]}) == b'{"a": [2], "b": 1}'
    # RIFF/WAVE, as the format's description has it: PCM, mono, rate, bytes a second, block, bits.
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 40, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", 4)
    assert encode_wav(np.array([1, -2], np.int16), RATE) == head + struct.pack("<hh", 1, -2)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_json_is_neither_written_nor_read(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_json({"x": [number]})
    with pytest.raises(DamagedMemberError, match="which is no JSON"):
        decode("json", json.dumps({"x": [number]}).encode())


def test_the_last_part_of_the_extension_decides() -> None:
    assert np.array_equal(decode("000012.png", encode_png(IMAGE)), IMAGE)
    assert np.array_equal(decode("landmarks.npy", encode_npy(ARRAYS["b"])), ARRAYS["b"])
    assert np.array_equal(decode("PNG", encode_png(IMAGE)), IMAGE)


@pytest.mark.parametrize("extension", ["pkl", "pickle", "pth", "pt", "pyd", "cls", "png.pkl", "", "npz", "txt"])
def test_other_kinds_are_refused(extension: str) -> None:
    with pytest.raises(DamagedMemberError, match=r"has the unknown kind '.*': shards hold jpg, jpeg, png, webp, npy"):
        decode(extension, pickle.dumps(1))


def npy(header: str, content: bytes = b"") -> bytes:
    line = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + content


def png_of(width: int, height: int) -> bytes:
    """The frame of a PNG that promises that many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def with_bytes(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def webp_of(width: int, height: int, form: str) -> bytes:
    content = pillow(IMAGE, "WEBP", lossless=form != "VP8 ", **({"icc_profile": b"x"} if form == "VP8X" else {}))
    assert content[12:16] == form.encode()
    if form == "VP8X":
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        return with_bytes(content, 24, sides)
    if form == "VP8L":
        return with_bytes(content, 21, struct.pack("<I", (width - 1) | (height - 1) << 14))
    return with_bytes(content, 26, struct.pack("<HH", width, height))


HUGE = [
    ("png", png_of(100_000, 100_000), "is 100000 x 100000 px: 1 to 16777216 in all are read"),
    ("png", png_of(2, 2), "promises 2 x 2 px and holds another number"),
    ("png", png_of(0, 0), "is 0 x 0 px: 1 to"),
    *(("webp", webp_of(16_000, 15_000, form), "is 16000 x 15000 px") for form in ("VP8 ", "VP8L", "VP8X")),
    ("npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}"), "holds 4000000000000 bytes"),
    (
        "npy",
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000,)}", b"12"),
        "promises 4000 bytes and holds 2",
    ),
    ("npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", b"12345"), "promises 4 bytes and holds 5"),
    ("npy", npy("{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000,)}"), "holds items of no size"),
    (
        "npy",
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps([1])),
        r"pickle\), which are refused",
    ),
    ("wav", encode_wav(SOUND, RATE)[:40] + struct.pack("<I", 0xFFFFFFFE), "holds 2147483647 samples, more than"),
    ("wav", encode_wav(SOUND, RATE)[:-2], "promises 1000 samples and holds 999"),
    ("flac", flac(SOUND)[:21] + b"\xf4\0\0\0\0", "holds 17179869184 samples, more than"),
    ("safetensors", struct.pack("<Q", 1 << 62) + b"{}", "is no safetensors"),
    ("json", b"[" * 100_000, "is no json"),
]


@pytest.mark.parametrize(("kind", "content", "reason"), HUGE)
def test_promised_sizes_are_not_believed(kind: str, content: bytes, reason: str) -> None:
    with pytest.raises(DamagedMemberError, match=reason):
        decode(kind, content)


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        *((kind, Limits(pixels=17 * 23 - 1)) for kind in ("png", "jpg", "jpeg", "webp")),
        *((kind, Limits(array_bytes=47)) for kind in ("npy", "safetensors")),
        *((kind, Limits(sound_samples=999)) for kind in ("wav", "flac")),
        ("json", Limits(json_bytes=len(encode_json(INFO)) - 1)),
    ],
)
def test_every_kind_has_a_limit(kind: str, limits: Limits) -> None:
    content, _ = MEMBERS[kind]
    decode(kind, content, LIMITS)
    with pytest.raises(DamagedMemberError, match=r"more than|in all are read"):
        decode(kind, content, limits)


@pytest.mark.parametrize("shape", [(1, 1), (17, 23), (128, 128), (3, 4000)])
def test_any_png_gives_its_pixels_whoever_wrote_it(shape: tuple[int, int]) -> None:
    """Ours are read a quick way, all others by OpenCV: the same pixels as Pillow's."""
    image = RANDOM.integers(0, 256, (*shape, 3), dtype=np.uint8)
    ours = encode_png(image)
    for content in (
        ours,
        pillow(image, "PNG"),
        pillow(image, "PNG", interlace=1),
        pillow(image, "PNG", icc_profile=b"x"),
    ):
        np.testing.assert_array_equal(decode_png(content), image)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(ours))), image)
    grey = Image.fromarray(image[..., 0])
    buffer = io.BytesIO()
    grey.save(buffer, "PNG")
    np.testing.assert_array_equal(decode_png(buffer.getvalue()), np.repeat(image[..., :1], 3, 2))


def test_bytes_of_a_png_that_were_changed_are_noticed() -> None:
    content = encode_png(SMOOTH)
    for at in range(content.index(b"IDAT") + 6, len(content) - 16):
        with pytest.raises(DamagedMemberError):
            decode("png", with_bytes(content, at, bytes([content[at] ^ 0x10])))


def test_sounds_with_several_channels_or_other_depths_are_refused() -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setparams((2, 2, RATE, 0, "NONE", ""))
        writer.writeframes(b"\0" * 8)
    for kind, content in [("wav", buffer.getvalue()), ("flac", flac(SOUND, "stereo"))]:
        with pytest.raises(DamagedMemberError, match="is no mono sound of 16 bits"):
            decode(kind, content)


@pytest.mark.parametrize("kind", DECODERS)
def test_a_member_cut_off_anywhere_is_refused(kind: str) -> None:
    content, good = MEMBERS[kind]
    assert good(decode(kind, content))
    # JPEG and WebP may lack an end that holds no picture.
    spare = {"jpg": 2, "jpeg": 2, "webp": 2}.get(kind, 0)
    for length in range(len(content)):
        try:
            value = decode(kind, content[:length])
        except DamagedMemberError as error:
            assert str(error)
        else:
            assert length >= len(content) - spare and good(value), length


@pytest.mark.parametrize("kind", DECODERS)
def test_flipped_bits_give_a_value_of_the_kind_or_a_damaged_member(kind: str) -> None:
    content, good = MEMBERS[kind]
    random = np.random.default_rng(1)
    for flips in (1, 1, 1, 4, 30):
        for _ in range(150):
            damaged = bytearray(content)
            # Half of them in the first bytes: that is where the sizes stand.
            for at in random.integers(0, len(content) if random.random() < 0.5 else min(64, len(content)), flips):
                damaged[at] ^= 1 << int(random.integers(8))
            try:
                value = decode(kind, bytes(damaged), Limits(pixels=1 << 20, array_bytes=1 << 20, sound_samples=1 << 20))
            except DamagedMemberError as error:
                assert str(error)
            else:
                assert good(value)


@pytest.mark.parametrize("kind", DECODERS)
def test_a_member_of_another_kind_is_refused(kind: str) -> None:
    same = ("jpg", "jpeg")
    for other, (content, _) in MEMBERS.items():
        if other != kind and not (kind in same and other in same):
            with pytest.raises(DamagedMemberError):
                decode(kind, content)
