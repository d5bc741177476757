"""Detectors on a real face: the portrait of Eileen Collins (NASA, public domain) that scikit-image brings."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from affect_hpc.config.data import AlignConfig, AlignMode, CompatConfig
from affect_hpc.config.packaged import missing
from affect_hpc.core.errors import UserError
from affect_hpc.data.align import Box, apply, roll_of
from affect_hpc.data.corpora.source import UInt8Image
from affect_hpc.data.faces import Cropper, load_landmarks

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
    points = cropper.landmarks.points(crop.image, (8, 8, 120, 120))
    assert abs(np.degrees(roll_of(points))) < 3
    assert crop.landmarks is not None and crop.geometry["aligned"]
    assert np.linalg.norm(crop.landmarks - points, axis=1).mean() < 2, "landmarks lie in the crop"
    in_crop = apply(np.array(crop.geometry["matrix"]), face.points)
    assert np.linalg.norm(crop.landmarks - in_crop, axis=1).mean() < 3, "the matrix maps the image to the crop"


@needs_dlib
def test_the_same_face_in_another_size_and_place_gives_the_same_crop() -> None:
    cropper = Cropper(AlignConfig(landmarks="dlib", mode=AlignMode.similarity), 64)
    crops = []
    for image in (portrait(), np.pad(portrait(), ((90, 30), (10, 120), (0, 0)), mode="reflect")):
        face, _ = cropper.find(image)
        assert face is not None
        crops.append(cropper.crop(image, face, cropper.box_of(face, video=False)).image.astype(float))
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


class OneFace:
    """A detector that finds what it is told."""

    name = "told"

    def __init__(self, regions: list[tuple[float, float, float, float]]) -> None:
        self.found = regions

    def regions(self, image: UInt8Image) -> list[tuple[float, float, float, float]]:
        return self.found

    def points(self, image: UInt8Image, region: tuple[float, float, float, float]) -> np.ndarray:
        left, top, right, bottom = region
        grid = np.linspace(0, 1, 68)
        return np.column_stack([left + grid * (right - left), top + grid[::-1] * (bottom - top)])


def test_of_several_faces_the_largest_or_as_the_original_code_the_first() -> None:
    told = OneFace([(0, 0, 10, 10), (20, 20, 60, 50), (5, 5, 30, 30)])
    image = np.zeros((80, 80, 3), np.uint8)
    for compat, expected in ((CompatConfig(), told.found[1]), (CompatConfig(first_face=True), told.found[0])):
        face, count = Cropper(AlignConfig(landmarks="dlib"), 64, compat, told).find(image)
        assert face is not None and (face.region, count) == (expected, 3)


def test_a_box_at_the_border_is_reflected_or_as_in_the_original_code_cut_and_stretched() -> None:
    image = np.random.default_rng(5).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    told, box = OneFace([(2.0, 2.0, 30.0, 30.0)]), Box(-16, 0, 48)
    config = AlignConfig(landmarks="dlib", mode=AlignMode.none)
    face, _ = Cropper(config, 64, landmarks=told).find(image)
    assert face is not None
    for compat, x_scale, left in ((CompatConfig(), 64 / 48, -16), (CompatConfig(cut_at_border=True), 2.0, 0)):
        crop = Cropper(config, 64, compat, told).crop(image, face, box)
        expected = [[x_scale, 0, -left * x_scale], [0, 64 / 48, 0]]
        np.testing.assert_allclose(crop.geometry["matrix"], expected, atol=1e-5)
        np.testing.assert_allclose(crop.landmarks, apply(np.array(expected), face.points), atol=1e-3)


def test_a_box_without_a_face_is_cut_as_it_is_and_says_so() -> None:
    image = np.random.default_rng(6).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    crop = Cropper(AlignConfig(landmarks="dlib"), 64, landmarks=OneFace([])).crop_box(image, Box(0, 0, 64))
    assert crop.landmarks is None and not crop.geometry["aligned"]
    assert np.abs(crop.image.astype(int) - image).mean() < 40, "enlarged to the working size and back"
    np.testing.assert_allclose(crop.geometry["matrix"], np.eye(2, 3), atol=1e-6)


def test_an_image_is_searched_in_the_size_that_the_config_names() -> None:
    image = np.zeros((30, 90, 3), np.uint8)
    assert Cropper(AlignConfig(landmarks="dlib", resize=[216, 384]), 64, landmarks=OneFace([])).prepared(
        image
    ).shape == (216, 384, 3)
    assert Cropper(AlignConfig(landmarks="dlib"), 64, landmarks=OneFace([])).prepared(image) is image


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
