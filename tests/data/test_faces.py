"""Detectors on a real face: the portrait of Eileen Collins (NASA, public domain) that scikit-image brings."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from affect_hpc.config.data import AlignConfig, AlignMode
from affect_hpc.config.packaged import missing
from affect_hpc.core.errors import UserError
from affect_hpc.data.align import roll_of
from affect_hpc.data.faces import Cropper, load_landmarks
from affect_hpc.data.source import UInt8Image

needs_dlib = pytest.mark.skipif(bool(missing("dlib_landmarks")), reason="dlib's landmark network is not installed")


def portrait() -> UInt8Image:
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the test face")
    image: UInt8Image = data.astronaut()[:300, 60:400]
    return image


def turned(image: UInt8Image, degrees: float) -> UInt8Image:
    """The image turned clockwise."""
    return ndimage.rotate(image, -degrees, axes=(0, 1), reshape=False, mode="reflect", order=1)


@needs_dlib
def test_landmarks_lie_on_the_face() -> None:
    backend = load_landmarks("dlib")
    (region,) = backend.regions(portrait())
    points = backend.points(portrait(), region)
    left, top, right, bottom = region
    assert points.shape == (68, 2)
    assert ((points > (left - 20, top - 20)) & (points < (right + 20, bottom + 20))).all()
    # iBUG's order: right eye left of the left one; eyes, tip of the nose, mouth and chin from top to bottom.
    assert points[36:42, 0].max() < points[42:48, 0].min()
    assert points[36:48, 1].max() < points[33, 1] < points[48:60, 1].min() < points[8, 1]


@needs_dlib
@pytest.mark.parametrize("degrees", [-20, 12])
def test_a_turned_head_becomes_upright(degrees: float) -> None:
    cropper = Cropper(AlignConfig(landmarks="dlib", margin=0.09), 128)
    image = turned(portrait(), degrees)
    upright, _ = cropper.find(portrait())
    face, count = cropper.find(image)
    assert face is not None and upright is not None and count == 1
    assert np.degrees(roll_of(face.points) - roll_of(upright.points)) == pytest.approx(degrees, abs=3)
    crop = cropper.crop(image, face, cropper.box_of(face, video=False))
    points = cropper.landmarks.points(crop, (8, 8, 120, 120))
    assert abs(np.degrees(roll_of(points))) < 3


@needs_dlib
def test_the_same_face_in_another_size_and_place_gives_the_same_crop() -> None:
    cropper = Cropper(AlignConfig(landmarks="dlib", mode=AlignMode.similarity), 64)
    crops = []
    for image in (portrait(), np.pad(portrait(), ((90, 30), (10, 120), (0, 0)), mode="reflect")):
        face, _ = cropper.find(image)
        assert face is not None
        crops.append(cropper.crop(image, face, cropper.box_of(face, video=False)).astype(float))
    assert np.abs(crops[0] - crops[1]).mean() < 8


@needs_dlib
def test_of_two_faces_the_larger_one_comes_first_and_both_are_counted() -> None:
    large = portrait()
    canvas = np.zeros((300, 600, 3), np.uint8)
    canvas[:, :340] = large
    canvas[40:240, 360:586] = np.asarray(large)[np.ix_(np.arange(200) * 3 // 2, np.arange(226) * 3 // 2)]
    face, count = Cropper(AlignConfig(landmarks="dlib"), 64).find(canvas)
    assert face is not None and count == 2
    assert face.region[2] < 340


@needs_dlib
def test_no_face_is_no_face() -> None:
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    assert Cropper(AlignConfig(landmarks="dlib"), 64).find(image) == (None, 0)


def test_fan_without_its_weights_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        UserError, match=r"data.align.landmarks=fan needs .*s3fd-619a316812.pth.*not there.*puts it there"
    ):
        load_landmarks("fan")


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"valid values are fan, dlib"):
        load_landmarks("mediapipe")
