"""Laws of the way back into the photo: what stays to the bit, and that things land where they were."""

from itertools import product

import cv2
import numpy as np
import pytest

from affect_hpc.config.data import AlignConfig, AlignMode, CompatConfig
from affect_hpc.config.packaged import missing
from affect_hpc.core.errors import UserError
from affect_hpc.data.align import CANONICAL, LEFT_EYE, MOUTH_CORNERS, RIGHT_EYE, WORK_SIDE, Points, apply
from affect_hpc.data.codec import UInt8Image
from affect_hpc.data.faces import Crop, Cropper, Region
from affect_hpc.data.paste import Placement, mask, paste, placed

SIZE = 128
SHAPE = (300, 340)
REGION: Region = (110.0, 80.0, 230.0, 200.0)
BORDER: Region = (-20.0, 60.0, 110.0, 190.0)

needs_dlib = pytest.mark.skipif(bool(missing("dlib_landmarks")), reason="dlib's landmark network is not installed")


class TurnedFace:
    """A landmark backend that sees one face in a region, its eye line turned by an angle."""

    name = "turned"

    def __init__(self, degrees: float, region: Region = REGION) -> None:
        self.angle, self.region = np.radians(degrees), region

    def regions(self, image: UInt8Image) -> list[Region]:
        return [self.region]

    def points(self, image: UInt8Image, region: Region) -> Points:
        left, top, right, bottom = region
        size = np.array([right - left, bottom - top])
        points = np.tile([0.5, 0.5], (68, 1))
        points[0], points[16], points[8] = (0.02, 0.02), (0.98, 0.02), (0.98, 0.98)
        points[RIGHT_EYE], points[LEFT_EYE] = CANONICAL[0], CANONICAL[1]
        points[list(MOUTH_CORNERS)] = CANONICAL[2:]
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[cos, sin], [-sin, cos]])
        points[36:] = (points[36:] - 0.5) @ turn + 0.5
        return (left, top) + points * size


def smooth(shape: tuple[int, int] = SHAPE) -> UInt8Image:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = [np.sin(rows / 19) * np.cos(columns / 17), np.cos(rows / 23 + columns / 31), np.sin(columns / 21)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def cropped(cropper: Cropper, photo: UInt8Image) -> tuple[Crop, Placement]:
    image = cropper.prepared(photo)
    face, _ = cropper.find(image)
    assert face is not None
    crop = cropper.crop(image, face, cropper.box_of(face, video=False))
    return crop, placed(crop.geometry, photo.shape, cropper.size, cropper.config, cropper.compat)


def cropper_of(
    degrees: float, mode: AlignMode = AlignMode.roll_only, region: Region = REGION, **compat: bool
) -> Cropper:
    config = AlignConfig(landmarks="dlib", mode=mode, margin=0.1)
    return Cropper(config, SIZE, CompatConfig(**compat), TurnedFace(degrees, region))


def cut_by_affine(photo: UInt8Image, place: Placement) -> UInt8Image:
    side = (place.size, place.size)
    moved = cv2.warpAffine(photo, place.affine, side, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.uint8)


def in_region(place: Placement) -> np.ndarray:
    """Which px of the crop show what lies in the region and the photo, a few px from their edges."""
    left, top, right, bottom = place.region
    height, width = place.photo
    keep = np.zeros(place.photo, np.uint8)
    keep[max(int(top), 0) + 4 : min(int(bottom), height) - 4, max(int(left), 0) + 4 : min(int(right), width) - 4] = 1
    return cv2.warpAffine(keep, place.affine, (place.size, place.size), flags=cv2.INTER_NEAREST) > 0


@pytest.mark.parametrize(
    ("mode", "degrees", "cut_at_border"), list(product(AlignMode, (-25.0, 0.0, 14.0), (False, True)))
)
@pytest.mark.parametrize("region", [REGION, BORDER])
def test_the_affine_cuts_the_crop_that_the_cropper_cut(
    mode: AlignMode, degrees: float, cut_at_border: bool, region: Region
) -> None:
    cropper = cropper_of(degrees, mode, region, cut_at_border=cut_at_border)
    crop, place = cropped(cropper, smooth())
    inside = in_region(place)
    assert inside.mean() > 0.4
    off = np.abs(cut_by_affine(smooth(), place).astype(int) - crop.image)[inside]
    assert off.mean() < 0.7 and off.max() <= 4, "half a pixel more would be a mean of two levels"


def test_a_photo_that_is_searched_in_another_size_is_pasted_into_in_its_own() -> None:
    config = AlignConfig(landmarks="dlib", resize=[216, 384])
    crop, place = cropped(Cropper(config, SIZE, landmarks=TurnedFace(9)), smooth((520, 700)))
    inside = in_region(place)
    assert np.abs(cut_by_affine(smooth((520, 700)), place).astype(int) - crop.image)[inside].mean() < 0.7


def test_a_crop_larger_than_the_working_size_is_placed_as_well() -> None:
    cropper = Cropper(AlignConfig(landmarks="dlib"), WORK_SIDE + 32, landmarks=TurnedFace(12))
    crop, place = cropped(cropper, smooth())
    assert np.abs(cut_by_affine(smooth(), place).astype(int) - crop.image)[in_region(place)].mean() < 0.7


@pytest.mark.parametrize("mode", list(AlignMode))
@pytest.mark.parametrize("degrees", [-30.0, -8.0, 0.0, 21.0])
def test_a_dot_drawn_in_the_crop_lands_where_it_stands_in_the_photo(mode: AlignMode, degrees: float) -> None:
    photo, x, y = smooth(), 158, 131
    dotted = photo.copy()
    cv2.circle(dotted, (x, y), 4, (255, 255, 255), -1, cv2.LINE_AA)
    cropper = cropper_of(degrees, mode)
    (without, place), (with_dot, _) = cropped(cropper, photo), cropped(cropper, dotted)
    pasted = paste(photo, place, with_dot.image, without.image)
    change = np.abs(pasted.astype(float) - photo).sum(axis=2)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    landed = np.array([(columns * change).sum(), (rows * change).sum()]) / change.sum()
    # Its own weight is not even: the smooth photo below it is taken off.
    drawn = np.abs(dotted.astype(float) - photo).sum(axis=2)
    stood = np.array([(columns * drawn).sum(), (rows * drawn).sum()]) / drawn.sum()
    assert np.linalg.norm(landed - stood) < 0.1
    assert np.linalg.norm(landed - (x, y)) < 1


@pytest.mark.parametrize("region", [REGION, BORDER])
@pytest.mark.parametrize("degrees", [0.0, 17.0])
def test_outside_the_mask_the_photo_stays_to_the_bit(degrees: float, region: Region) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    crop, place = cropped(cropper_of(degrees, region=region), photo)
    before, weights = photo.copy(), mask(place)
    assert weights.min() == 0 and weights.max() == 1 and 0.02 < (weights > 0).mean() < 0.5
    for reconstruction in (None, crop.image):
        pasted = paste(photo, place, 255 - crop.image, reconstruction)
        np.testing.assert_array_equal(pasted[weights == 0], photo[weights == 0])
        assert (pasted[weights == 1] != photo[weights == 1]).mean() > 0.9
    np.testing.assert_array_equal(photo, before)


@pytest.mark.parametrize("degrees", [0.0, -23.0])
def test_an_edit_that_changes_nothing_gives_the_photo_back_to_the_bit(degrees: float) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    crop, place = cropped(cropper_of(degrees), photo)
    blurred = cv2.GaussianBlur(crop.image, (0, 0), 2)
    np.testing.assert_array_equal(paste(photo, place, blurred, blurred), photo)


def test_the_crop_itself_pasted_changes_a_smooth_photo_hardly() -> None:
    crop, place = cropped(cropper_of(11), smooth())
    assert np.abs(paste(smooth(), place, crop.image).astype(int) - smooth()).max() <= 4


def test_mirror_images_beyond_the_region_are_not_pasted() -> None:
    crop, place = cropped(cropper_of(35), smooth())
    foreign = ~in_region(place)
    assert foreign.mean() > 0.05
    edited = crop.image.copy()
    edited[cv2.erode(foreign.astype(np.uint8), np.ones((15, 15))) > 0] = 255
    assert np.abs(paste(smooth(), place, edited, crop.image).astype(int) - smooth()).max() <= 1


def test_the_slope_is_as_wide_as_the_feather_says() -> None:
    place = Placement(np.eye(2, 3), (0.0, 0.0, 200.0, 200.0), (200, 200), 200)
    for feather in (0.1, 0.5):
        row = mask(place, feather)[100]
        assert ((row > 0) & (row < 1)).sum() == pytest.approx(200 * feather, abs=3)
        np.testing.assert_allclose(row, row[::-1], atol=1e-6)
        assert (np.diff(row[:100]) >= 0).all()


@needs_dlib
def test_a_smile_is_pasted_into_a_portrait_and_its_background_stays() -> None:
    photo: UInt8Image = pytest.importorskip("skimage.data", reason="scikit-image brings the test face").astronaut()
    crop, place = cropped(Cropper(AlignConfig(landmarks="dlib", margin=0.09), SIZE), photo)
    assert crop.landmarks is not None
    assert np.abs(cut_by_affine(photo, place).astype(int) - crop.image)[in_region(place)].mean() < 4
    edited = crop.image.copy()
    x, y = crop.landmarks[62]
    cv2.circle(edited, (round(float(x)), round(float(y))), 5, (255, 0, 0), -1)
    pasted = paste(photo, place, edited, crop.image)
    rows, columns = np.nonzero((pasted != photo).any(axis=2))
    center = apply(place.affine, np.array([[columns.mean(), rows.mean()]]))[0]
    assert np.linalg.norm(center - (x, y)) < 1
    assert (pasted != photo).any(axis=2).mean() < 0.02


def test_what_does_not_match_is_told_in_one_sentence() -> None:
    photo = smooth()
    cropper = cropper_of(5)
    crop, place = cropped(cropper, photo)
    with pytest.raises(UserError, match=r"box \(left 100, top 70, side 139\) lies outside the photo of 60 x 50 px"):
        placed(crop.geometry, (50, 60), SIZE, cropper.config)
    with pytest.raises(UserError, match=r"matrix does not belong to its box, a size of 64 px and .*mode=roll_only"):
        placed(crop.geometry, photo.shape, 64, cropper.config)
    with pytest.raises(UserError, match=r"edited is of shape \(64, 64, 3\) .* give one of shape \(128, 128, 3\)"):
        paste(photo, place, crop.image[:64, :64])
    with pytest.raises(UserError, match=r"reconstruction is of shape .* float64"):
        paste(photo, place, crop.image, crop.image.astype(float))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="photo is of shape"):
        paste(photo[1:], place, crop.image)
    with pytest.raises(UserError, match="feather=0 is out of range"):
        paste(photo, place, crop.image, feather=0.0)
