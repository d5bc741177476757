"""Experiments that draw faces, from noise and between two faces: their keys, and the configs of their stages."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from affect_hpc.config.checks import in_range, one_of
from affect_hpc.config.edit import EndLevel, Spacing, TimeInput, timesteps
from affect_hpc.config.fields import absent_if, transient, transient_part
from affect_hpc.config.provenance import ProvenanceConfig
from affect_hpc.config.sampling import SamplerConfig
from affect_hpc.config.train import Precision, TrainConfig
from affect_hpc.core.errors import UserError

MOST = 10_000_000
SPACES = ("pixel", "features")


class Experiment(Enum):
    """What a launch is about: which runs a point has, and what its report shows."""

    editing = "faces followed back to noise and decoded under other labels (thesis section 4.4)"
    generation = "faces drawn from noise, judged as a set, and their nearest neighbours (sections 4.3.3 and 4.3.4)"
    interpolation = "ways from one face to another through the space of noise (section 4.3.5)"


class Slerp(Enum):
    """How two noisy latents are mixed (Eq. 4.12)."""

    proper = "the angle is that of the unit vectors; the latents themselves are mixed"
    printed = "as the text prints it: the unit vectors are mixed, and their length is lost"


class BlendLabel(Enum):
    """Under which label a mixture of two faces is decoded (D-49: the thesis does not say)."""

    nearer = "that of the nearer end, the first one's in the middle"
    none = "no label"


@dataclass
class GenerationConfig:
    """How many faces are drawn, and what they are compared with."""

    per_class: int = 5000
    """Faces of each emotion (D-12)."""
    seed: int = 0
    """Of the faces: number i of a seed is the same face in every launch."""
    batch_size: int = 64
    """Faces that are drawn together; fixed, so that no division into parts can change a bit."""
    classifier_scale: float = 0.0
    """Guidance by a classifier of noisy latents (Eq. 3.70), which is trained for it; 0 = none."""
    real_per_class: int = 3750
    """Training faces of each emotion that all drawn faces together are compared with; 0 = all. A single emotion is
    always compared with all of its own."""
    neighbours: int = 10
    """Nearest training faces shown for a drawn one."""
    queries_per_class: int = 1
    """Drawn faces of each emotion whose neighbours are looked for; 0 = none."""
    space: str = "pixel"
    """Where near means near: pixel (squared difference, as in the thesis) or features (those of experts.features)."""
    kid_subset: int = 1000
    """Faces of one subset of KID; no emotion may have fewer."""

    def check(self, radius_k: int) -> None:
        """Raise UserError where a value is out of range.

        Args:
            radius_k: k of precision and recall: fewer faces have no such neighbour.
        """
        in_range("generation.per_class", self.per_class, radius_k + 1, MOST, "faces")
        in_range("generation.seed", self.seed, 0, 2**63 - 1)
        in_range("generation.batch_size", self.batch_size, 1, 100_000)
        in_range("generation.classifier_scale", self.classifier_scale, 0, 1000)
        in_range("generation.real_per_class", self.real_per_class, 0, MOST, "faces")
        in_range("generation.neighbours", self.neighbours, 1, 1000)
        in_range("generation.queries_per_class", self.queries_per_class, 0, self.per_class)
        one_of("generation.space", self.space, SPACES)
        in_range("generation.kid_subset", self.kid_subset, 2, self.per_class, "faces")


@dataclass
class InterpolationConfig:
    """Two faces followed back to t0, mixed there, and decoded."""

    pairs: int = 8
    """Pairs of validation faces, of two emotions each where the corpus has them."""
    seed: int = 0
    """Of the choice of pairs, and of fresh noise where eta is not 0."""
    num_points: int = 10
    """Faces of one way, both ends included, evenly spaced."""
    t0: int = 500
    num_steps: int = 20
    gamma: float = 1.0
    """Guidance scale of both passes."""
    eta: float = 0.0
    """Share of fresh noise while decoding: 0 in Fig. 4.3, 1 in Fig. 4.4."""
    slerp: Slerp = Slerp.proper
    label: BlendLabel = BlendLabel.nearer
    batch_size: int = 4
    """Pairs that are computed together; fixed, so that no division into parts can change a bit."""

    def check(self, num_timesteps: int, spacing: Spacing) -> None:
        """Raise UserError where a value is out of range for a process of ``num_timesteps`` levels.

        Args:
            spacing: that of edits, which interpolation shares.
        """
        in_range("interpolation.pairs", self.pairs, 1, MOST)
        in_range("interpolation.seed", self.seed, 0, 2**63 - 1)
        in_range("interpolation.num_points", self.num_points, 2, 1000)
        in_range("interpolation.t0", self.t0, 2, num_timesteps - 1)
        in_range("interpolation.num_steps", self.num_steps, 2, self.t0)
        timesteps(spacing, self.num_steps, self.t0, num_timesteps, "interpolation")
        in_range("interpolation.gamma", self.gamma, 0, 100)
        in_range("interpolation.eta", self.eta, 0, 1)
        in_range("interpolation.batch_size", self.batch_size, 1, 100_000)


@dataclass
class TrainClassifierConfig:
    """A classifier of noisy latents, for guidance (thesis section 3.3.1; Dhariwal and Nichol 2021)."""

    channels: list[int] = MISSING
    """Width of each level of the network; latents are halved from level to level."""
    head_channels: int = 32
    """Channels of one attention head."""
    train: TrainConfig = field(default_factory=TrainConfig)

    def check(self, key: str) -> None:
        """Raise UserError where a value is out of range; ``key`` is where this config stands."""
        if not self.channels:
            raise UserError(f"{key}.channels is empty: give the width of each level, such as [64,128].")
        for width in self.channels:
            in_range(f"{key}.channels", width, 1, 100_000)
            if width % self.head_channels:
                raise UserError(
                    f"{key}.channels={self.channels} do not divide into heads of {key}.head_channels="
                    f"{self.head_channels}: give multiples of it."
                )


@dataclass
class GenerateConfig:
    """Faces of every emotion from noise (thesis section 4.3.3)."""

    sampler: SamplerConfig = MISSING
    per_class: int = MISSING
    seed: int = MISSING
    classifier_scale: float = MISSING
    batch_size: int = MISSING
    threads: int = 1
    provenance: ProvenanceConfig = transient_part(ProvenanceConfig)


@dataclass
class ExtractFeaturesConfig:
    """What networks see in drawn faces, or in the training faces that they are compared with."""

    features: str = MISSING
    """Network of FID and KID, settled by the plan."""
    manifold_features: str = MISSING
    """Network of precision and recall, settled by the plan; the same one is asked once."""
    folder: str = transient("")
    """Of the networks' weights (experts.folder)."""
    digest: str = absent_if("")
    """SHA-256 over weights that the user supplied, set by the plan."""
    split: str = ""
    """Of the corpus; empty for drawn faces."""
    batch_size: int = MISSING
    threads: int = 1


@dataclass
class JudgeGenerationConfig:
    """FID, KID, precision and recall of each emotion and of all together (Table 4.1)."""

    real_per_class: int = MISSING
    kid_subset: int = MISSING
    kid_subsets: int = 100
    seed: int = 2020
    """Of KID's subsets (that of torch-fidelity)."""
    k: int = 3
    """Precision and recall: whose distance is the radius of a sample."""


@dataclass
class FindNearestConfig:
    """The training faces that lie nearest to drawn ones (thesis section 4.3.4)."""

    space: str = MISSING
    k: int = MISSING
    queries_per_class: int = MISSING
    threads: int = 1


@dataclass
class InterpolateConfig:
    """Ways from one validation face to another (thesis section 4.3.5, Eq. 4.12)."""

    pairs: int = MISSING
    seed: int = MISSING
    num_points: int = MISSING
    t0: int = MISSING
    num_steps: int = MISSING
    gamma: float = MISSING
    eta: float = MISSING
    slerp: Slerp = MISSING
    label: BlendLabel = MISSING
    batch_size: int = MISSING
    time_input: TimeInput = MISSING
    spacing: Spacing = MISSING
    end_level: EndLevel = MISSING
    precision: Precision = Precision.fp32
    threads: int = 1
    provenance: ProvenanceConfig = transient_part(ProvenanceConfig)


@dataclass
class ReportGenerationConfig:
    """Table 4.1, uncurated faces, and nearest neighbours of a sweep."""

    title: str = MISSING
    sheet_faces: int = 10
    """Drawn faces of each emotion on a sheet, the first ones."""
    provenance: ProvenanceConfig = transient_part(ProvenanceConfig)


@dataclass
class ReportInterpolationConfig:
    """Strips of a sweep."""

    title: str = MISSING
    provenance: ProvenanceConfig = transient_part(ProvenanceConfig)
