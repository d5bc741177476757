"""What a corpus is and how its faces become crops."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from affect_hpc.config.checks import in_range, one_of
from affect_hpc.config.fields import transient
from affect_hpc.core.errors import UserError


class AlignMode(Enum):
    """How a face is turned upright (thesis_facts section 1.2, D-01, D-02)."""

    roll_only = "rotation about the eye midpoint"
    repo_compat = "rotation about the transposed eye midpoint, as the original code did"
    similarity = "similarity transform to canonical eye and mouth points"


class LabelFrom(Enum):
    """Where the emotion label of a face comes from."""

    folder = "name of the sub-folder"
    pseudo = "prediction of the labelling expert"


class OnBadFile(Enum):
    """What happens to a file that cannot be used."""

    fail = "name them all and stop"
    skip = "leave out, count and list in the manifest"


@dataclass
class AlignConfig:
    """From an image with a face to an upright square crop."""

    mode: AlignMode = AlignMode.roll_only
    landmarks: str = MISSING
    """68-point landmark backend: auto, fan or dlib; the plan settles auto: fan where its weights are, else dlib."""
    margin: float = 0.0
    """Widening of the landmark box on each side, as a share of its longer side. The thesis has none for images."""
    fixed_box: bool = True
    """Videos: one box for the whole clip, from the first frame with a face (D-24), instead of one per frame."""
    video_margin: float = 0.09
    """As margin, for videos (the thesis widens a box of about 110 px by 10 px)."""


@dataclass
class DataConfig:
    """What all corpora share."""

    name: str = MISSING
    size: int = MISSING
    """Side of a crop in pixels."""
    samples_per_shard: int = 500
    """Faces in one WebDataset tar: the unit of work of an array part."""

    def check(self) -> None:
        """Raise UserError where a value is out of range."""
        in_range("data.size", self.size, 32, 1024, "px")
        in_range("data.samples_per_shard", self.samples_per_shard, 1, 100_000)


@dataclass
class DemoDataConfig(DataConfig):
    """Procedural faces: no download, identities of train and val disjoint."""

    train_samples: int = MISSING
    val_samples: int = MISSING
    emotions_per_identity: int = 2
    """Faces drawn of each identity of the train split, each with another emotion (val: one)."""
    seed: int = 0

    def check(self) -> None:
        super().check()
        in_range("data.size", self.size, 64, 1024, "px")
        in_range("data.train_samples", self.train_samples, 8, 1_000_000)
        in_range("data.val_samples", self.val_samples, 8, 1_000_000)
        in_range("data.emotions_per_identity", self.emotions_per_identity, 1, 8)


@dataclass
class FolderDataConfig(DataConfig):
    """The user's own photos and videos below one folder."""

    root: str = transient(MISSING)
    """Folder that holds the photos and videos, at any depth. Its content is the corpus' identity, its place is not."""
    label: LabelFrom = LabelFrom.folder
    labeller: str = MISSING
    """Emotion expert that labels when data.label=pseudo. It then may not judge."""
    val_fraction: float = 0.2
    """Share of the files (an identity each) held out for validation; a single file is split in time."""
    frame_stride: int = MISSING
    """Videos: every n-th frame is used."""
    max_frames: int = MISSING
    """Videos: frames used of one file at the most, evenly spread; 0 for all."""
    on_bad_file: OnBadFile = OnBadFile.fail
    align: AlignConfig = field(default_factory=AlignConfig)
    experts_folder: str = transient("")
    """As experts.folder, for the labeller."""
    digest: str = ""
    """Content digest of the corpus, set by the plan: new or changed files make a new run."""
    seed: int = 0

    def check(self) -> None:
        super().check()
        if not self.root:
            raise UserError("data.root is empty: give the folder with your photos and videos, data.root=DIR.")
        in_range("data.val_fraction", self.val_fraction, 0.01, 0.9)
        in_range("data.frame_stride", self.frame_stride, 1, 10_000, "frames")
        in_range("data.max_frames", self.max_frames, 0, 10_000_000, "frames")
        in_range("data.align.margin", self.align.margin, 0, 2)
        in_range("data.align.video_margin", self.align.video_margin, 0, 2)
        one_of("data.align.landmarks", self.align.landmarks, ("auto", "fan", "dlib"))
