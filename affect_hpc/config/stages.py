"""One config per stage: everything that fixes its result, and nothing else (transient fields aside)."""

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Self

from omegaconf import MISSING

from affect_hpc.config.available import PERCEPTUAL_LOSSES
from affect_hpc.config.checks import in_range, one_of
from affect_hpc.config.corpora import AudioFeatures
from affect_hpc.config.data import DataConfig
from affect_hpc.config.drawing import (
    ExtractFeaturesConfig,
    FindNearestConfig,
    GenerateConfig,
    InterpolateConfig,
    JudgeGenerationConfig,
    ReportGenerationConfig,
    ReportInterpolationConfig,
    TrainClassifierConfig,
)
from affect_hpc.config.edit import BOUND_DB, MIXING, REFINEMENTS, EndLevel, Inverter, Spacing, TimeInput
from affect_hpc.config.experts import ExpertsConfig
from affect_hpc.config.fields import absent_if, transient, transient_part
from affect_hpc.config.model import (
    ConditionConfig,
    DiffusionConfig,
    DiscriminatorConfig,
    FirstStageConfig,
    LatentConfig,
    UnetConfig,
)
from affect_hpc.config.provenance import ProvenanceConfig
from affect_hpc.config.train import Precision, TrainConfig
from affect_hpc.core.errors import UserError


class LatentMode(Enum):
    """What precompute_latents writes."""

    encode = "first-stage latents of the train split"
    invert = "noisy latents z_t0 of the validation split, by deterministic DDIM encoding under the true label"


class GanLoss(Enum):
    """Adversarial loss of the first stage (D-07)."""

    hinge = "hinge"
    log = "non-saturating log loss (Eq. 3.76)"


class DropoutUnit(Enum):
    """What one draw of the label dropout covers (D-08)."""

    sample = "each sample its own"
    batch = "the whole global batch"


class LatentsFrom(Enum):
    """Where the latents that train_ldm learns come from."""

    shards = "stage encode_latents, made once"
    images = "crops, encoded by the frozen first stage in each step: nothing is stored, each step costs an encoding"


class CompileBackend(Enum):
    """What torch.compile makes of the U-Net."""

    none = "nothing: it runs as it is"
    eager = "traced and run as it is (for tests)"
    aot_eager = "forward and backward traced and run as they are (for tests)"
    inductor = "fused kernels; needs a C++ compiler, on GPUs Triton, and a minute or more at the start"


@dataclass
class PrepareShardsConfig:
    """Corpus -> aligned crops in WebDataset shards."""

    data: DataConfig = MISSING


@dataclass
class PrecomputeAudioConfig:
    """Talking clips -> a row of speech features for each frame."""

    features: AudioFeatures = AudioFeatures.hidden
    network: str = transient("")
    """Folder of the network, or its name in the hub's cache; empty = the thesis' (config/available.py)."""
    network_digest: str = ""
    """SHA-256 over its files, set by the plan: its place is not its identity."""
    threads: int = 1


@dataclass
class TrainRefereeConfig:
    """Emotion and identity judges for corpora that have none, trained on the train split only."""

    channels: list[int] = MISSING
    embed_dim: int = 128
    """Length of the identity embedding."""
    emotion: TrainConfig = field(default_factory=TrainConfig)
    identity: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class TrainVqganConfig:
    """First stage (thesis section 4.3.2)."""

    first_stage: FirstStageConfig = MISSING
    discriminator: DiscriminatorConfig = MISSING
    train: TrainConfig = field(default_factory=TrainConfig)
    pixel_weight: float = 1.0
    """Weight of the mean absolute error."""
    mse_weight: float = 0.0
    gradient_weight: float = 0.0
    """Weight of the mean absolute error of finite differences (edges)."""
    perceptual: str = "none"
    """Perceptual loss network: none, lpips_vgg or efficientnet_lite0. It then may not judge."""
    perceptual_weight: float = 1.0
    codebook_weight: float = 1.0
    gan_loss: GanLoss = GanLoss.hinge
    disc_weight: float = 0.8
    disc_start: int = 10_000
    """Optimiser step at which the adversarial loss starts; negative = never."""
    warmup_steps: int = 0
    """First steps without quantisation, after which the codebook is filled from encoder outputs; 0 = none."""
    center_weight: float = 0.0
    """Extra weight of the pixel losses in the middle of the crop, where expression is."""
    pooled_weight: float = 0.0
    """Weight of the mean absolute error of images pooled over 8 x 8 pixels: holds the colours of large areas."""
    chroma_weight: float = 0.0
    """Weight of the mean absolute error of Cb and Cr pooled over 4 x 4 pixels: keeps colours alive."""
    revive_every: int = absent_if(0)
    """Steps after which codes that nothing used become encoder outputs of the batch at hand; 0 = never (thesis)."""
    codebook_every: int = transient(100)
    """Steps between two figures of the use of the codebook; 0 = never."""

    def check(self, key: str) -> None:
        """Raise UserError where a value is out of range; ``key`` is where this config stands."""
        one_of(f"{key}.perceptual", self.perceptual, ("none", *PERCEPTUAL_LOSSES))
        in_range(f"{key}.revive_every", self.revive_every, 0, 10**9, "steps")
        in_range(f"{key}.codebook_every", self.codebook_every, 0, 10**9, "steps")


@dataclass
class PrecomputeLatentsConfig:
    """precompute_latents: the part that both modes share."""

    mode: LatentMode = MISSING
    batch_size: int = 32
    """Samples of one forward pass; fixed, so that no split into parts can change a bit."""
    threads: int = 1
    """CPU threads of the networks, for the same reason."""


@dataclass
class EncodeLatentsConfig(PrecomputeLatentsConfig):
    """mode=encode: unquantised latents of a split."""

    mode: LatentMode = LatentMode.encode
    flip: bool = False
    """Also store the latent of the mirrored face as a second view."""
    split: str = absent_if("train")
    """train (what the denoiser learns) or val (what is edited)."""
    num_samples: int = absent_if(0)
    """Faces that are encoded, the first ones in shard order; 0 = all."""
    full_precision: bool = absent_if(False)
    """Store float32 instead of float16: an inversion amplifies what is lost."""


@dataclass
class InvertLatentsConfig(PrecomputeLatentsConfig):
    """mode=invert: z_t0 of encoded validation faces, shared by all targets of an edit, each with its certificate."""

    mode: LatentMode = LatentMode.invert
    gamma: float = MISSING
    """Guidance scale of the encoding pass."""
    t0: int = MISSING
    num_steps: int = MISSING
    time_input: TimeInput = MISSING
    spacing: Spacing = MISSING
    end_level: EndLevel = MISSING
    precision: Precision = absent_if(Precision.fp32)
    inverter: Inverter = absent_if(Inverter.ddim)
    refinements: int = absent_if(REFINEMENTS)
    mixing: float = absent_if(MIXING)
    bound_db: float = absent_if(BOUND_DB)

    def settled(self) -> Self:
        """The same without the settings that its inverter does not read: they may not make another run of it."""
        auto = self.inverter is Inverter.auto
        return replace(
            self,
            refinements=self.refinements if auto or self.inverter is Inverter.fixed_point else REFINEMENTS,
            mixing=self.mixing if auto or self.inverter is Inverter.coupled else MIXING,
            bound_db=self.bound_db if auto else BOUND_DB,
        )


@dataclass
class TrainLdmConfig:
    """Class-conditional latent diffusion with label dropout (thesis section 4.3.3)."""

    unet: UnetConfig = MISSING
    condition: ConditionConfig = MISSING
    diffusion: DiffusionConfig = MISSING
    latent: LatentConfig = MISSING
    train: TrainConfig = field(default_factory=TrainConfig)
    p_uncond: float = 0.2
    dropout_unit: DropoutUnit = DropoutUnit.sample
    ema_decay: float = 0.9999
    ema_embedding: bool = False
    """Average the label embedding too (the thesis averages the U-Net only)."""
    latents_from: LatentsFrom = absent_if(LatentsFrom.shards)
    flip: bool = absent_if(False)
    """latents_from=images: mirrored faces are samples too (wired to encode_latents.flip, which says it for shards)."""
    sample_every: int = transient(500)
    """Steps between sample grids in TensorBoard; 0 = never."""
    validate_every: int = transient(500)
    """Steps between two validation losses; 0 = at the end only."""
    validation_samples: int = transient(256)
    """Faces of the val split that the validation loss is taken on; 0 = no validation."""
    gradient_checkpointing: bool = transient(False)
    """Forget activations of the U-Net and compute them again going backward: less memory, more time."""
    compile: CompileBackend = transient(CompileBackend.none)

    def check(self, key: str) -> None:
        """Raise UserError where a value is out of range; ``key`` is where this config stands."""
        in_range(f"{key}.p_uncond", self.p_uncond, 0, 1)
        in_range(f"{key}.ema_decay", self.ema_decay, 0, 1)
        for name in ("sample_every", "validate_every"):
            in_range(f"{key}.{name}", getattr(self, name), 0, 10**9, "steps")
        in_range(f"{key}.validation_samples", self.validation_samples, 0, 10**6, "faces")
        if self.compile is not CompileBackend.none and self.train.zero_stage == 3:
            raise UserError(
                f"{key}.compile={self.compile.name} does not go with {key}.train.zero_stage=3, which gathers weights"
                f" layer by layer and so leaves nothing to fuse: set {key}.compile=none or a lower stage."
            )


@dataclass
class ReconstructConfig:
    """Decode the latents of validation faces: the ceiling of any edit, and the reference it is judged by."""

    batch_size: int = 32
    threads: int = 1


@dataclass
class ManipulateConfig:
    """Decode z_t0 under every target label."""

    gamma: float = MISSING
    t0: int = MISSING
    num_steps: int = MISSING
    targets: list[str] = MISSING
    round_trip: bool = True
    """Also decode under the true label: with gamma 1 it must give the reconstruction back."""
    time_input: TimeInput = MISSING
    spacing: Spacing = MISSING
    end_level: EndLevel = MISSING
    precision: Precision = absent_if(Precision.fp32)
    batch_size: int = 32
    threads: int = 1
    provenance: ProvenanceConfig = transient_part(ProvenanceConfig)


@dataclass
class EvaluateConfig:
    """Judge edited images against reconstruction, original and, where the corpus has it, the true target face."""

    experts: ExpertsConfig = MISSING
    baseline: bool = False
    """Judge the unedited and the reconstructed faces instead of an edit."""
    targets: list[str] = field(default_factory=list)
    num_samples: int = 0
    batch_size: int = 32
    threads: int = 1


@dataclass
class ReduceConfig:
    """Merge the metric states of all parts, divide once, and say how sure the means are."""

    seed: int = 0
    """Of the draws of bootstrap intervals."""
    draws: int = 1000
    """How often the faces are drawn again."""


@dataclass
class ReportConfig:
    """Tables, plots and contact sheets of a sweep."""

    title: str = MISSING
    sheet_faces: int = 6
    """Source faces of one contact sheet."""
    provenance: ProvenanceConfig = transient_part(ProvenanceConfig)


@dataclass
class StagesConfig:
    """One field per stage config."""

    prepare_shards: PrepareShardsConfig = field(default_factory=PrepareShardsConfig)
    precompute_audio: PrecomputeAudioConfig = field(default_factory=PrecomputeAudioConfig)
    train_referee: TrainRefereeConfig = field(default_factory=TrainRefereeConfig)
    train_vqgan: TrainVqganConfig = field(default_factory=TrainVqganConfig)
    encode_latents: EncodeLatentsConfig = field(default_factory=EncodeLatentsConfig)
    train_ldm: TrainLdmConfig = field(default_factory=TrainLdmConfig)
    invert_latents: InvertLatentsConfig = field(default_factory=InvertLatentsConfig)
    reconstruct: ReconstructConfig = field(default_factory=ReconstructConfig)
    manipulate: ManipulateConfig = field(default_factory=ManipulateConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    train_classifier: TrainClassifierConfig = field(default_factory=TrainClassifierConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    extract_features: ExtractFeaturesConfig = field(default_factory=ExtractFeaturesConfig)
    judge_generation: JudgeGenerationConfig = field(default_factory=JudgeGenerationConfig)
    find_nearest: FindNearestConfig = field(default_factory=FindNearestConfig)
    interpolate: InterpolateConfig = field(default_factory=InterpolateConfig)
    reduce: ReduceConfig = field(default_factory=ReduceConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    report_generation: ReportGenerationConfig = field(default_factory=ReportGenerationConfig)
    report_interpolation: ReportInterpolationConfig = field(default_factory=ReportInterpolationConfig)
