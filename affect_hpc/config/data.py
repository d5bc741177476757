"""What a corpus is and how its faces become crops. The corpora themselves stand in corpora.py."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from omegaconf import MISSING

from affect_hpc.config.checks import in_range, one_of
from affect_hpc.core.errors import UserError


class AlignMode(Enum):
    """How a face is turned upright (thesis_facts section 1.2, D-01, D-02)."""

    none = "not at all: the box as it is"
    roll_only = "rotation about the eye midpoint"
    repo_compat = "rotation about the transposed eye midpoint, as the original code did"
    similarity = "similarity transform to canonical eye and mouth points"


class OnBadFile(Enum):
    """What happens to a file that cannot be used."""

    fail = "name them all and stop"
    skip = "leave out, count and list in the manifest"


class OnNoFace(Enum):
    """What happens to an image whose face the detector does not find (D-05)."""

    leave_out = "leave out, count and list in the manifest"
    fallback = "cut the box that the corpus annotates, turned upright where landmarks are found in it"


@dataclass
class CompatConfig:
    """Quirks of the thesis' original code, all off by default."""

    first_face: bool = False
    """Take the first face that the detector returns instead of the largest one."""
    cut_at_border: bool = False
    """A box that reaches past the border is moved in at the left and top, cut at the right and bottom, and then
    stretched to a square, instead of being filled by reflection."""
    truncate: bool = False
    """Grey levels are cut to whole numbers after resizing instead of being rounded."""


@dataclass
class AlignConfig:
    """From an image with a face to an upright square crop."""

    mode: AlignMode = AlignMode.roll_only
    landmarks: str = MISSING
    """68-point landmark backend: auto, fan or dlib; the plan settles auto: fan where its weights are, else dlib."""
    landmarks_digest: str = ""
    """SHA-256 over the backend's weights, set by the plan."""
    threshold: float = 0.5
    """fan: least score of a face of its detector (thesis: 0.5 for images, 0.8 for MEAD)."""
    resize: list[int] = field(default_factory=list)
    """Height and width in px to which an image is brought before faces are searched, its aspect not kept (D-04);
    empty = as it is."""
    margin: float = 0.0
    """Widening of the landmark box on each side, as a share of its longer side. The thesis has none for images."""
    margin_px: int = 0
    """The same in px of the searched image (thesis: 10 for MEAD)."""
    fixed_box: bool = True
    """Videos: one box for the whole clip, from the first frame with a face (D-24), instead of one per frame."""
    video_margin: float = 0.09
    """As margin, for videos (the thesis widens a box of about 110 px by 10 px)."""
    tiny_px: int = 32
    """Faces whose box is smaller are counted and listed as tiny."""
    drop_tiny: bool = False
    """Whether tiny faces are left out."""

    def check(self) -> None:
        """Raise UserError where a value is out of range."""
        in_range("data.align.margin", self.margin, 0, 2)
        in_range("data.align.margin_px", self.margin_px, 0, 1000, "px")
        in_range("data.align.video_margin", self.video_margin, 0, 2)
        in_range("data.align.threshold", self.threshold, 0, 1)
        in_range("data.align.tiny_px", self.tiny_px, 0, 4096, "px")
        one_of("data.align.landmarks", self.landmarks, ("auto", "fan", "dlib"))
        if self.resize and (len(self.resize) != 2 or not all(32 <= side <= 4096 for side in self.resize)):
            raise UserError(
                f"data.align.resize={self.resize} is no size: give [height,width] with 32 to 4096 px each, or []."
            )


@dataclass
class DataConfig:
    """What all corpora share."""

    name: str = MISSING
    size: int = MISSING
    """Side of a crop in pixels."""
    samples_per_shard: int = 500
    """Samples in one WebDataset tar: the unit of work of an array part."""

    def check(self) -> None:
        """Raise UserError where a value is out of range."""
        in_range("data.size", self.size, 32, 1024, "px")
        in_range("data.samples_per_shard", self.samples_per_shard, 1, 100_000)

    def settled(self, store: Path) -> "DataConfig":
        """This config with what only a look at the machine can tell filled in; asked by the plan.

        Args:
            store: where launches keep runs/ and what they remember of corpora.

        Raises:
            UserError: the corpus is absent, incomplete, or its terms have not been accepted.
        """
        del store
        return self

    @property
    def labeller_in_use(self) -> str:
        """The expert that gives the labels; empty where they come with the corpus."""
        return ""

    @property
    def has_certain_labels(self) -> bool:
        """Whether labels and identities are beyond doubt, so that judges may be trained on them."""
        return False

    @property
    def holds_clips(self) -> bool:
        """Whether a sample is a talking clip, not a face."""
        return False
