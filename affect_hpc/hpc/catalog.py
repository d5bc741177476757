"""All stages: what each is called, its version, its config, and what kind of machine it wants."""

from dataclasses import dataclass
from typing import Any

from affect_hpc.config import drawing, stages


@dataclass(frozen=True)
class StageSpec:
    """One entry of the catalog."""

    stage: str
    """Module of affect_hpc.stages and first folder below runs/."""
    version: int
    """Raised when the stage computes something else for the same config: old results are then not reused."""
    config: type[Any]
    resource_class: str
    """Key of cluster.resources: cpu, train or infer."""
    divisible: bool
    """Whether array parts may share the work of one run."""


CATALOG: dict[str, StageSpec] = {
    "prepare_shards": StageSpec("prepare_shards", 3, stages.PrepareShardsConfig, "cpu", divisible=True),
    "precompute_audio": StageSpec("precompute_audio", 1, stages.PrecomputeAudioConfig, "infer", divisible=True),
    "train_referee": StageSpec("train_referee", 3, stages.TrainRefereeConfig, "train", divisible=False),
    "train_vqgan": StageSpec("train_vqgan", 3, stages.TrainVqganConfig, "train", divisible=False),
    "encode_latents": StageSpec("precompute_latents", 1, stages.EncodeLatentsConfig, "infer", divisible=True),
    "train_ldm": StageSpec("train_ldm", 3, stages.TrainLdmConfig, "train", divisible=False),
    "reconstruct": StageSpec("reconstruct", 3, stages.ReconstructConfig, "infer", divisible=True),
    "invert_latents": StageSpec("precompute_latents", 5, stages.InvertLatentsConfig, "infer", divisible=True),
    "manipulate": StageSpec("manipulate", 5, stages.ManipulateConfig, "infer", divisible=True),
    "evaluate": StageSpec("evaluate", 2, stages.EvaluateConfig, "infer", divisible=True),
    "train_classifier": StageSpec("train_classifier", 1, drawing.TrainClassifierConfig, "train", divisible=False),
    "generate": StageSpec("generate", 3, drawing.GenerateConfig, "infer", divisible=True),
    "extract_features": StageSpec("extract_features", 1, drawing.ExtractFeaturesConfig, "infer", divisible=True),
    "judge_generation": StageSpec("judge_generation", 1, drawing.JudgeGenerationConfig, "cpu", divisible=False),
    "find_nearest": StageSpec("find_nearest", 1, drawing.FindNearestConfig, "cpu", divisible=True),
    "interpolate": StageSpec("interpolate", 3, drawing.InterpolateConfig, "infer", divisible=True),
    "reduce": StageSpec("reduce", 2, stages.ReduceConfig, "cpu", divisible=False),
    "report": StageSpec("report", 4, stages.ReportConfig, "cpu", divisible=False),
    "report_generation": StageSpec("report_generation", 1, drawing.ReportGenerationConfig, "cpu", divisible=False),
    "report_interpolation": StageSpec(
        "report_interpolation", 1, drawing.ReportInterpolationConfig, "cpu", divisible=False
    ),
}
"""By kind: precompute_latents is one stage of two kinds."""
