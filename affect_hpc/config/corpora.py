"""The corpora: one config each. Their sources are in affect_hpc/data, their values in hydra_configs/data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Self

from omegaconf import MISSING

from affect_hpc.config import files, terms, voices
from affect_hpc.config.available import check_expert, landmarks_digest, settle_landmarks
from affect_hpc.config.checks import in_range, one_of
from affect_hpc.config.data import AlignConfig, AlignMode, CompatConfig, DataConfig, OnBadFile, OnNoFace
from affect_hpc.config.fields import transient
from affect_hpc.core.errors import UserError


class LabelFrom(Enum):
    """Where the emotion label of a face comes from."""

    folder = "name of the sub-folder"
    pseudo = "prediction of the labelling expert"


class AffectNetLayout(Enum):
    """The two forms in which AffectNet's owners have shipped it."""

    auto = "the one that data.root shows"
    csv = "2017: Manually_Annotated images with training.csv and validation.csv"
    npy = "later: train_set and val_set with images/ and annotations/*.npy"


class AudioFeatures(Enum):
    """Networks that turn speech into a row for each frame (D-27, D-28)."""

    hidden = "wav2vec 2.0 base, last hidden state, 768 values"
    asr_logits = "wav2vec 2.0 large, CTC logits of 29 characters"


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

    @property
    def has_certain_labels(self) -> bool:
        return True


@dataclass
class DemoClipsDataConfig(DataConfig):
    """Procedural talking faces: mouth shapes follow the phones of synthesised speech; with transcript and sound."""

    train_samples: int = MISSING
    val_samples: int = MISSING
    emotions_per_identity: int = 2
    """Clips drawn of each identity of the train split, each with another emotion (val: one)."""
    words: int = 3
    """Words a sentence."""
    voice: str = "auto"
    """espeak (eSpeak NG), tones (two tones for each letter, needs nothing), or auto: espeak where it is installed."""
    voice_version: str = ""
    """Of eSpeak NG, set by the plan: another version speaks otherwise."""
    fps: float = 30.0
    """Frames a second."""
    sample_rate: int = 16_000
    """Of the sound, in Hz."""
    seed: int = 0

    def check(self) -> None:
        super().check()
        in_range("data.size", self.size, 64, 1024, "px")
        in_range("data.train_samples", self.train_samples, 1, 1_000_000)
        in_range("data.val_samples", self.val_samples, 1, 1_000_000)
        in_range("data.emotions_per_identity", self.emotions_per_identity, 1, 8)
        in_range("data.words", self.words, 1, 20)
        one_of("data.voice", self.voice, ("auto", *voices.VOICES))
        in_range("data.fps", self.fps, 15, 120)
        in_range("data.sample_rate", self.sample_rate, 8000, 48_000, "Hz")

    def settled(self, store: Path) -> Self:
        voice, version = voices.settle_voice(self.voice)
        return replace(self, voice=voice, voice_version=version)

    @property
    def holds_clips(self) -> bool:
        return True


@dataclass
class FilesDataConfig(DataConfig):
    """What corpora share that lie below one folder."""

    root: str = transient(MISSING)
    """Folder of the corpus. Its content is the corpus' identity, its place is not."""
    digest: str = ""
    """Digest of the corpus, set by the plan: new or changed files make a new run."""
    align: AlignConfig = field(default_factory=AlignConfig)
    compat: CompatConfig = field(default_factory=CompatConfig)
    on_bad_file: OnBadFile = OnBadFile.fail
    seed: int = 0

    def check(self) -> None:
        super().check()
        if not self.root:
            raise UserError(f"data.root is empty: give the folder of the corpus, data={self.name} data.root=DIR.")
        self.align.check()

    def settled(self, store: Path) -> Self:
        backend = settle_landmarks(self.align.landmarks)
        align = replace(self.align, landmarks=backend, landmarks_digest=landmarks_digest(backend))
        root = str(Path(self.root).expanduser().absolute())
        return replace(self, root=root, digest=self.corpus_digest(store / "runs" / "_corpora.json"), align=align)

    def corpus_digest(self, cache: Path) -> str:
        """Digest of what the corpus holds; ``cache`` remembers what took long to find out."""
        raise NotImplementedError


@dataclass
class FolderDataConfig(FilesDataConfig):
    """The user's own photos and videos below one folder, at any depth."""

    label: LabelFrom = LabelFrom.folder
    labeller: str = MISSING
    """Emotion expert that labels when data.label=pseudo. It then may not judge."""
    val_fraction: float = 0.2
    """Share of the files (an identity each) held out for validation; a single file is split in time."""
    frame_stride: int = MISSING
    """Videos: every n-th frame is used."""
    max_frames: int = MISSING
    """Videos: frames used of one file at the most, evenly spread; 0 for all."""
    experts_folder: str = transient("")
    """As experts.folder, for the labeller."""

    def check(self) -> None:
        super().check()
        in_range("data.val_fraction", self.val_fraction, 0.01, 0.9)
        in_range("data.frame_stride", self.frame_stride, 1, 10_000, "frames")
        in_range("data.max_frames", self.max_frames, 0, 10_000_000, "frames")

    def corpus_digest(self, cache: Path) -> str:
        if self.label is LabelFrom.folder:
            files.folder_labels(files.list_files(self.root))
        else:
            check_expert(self.labeller, self.experts_folder)
        return files.corpus_digest(self.root, cache)

    @property
    def labeller_in_use(self) -> str:
        return self.labeller if self.label is LabelFrom.pseudo else ""


@dataclass
class GatedDataConfig(FilesDataConfig):
    """What corpora share whose owners' terms must be accepted first."""

    licences: str = transient("")
    """Folder of the records of acceptance, set by the plan."""

    def settled(self, store: Path) -> Self:
        terms.require_accepted(self.name, store / terms.FOLDER)
        return replace(super().settled(store), licences=str(store / terms.FOLDER))


@dataclass
class AffectNetDataConfig(GatedDataConfig):
    """AffectNet, manually annotated images with one of eight emotions (thesis section 4.2)."""

    layout: AffectNetLayout = AffectNetLayout.auto
    on_no_face: OnNoFace = OnNoFace.fallback
    max_samples: int = 0
    """Images used of each split at the most, the first ones; 0 for all."""

    def check(self) -> None:
        super().check()
        in_range("data.max_samples", self.max_samples, 0, 10_000_000)

    def corpus_digest(self, cache: Path) -> str:
        return files.tree_digest(self.root, cache, contents=(".csv",))


@dataclass
class MeadDataConfig(GatedDataConfig):
    """MEAD, talking clips of actors in eight emotions (thesis section 5.1)."""

    view: str = "front"
    test_actors: list[str] = field(default_factory=list)
    """Actors of the test split (thesis)."""
    val_actors: int = 4
    """Further actors, chosen by seed, whose clips are the validation split (D-23)."""
    fps: float = 30.0
    """Frames a second of the prepared clips; videos with another or a varying rate are brought to it."""
    sample_rate: int = 16_000
    """Of the prepared sound, in Hz."""
    mask_margin_px: int = 5
    """How far above the upper lip the masked rows begin, at 128 px (thesis)."""
    transcripts: str = transient("")
    """CSV with the columns clip and text, a line a clip (ACTOR_EMOTION_LEVEL_ID); empty for none."""
    transcripts_digest: str = ""
    """Set by the plan."""

    def check(self) -> None:
        super().check()
        in_range("data.val_actors", self.val_actors, 0, 60)
        in_range("data.fps", self.fps, 1, 120)
        in_range("data.sample_rate", self.sample_rate, 8000, 48_000, "Hz")
        in_range("data.mask_margin_px", self.mask_margin_px, 0, 64, "px")
        if self.align.mode is not AlignMode.none or not self.align.fixed_box:
            raise UserError(
                f"data.align.mode={self.align.mode.name} with data.align.fixed_box={str(self.align.fixed_box).lower()}"
                " would make every frame of a talking clip jump: data=mead needs mode=none and fixed_box=true."
            )

    def settled(self, store: Path) -> Self:
        digest = files.file_digest("data.transcripts", self.transcripts) if self.transcripts else ""
        return replace(super().settled(store), transcripts_digest=digest)

    def corpus_digest(self, cache: Path) -> str:
        return files.tree_digest(self.root, cache)

    @property
    def holds_clips(self) -> bool:
        return True


CORPORA: Mapping[str, type[DataConfig]] = {
    "demo": DemoDataConfig,
    "demo_clips": DemoClipsDataConfig,
    "folder": FolderDataConfig,
    "affectnet": AffectNetDataConfig,
    "mead": MeadDataConfig,
}
"""By the name of the file in hydra_configs/data."""
