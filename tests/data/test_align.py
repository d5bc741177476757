"""Laws of the alignment: what it turns, what it leaves in place, and what the original code got wrong (D-02)."""

import numpy as np
import pytest

from affect_hpc.config.data import AlignMode
from affect_hpc.data import align
from affect_hpc.data.align import CANONICAL, LEFT_EYE, MOUTH_CORNERS, RIGHT_EYE, Box, Points

SIDE = 224


def face(eyes: tuple[float, float] = (112, 70), degrees: float = 0.0) -> Points:
    """68 points with the eye midpoint at ``eyes``, turned about it; every eye is six equal points."""
    points = np.random.default_rng(0).uniform(30, 190, (68, 2))
    points[RIGHT_EYE] = (eyes[0] - 40, eyes[1])
    points[LEFT_EYE] = (eyes[0] + 40, eyes[1])
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (points - eyes) @ turn + eyes


def eye_centers(points: Points) -> tuple[Points, Points]:
    return points[RIGHT_EYE].mean(axis=0), points[LEFT_EYE].mean(axis=0)


@pytest.mark.parametrize("degrees", [-40, -5, 0, 10, 30])
def test_the_eye_line_becomes_horizontal_and_the_eye_midpoint_stays(degrees: float) -> None:
    points = face((101.5, 83.25), degrees)
    assert np.degrees(align.roll_of(points)) == pytest.approx(degrees)
    moved = align.apply(align.alignment(points, AlignMode.roll_only, SIDE), points)
    right, left = eye_centers(moved)
    assert left[1] == pytest.approx(right[1], abs=1e-9)
    np.testing.assert_allclose((right + left) / 2, (101.5, 83.25))
    # A rotation keeps all distances.
    before = np.linalg.norm(points[:, None] - points, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(moved[:, None] - moved, axis=-1), before)


@pytest.mark.parametrize("mode", [AlignMode.roll_only, AlignMode.repo_compat])
def test_an_upright_face_is_left_as_it_is(mode: AlignMode) -> None:
    matrix = align.alignment(face(), mode, SIDE)
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    image = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(align.warp(image, matrix), image)


@pytest.mark.parametrize(
    ("degrees", "shift"), [(5, (-3.8, -3.5)), (10, (-7.9, -6.7)), (20, (-16.9, -11.8)), (30, (-26.6, -15.4))]
)
def test_the_transposed_centre_shifts_the_face_as_measured_in_the_original_code(
    degrees: float, shift: tuple[float, float]
) -> None:
    angle = np.radians(degrees)
    right = align.rotation(angle, (112, 70))
    wrong = align.rotation(angle, (70, 112))
    np.testing.assert_allclose((wrong - right)[:, 2], shift, atol=0.05)
    np.testing.assert_allclose(wrong[:, :2], right[:, :2])


def test_repo_compat_turns_about_the_transposed_midpoint() -> None:
    # Eyes at whole pixels, so that the original's rounding changes nothing: right (80, 40), left (144, 88).
    points = face()
    points[RIGHT_EYE], points[LEFT_EYE] = (80, 40), (144, 88)
    matrix = align.alignment(points, AlignMode.repo_compat, SIDE)
    np.testing.assert_allclose(align.apply(matrix, np.array([[64.0, 112.0]])), [[64, 112]])
    np.testing.assert_allclose(matrix[:, :2], align.alignment(points, AlignMode.roll_only, SIDE)[:, :2])


def test_similarity_undoes_any_similarity_of_the_canonical_points() -> None:
    points = np.zeros((68, 2))
    points[RIGHT_EYE], points[LEFT_EYE] = CANONICAL[0] * SIDE, CANONICAL[1] * SIDE
    points[list(MOUTH_CORNERS)] = CANONICAL[2:] * SIDE
    angle, scale, shift = 0.4, 0.7, np.array([31.0, -12.0])
    moved = scale * align.apply(align.rotation(angle, (50.0, 60.0)), points) + shift
    matrix = align.alignment(moved, AlignMode.similarity, SIDE)
    np.testing.assert_allclose(align.apply(matrix, moved)[36:60:6], points[36:60:6], atol=1e-9)


@pytest.mark.parametrize("mode", list(AlignMode))
def test_pixels_go_where_the_matrix_says(mode: AlignMode) -> None:
    points = face((100, 90), 17)
    points[list(MOUTH_CORNERS)] = (80, 170), (130, 175)
    matrix = align.alignment(points, mode, SIDE)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    x, y = 120, 105
    image[y - 2 : y + 3, x - 2 : x + 3] = 255
    weight = align.warp(image, matrix)[..., 0].astype(float)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    landed = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
    np.testing.assert_allclose(landed, align.apply(matrix, np.array([[x, y]], dtype=float))[0], atol=0.1)


def test_turning_back_gives_the_image_back() -> None:
    rows, columns = np.mgrid[:96, :96]
    smooth = (127 + 100 * np.sin(rows / 9) * np.cos(columns / 7)).astype(np.uint8)
    image = np.repeat(smooth[..., None], 3, axis=2)
    there = align.warp(image, align.rotation(0.3, (48, 48)))
    back = align.warp(there, align.rotation(-0.3, (48, 48)))
    middle = slice(28, 68)
    assert np.abs(back[middle, middle].astype(int) - image[middle, middle]).max() <= 3


def test_the_box_is_square_centred_and_widened_by_the_margin() -> None:
    points = np.array([[10.0, 20.0], [110.0, 80.0]])
    assert align.landmark_box(points, 0.0) == Box(10, 0, 100)
    assert align.landmark_box(points, 0.1) == Box(0, -10, 120)
    assert align.landmark_box(points, 0.0, margin_px=10) == Box(0, -10, 120)


def test_a_box_past_the_border_is_filled_by_reflection() -> None:
    image = np.random.default_rng(2).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    padded = np.pad(image, ((50, 50), (50, 50), (0, 0)), mode="symmetric")
    for box in (Box(-7, -3, 24), Box(5, 15, 40), Box(-45, -20, 60)):
        expected = padded[50 + box.top :, 50 + box.left :][: box.side, : box.side]
        np.testing.assert_array_equal(align.cut(image, align.edges_of(box), box.side), expected)
        left, top, right, bottom = align.edges_inside(box, image)
        assert (left, top) == (max(box.left, 0), max(box.top, 0))
        assert (right, bottom) == (min(box.left + box.side, 20), min(box.top + box.side, 30))


@pytest.mark.parametrize("box", [Box(500, 7, 9), Box(-90, -90, 9), Box(19, 29, 1)])
def test_of_a_box_outside_the_image_a_pixel_is_left(box: Box) -> None:
    left, top, right, bottom = align.edges_inside(box, np.zeros((30, 20, 3), np.uint8))
    assert 0 <= left < right <= 20 and 0 <= top < bottom <= 30


def test_a_box_knows_where_points_lie_in_it() -> None:
    box = Box(13, -8, 150)
    matrix = align.cut_matrix(align.edges_of(box), 64)
    points = np.array([[13.0, -8.0], [163, 142], [88, 67]])
    np.testing.assert_allclose(align.apply(matrix, points), [[0, 0], [64, 64], [32, 32]], atol=1e-12)
    stretched = align.cut_matrix((10, 0, 20, 40), 64)
    np.testing.assert_allclose(align.apply(stretched, np.array([[20.0, 40.0], [15, 10]])), [[64, 64], [32, 16]])
    assert box.share_inside(np.array([[13.0, -8.0], [162.9, 0.0], [163.0, 0.0], [20.0, -9.0]])) == 0.5
    assert box.distance_to((88, 67, 88, 67)) == 0


def test_maps_are_chained_from_right_to_left() -> None:
    points = np.random.default_rng(3).uniform(0, 50, (5, 2))
    first, second = align.rotation(0.4, (3, 9)), align.cut_matrix((2, 5, 30, 61), 100)
    both = align.apply(align.chained(second, first), points)
    np.testing.assert_allclose(both, align.apply(second, align.apply(first, points)))


def test_truncated_levels_are_at_most_one_below_rounded_ones() -> None:
    image = np.random.default_rng(4).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    rounded = align.resize(image, 23, 31).astype(int)
    truncated = align.resize(image, 23, 31, truncate=True).astype(int)
    assert rounded.shape == (31, 23, 3)
    assert set(np.unique(rounded - truncated)) == {0, 1}
    assert abs((rounded - truncated).mean() - 0.5) < 0.05
