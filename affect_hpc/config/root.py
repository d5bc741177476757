"""The whole configuration of one sweep point, and its registration as the schema of hydra_configs."""

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from affect_hpc.config.cluster import ClusterConfig
from affect_hpc.config.corpora import CORPORA
from affect_hpc.config.data import DataConfig
from affect_hpc.config.drawing import Experiment, GenerationConfig, InterpolationConfig
from affect_hpc.config.edit import EditConfig
from affect_hpc.config.experts import ExpertsConfig
from affect_hpc.config.model import ModelConfig
from affect_hpc.config.provenance import ProvenanceConfig
from affect_hpc.config.sampling import SamplerConfig
from affect_hpc.config.stages import StagesConfig


@dataclass
class UseConfig:
    """Finished networks taken instead of being trained."""

    first_stage: str = "train"
    """train, package:NAME for one shipped with this package, or a folder that holds first_stage/."""
    ldm: str = "train"
    """train, or a folder that holds unet/ and conditioner.safetensors."""


@dataclass
class Config:
    """One point of a sweep."""

    stage: str = MISSING
    """Last stage to run, with all it needs; report is that of the experiment."""
    experiment: Experiment = Experiment.editing
    sweep: str = "point"
    """Name of the sweep, set by the files of group sweep."""
    seed: int = 0
    """Seed of every training."""
    store: str = "."
    """Folder that holds runs/ and views/."""
    dry_run: bool = False
    """Print the plan and the sbatch texts, submit nothing."""
    watch: bool = False
    """Follow the jobs on a SLURM cluster until they end (cluster=local always does)."""
    data: DataConfig = MISSING
    model: ModelConfig = field(default_factory=ModelConfig)
    use: UseConfig = field(default_factory=UseConfig)
    edit: EditConfig = field(default_factory=EditConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    interpolation: InterpolationConfig = field(default_factory=InterpolationConfig)
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    provenance: ProvenanceConfig = field(default_factory=ProvenanceConfig)
    stages: StagesConfig = field(default_factory=StagesConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def check(self) -> None:
        """Raise UserError where a value is out of range."""
        self.data.check()
        self.model.check()
        self.edit.check(self.model.diffusion.num_timesteps)
        self.sampler.check("sampler", self.model.diffusion.num_timesteps)
        self.generation.check(self.stages.judge_generation.k)
        self.interpolation.check(self.model.diffusion.num_timesteps, self.edit.spacing)
        self.provenance.check()
        self.cluster.check()
        stages = self.stages
        for key, train in {
            "stages.train_referee.emotion": stages.train_referee.emotion,
            "stages.train_referee.identity": stages.train_referee.identity,
            "stages.train_vqgan.train": stages.train_vqgan.train,
            "stages.train_ldm.train": stages.train_ldm.train,
            "stages.train_classifier.train": stages.train_classifier.train,
        }.items():
            train.check(key)
        stages.train_vqgan.check("stages.train_vqgan")
        stages.train_ldm.check("stages.train_ldm")
        if self.generation.classifier_scale:
            stages.train_classifier.check("stages.train_classifier")


def register() -> None:
    """Make the schemas known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name, corpus in CORPORA.items():
        store.store(group="data", name=f"{name}_schema", node=corpus)
