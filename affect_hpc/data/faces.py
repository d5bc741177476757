"""Finding faces and their 68 landmarks, and cutting upright crops out of images.

Backends: ``fan`` (FAN 2D with the S3FD detector, package face-alignment, the thesis' choice; its weights must lie in
torch hub's cache) and ``dlib`` (HOG detector and 68-point predictor, packages dlib-bin and face-recognition-models).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from affect_hpc.config.available import LANDMARK_BACKENDS
from affect_hpc.config.checks import one_of
from affect_hpc.config.data import AlignConfig, AlignMode, CompatConfig
from affect_hpc.config.packaged import verified
from affect_hpc.data.align import (
    WORK_SIDE,
    Box,
    Matrix,
    Points,
    alignment,
    apply,
    chained,
    cut,
    cut_matrix,
    edges_inside,
    edges_of,
    landmark_box,
    resize,
    warp,
)
from affect_hpc.data.codec import UInt8Image

DETECT_SIDES = (640, 1280)
"""dlib: longer side of the image that is searched, in px; the larger one only where the smaller one shows no face.
dlib's detector sees faces from 80 px on."""
MAX_ENLARGEMENT = 4.0

Region = tuple[float, float, float, float]
"""A detector's box around a face: left, top, right, bottom in px."""


@dataclass(frozen=True)
class Found:
    """A face in an image."""

    region: Region
    points: Points


class Landmarks(Protocol):
    """A face detector with a landmark network."""

    name: str

    def regions(self, image: UInt8Image) -> list[Region]:
        """All faces of an (H, W, 3) RGB image, in the detector's order: the surest first."""
        ...

    def points(self, image: UInt8Image, region: Region) -> Points:
        """Landmarks of the face that is known to lie in ``region``."""
        ...


class DlibLandmarks:
    """HOG face detector and regression trees (Kazemi and Sullivan 2014), trained on iBUG 300-W."""

    name = "dlib"

    def __init__(self) -> None:
        import dlib  # noqa: PLC0415 (compiled library, only where it is chosen)

        (path,) = verified("dlib_landmarks").values()
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(path))
        self._rectangle: Any = dlib.rectangle

    def regions(self, image: UInt8Image) -> list[Region]:
        """All faces of an (H, W, 3) RGB image, in the detector's order: the surest first."""
        height, width = image.shape[:2]
        for side in DETECT_SIDES:
            scale = side / max(height, width)
            if side == DETECT_SIDES[0]:
                scale = min(scale, 1.0)
            scale = min(scale, MAX_ENLARGEMENT)
            size = (max(round(width * scale), 1), max(round(height * scale), 1))
            searched = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
            boxes = self._detector(np.asarray(searched), 0)
            if len(boxes):
                edges = ((box.left(), box.top(), box.right(), box.bottom()) for box in boxes)
                return [(a / scale, b / scale, c / scale, d / scale) for a, b, c, d in edges]
        return []

    def points(self, image: UInt8Image, region: Region) -> Points:
        """Landmarks of the face that is known to lie in ``region``."""
        shape = self._predictor(np.ascontiguousarray(image), self._rectangle(*(round(edge) for edge in region)))
        return np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)


class FanLandmarks:
    """FAN 2D (Bulat and Tzimiropoulos 2017) with the S3FD detector."""

    name = "fan"

    def __init__(self, threshold: float, device: str = "") -> None:
        verified("fan")
        import torch  # noqa: PLC0415 (this backend alone needs networks)
        from face_alignment import FaceAlignment, LandmarksType  # noqa: PLC0415

        self._network = FaceAlignment(
            LandmarksType.TWO_D,
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            flip_input=False,
            face_detector="sfd",
            face_detector_kwargs={"filter_threshold": threshold},
            compile=False,
        )

    def regions(self, image: UInt8Image) -> list[Region]:
        """All faces of an (H, W, 3) RGB image, in the detector's order: the surest first."""
        boxes = self._network.face_detector.detect_from_image(image.copy())
        return [(float(box[0]), float(box[1]), float(box[2]), float(box[3])) for box in boxes]

    def points(self, image: UInt8Image, region: Region) -> Points:
        """Landmarks of the face that is known to lie in ``region``."""
        (points,) = self._network.get_landmarks_from_image(image, detected_faces=[np.array(region)])
        return np.asarray(points, dtype=np.float64)


def area(region: Region) -> float:
    """Of a detector's box, in square px."""
    left, top, right, bottom = region
    return (right - left) * (bottom - top)


def load_landmarks(name: str, threshold: float = 0.5) -> Landmarks:
    """The landmark backend ``name`` (fan or dlib); UserError where its weights are absent.

    Args:
        threshold: fan: least score of a face.
    """
    one_of("data.align.landmarks", name, LANDMARK_BACKENDS)
    return DlibLandmarks() if name == "dlib" else FanLandmarks(threshold)


@dataclass(frozen=True)
class Crop:
    """One crop, and where it came from."""

    image: UInt8Image
    """(size, size, 3)"""
    landmarks: npt.NDArray[np.float32] | None
    """(68, 2) in px of the crop, x and y; None where no face is found in it."""
    geometry: dict[str, Any]
    """For the shard's index: ``box`` (left, top, side in the searched image), ``matrix`` (2 x 3, from px of the
    searched image to px of the crop), ``aligned`` (whether the face was turned upright, or needed not be)."""


class Cropper:
    """Cuts upright crops.

    Args:
        config: how.
        size: side of a crop in px.
        compat: quirks of the original code to be repeated.
        landmarks: backend; by default the one that ``config`` names.
    """

    def __init__(
        self,
        config: AlignConfig,
        size: int,
        compat: CompatConfig | None = None,
        landmarks: Landmarks | None = None,
    ) -> None:
        self.config, self.size, self.compat = config, size, compat or CompatConfig()
        self.landmarks = landmarks or load_landmarks(config.landmarks, config.threshold)

    def prepared(self, image: UInt8Image) -> UInt8Image:
        """An (H, W, 3) image at the size in which faces are searched."""
        if not self.config.resize:
            return image
        return resize(image, self.config.resize[1], self.config.resize[0], self.compat.truncate)

    def find(self, image: UInt8Image, near: Box | None = None) -> tuple[Found | None, int]:
        """One face of an (H, W, 3) RGB image, and how many there are.

        The largest one (compat.first_face: the detector's first); with ``near``, the one whose centre is nearest to the
        centre of that box.
        """
        regions = self.landmarks.regions(image)
        if not regions:
            return None, 0
        if near is not None:
            chosen = min(regions, key=near.distance_to)
        else:
            chosen = regions[0] if self.compat.first_face else max(regions, key=area)
        return Found(chosen, self.landmarks.points(image, chosen)), len(regions)

    def box_of(self, face: Found, video: bool) -> Box:
        """The square that is cut out for a face."""
        margin = self.config.video_margin if video else self.config.margin
        return landmark_box(face.points, margin, self.config.margin_px)

    def is_tiny(self, box: Box) -> bool:
        """Whether the face in ``box`` has too few pixels to be worth much."""
        return box.side < self.config.tiny_px

    def crop(self, image: UInt8Image, face: Found, box: Box) -> Crop:
        """The crop of a face: box, second landmark pass on the crop, alignment, final size."""
        return self._upright(image, box, face.region)

    def crop_box(self, image: UInt8Image, box: Box) -> Crop:
        """The crop of a box in which no face is known; turned upright where one is found in it (D-05)."""
        return self._upright(image, box, None)

    def _upright(self, image: UInt8Image, box: Box, region: Region | None) -> Crop:
        side = max(WORK_SIDE, self.size)
        edges = edges_inside(box, image) if self.compat.cut_at_border else edges_of(box)
        cut_out, to_side = cut(image, edges, side, self.compat.truncate), cut_matrix(edges, side)
        if region is not None:
            left, top, right, bottom = apply(to_side, np.array(region).reshape(2, 2)).ravel()
            region = (left, top, right, bottom)
        else:
            region = max(self.landmarks.regions(cut_out), key=area, default=None)
        if region is None:
            small = resize(cut_out, self.size, self.size, self.compat.truncate)
            return Crop(small, None, _geometry(box, to_side, self.size / side, aligned=False))
        points = self.landmarks.points(cut_out, region)
        turn = alignment(points, self.config.mode, side)
        turned = cut_out if self.config.mode is AlignMode.none else warp(cut_out, turn)
        landmarks = (apply(turn, points) * (self.size / side)).astype(np.float32)
        small = resize(turned, self.size, self.size, self.compat.truncate)
        return Crop(small, landmarks, _geometry(box, chained(turn, to_side), self.size / side, aligned=True))


def _geometry(box: Box, matrix: Matrix, scale: float, aligned: bool) -> dict[str, Any]:
    rows = [[round(float(value), 6) for value in row] for row in matrix * scale]
    return {"box": [box.left, box.top, box.side], "matrix": rows, "aligned": aligned}
