"""Finding faces and their 68 landmarks, and cutting upright crops out of images.

Backends: ``fan`` (FAN 2D with the S3FD detector, package face-alignment, the thesis' choice; its weights must lie in
torch hub's cache) and ``dlib`` (HOG detector and 68-point predictor, packages dlib-bin and face-recognition-models).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from affect_hpc.config.available import LANDMARK_BACKENDS
from affect_hpc.config.checks import one_of
from affect_hpc.config.data import AlignConfig
from affect_hpc.config.packaged import verified
from affect_hpc.data.align import WORK_SIDE, Box, Points, alignment, cut, landmark_box, resize, warp
from affect_hpc.data.source import UInt8Image

DETECT_SIDES = (640, 1280)
"""dlib: longer side of the image that is searched, in px; the larger one only where the smaller one shows no face.
dlib's detector sees faces from 80 px on."""
MAX_ENLARGEMENT = 4.0
FAN_THRESHOLD = 0.5
"""Least score of a face of S3FD (thesis)."""


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
        """All faces of an (H, W, 3) RGB image, largest first."""
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
        """All faces of an (H, W, 3) RGB image, largest first."""
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
                return _largest_first([(a / scale, b / scale, c / scale, d / scale) for a, b, c, d in edges])
        return []

    def points(self, image: UInt8Image, region: Region) -> Points:
        """Landmarks of the face that is known to lie in ``region``."""
        shape = self._predictor(np.ascontiguousarray(image), self._rectangle(*(round(edge) for edge in region)))
        return np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)


class FanLandmarks:
    """FAN 2D (Bulat and Tzimiropoulos 2017) with the S3FD detector."""

    name = "fan"

    def __init__(self, device: str = "") -> None:
        verified("fan")
        import torch  # noqa: PLC0415 (this backend alone needs networks)
        from face_alignment import FaceAlignment, LandmarksType  # noqa: PLC0415

        self._network = FaceAlignment(
            LandmarksType.TWO_D,
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            flip_input=False,
            face_detector="sfd",
            face_detector_kwargs={"filter_threshold": FAN_THRESHOLD},
            compile=False,
        )

    def regions(self, image: UInt8Image) -> list[Region]:
        """All faces of an (H, W, 3) RGB image, largest first."""
        boxes = self._network.face_detector.detect_from_image(image.copy())
        return _largest_first([(float(box[0]), float(box[1]), float(box[2]), float(box[3])) for box in boxes])

    def points(self, image: UInt8Image, region: Region) -> Points:
        """Landmarks of the face that is known to lie in ``region``."""
        (points,) = self._network.get_landmarks_from_image(image, detected_faces=[np.array(region)])
        return np.asarray(points, dtype=np.float64)


def _largest_first(regions: list[Region]) -> list[Region]:
    def key(region: Region) -> tuple[float, Region]:
        left, top, right, bottom = region
        return -(right - left) * (bottom - top), region

    return sorted(regions, key=key)


def load_landmarks(name: str) -> Landmarks:
    """The landmark backend ``name`` (fan or dlib); UserError where its weights are absent."""
    one_of("data.align.landmarks", name, LANDMARK_BACKENDS)
    return DlibLandmarks() if name == "dlib" else FanLandmarks()


class Cropper:
    """Cuts upright crops.

    Args:
        config: how.
        size: side of a crop in px.
        landmarks: backend; by default the one that ``config`` names.
    """

    def __init__(self, config: AlignConfig, size: int, landmarks: Landmarks | None = None) -> None:
        self.config, self.size = config, size
        self.landmarks = landmarks or load_landmarks(config.landmarks)

    def find(self, image: UInt8Image, near: Box | None = None) -> tuple[Found | None, int]:
        """One face of an (H, W, 3) RGB image, and how many there are.

        The largest one; with ``near``, the one whose centre is nearest to the centre of that box.
        """
        regions = self.landmarks.regions(image)
        if not regions:
            return None, 0
        chosen = regions[0] if near is None else min(regions, key=near.distance_to)
        return Found(chosen, self.landmarks.points(image, chosen)), len(regions)

    def box_of(self, face: Found, video: bool) -> Box:
        """The square that is cut out for a face."""
        return landmark_box(face.points, self.config.video_margin if video else self.config.margin)

    def crop(self, image: UInt8Image, face: Found, box: Box) -> UInt8Image:
        """The (size, size, 3) crop of a face: box, second landmark pass on the crop, alignment, final size."""
        side = max(WORK_SIDE, self.size)
        crop = cut(image, box, side)
        left, top, right, bottom = box.to_crop(np.array(face.region).reshape(2, 2), side).ravel()
        points = self.landmarks.points(crop, (left, top, right, bottom))
        return resize(warp(crop, alignment(points, self.config.mode, side)), self.size)
