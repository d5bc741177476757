"""What each experiment needs at one point of a sweep, and what its report is made of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from affect_hpc.config.available import SPEECH_NETWORKS, speech_digest
from affect_hpc.config.drawing import Experiment
from affect_hpc.config.root import Config
from affect_hpc.config.stages import EncodeLatentsConfig, LatentsFrom
from affect_hpc.core.errors import UserError
from affect_hpc.hpc.catalog import CATALOG
from affect_hpc.hpc.graph import Edge, External, Node
from affect_hpc.hpc.planner import Parents, Planner, judges_of

TRAININGS = ("train_vqgan", "train_ldm", "train_classifier")
"""Kinds that state how much of the machine's peak they reach."""


class Point:
    """The nodes of one sweep point, each made when something asks for it.

    Attributes:
        nodes: by kind, or by a name of their own where a kind occurs twice (``encode_val``, ``baseline``).
    """

    def __init__(self, planner: Planner, cfg: Config) -> None:
        self.planner, self.cfg, self.stages = planner, cfg, cfg.stages
        self.nodes: dict[str, Node] = {}

    def add(self, kind: str, config: Any, parents: Parents, name: str = "") -> Edge:
        """One node more."""
        parts = self.cfg.cluster.parts if CATALOG[kind].divisible else 1
        if kind in TRAININGS and not config.train.peak_tflops:
            peak = self.cfg.cluster.peak_tflops.get(config.train.precision.name, 0.0)
            config = replace(config, train=replace(config.train, peak_tflops=peak))
        config = _with_signer(config, self.cfg)
        _check_blocks(kind, config, parents)
        self.nodes[name or kind] = self.planner.node(kind, config, parents, parts)
        return Edge(self.nodes[name or kind])

    @cached_property
    def shards(self) -> Edge:
        """The corpus."""
        return self.add(
            "prepare_shards", replace(self.stages.prepare_shards, data=self.planner.corpus(self.cfg.data)), {}
        )

    @cached_property
    def first_stage(self) -> Edge | External:
        """The first stage, given or trained."""
        given = self.cfg.use.first_stage
        if given == "train":
            return self.add("train_vqgan", self.stages.train_vqgan, {"shards": [self.shards]})
        return self.planner.external("use.first_stage", given, "first_stage/config.json")

    @cached_property
    def train_latents(self) -> Edge:
        """Latents of the train split."""
        return self.add(
            "encode_latents",
            self.stages.encode_latents,
            {"shards": [self.shards], "first_stage": [self.first_stage]},
        )

    @cached_property
    def val_latents(self) -> Edge:
        """Val faces, encoded once for everything that starts from them: at full precision, in the blocks of edits."""
        encoding = EncodeLatentsConfig(
            split="val",
            num_samples=self.cfg.edit.num_samples,
            full_precision=True,
            batch_size=self.cfg.edit.batch_size,
            threads=self.stages.encode_latents.threads,
        )
        parents: Parents = {"shards": [self.shards], "first_stage": [self.first_stage]}
        return self.add("encode_latents", encoding, parents, "encode_val")

    @cached_property
    def ldm(self) -> Edge | External:
        """The latent diffusion model, given or trained."""
        given = self.cfg.use.ldm
        if given != "train":
            return self.planner.external("use.ldm", given, "unet/config.json")
        # The faces are for validation, or instead of the latents.
        learnt: Parents = {"faces": [self.shards], "first_stage": [self.first_stage]}
        if self.stages.train_ldm.latents_from is LatentsFrom.shards:
            learnt = {"latents": [self.train_latents], **learnt}
        return self.add("train_ldm", self.stages.train_ldm, learnt)

    @property
    def networks(self) -> Parents:
        """What draws and edits faces."""
        # In this order the plan shows them.
        first_stage, ldm = self.first_stage, self.ldm
        return {"first_stage": [first_stage], "ldm": [ldm]}


def editing(point: Point) -> None:
    """Inverted faces, decoded under other labels and judged; beside them the unedited ones (thesis section 4.4)."""
    stages = point.stages
    experts = point.planner.judges(point.cfg)
    shards, networks = point.shards, point.networks
    judges: Parents = {}
    if "referee" in judges_of(experts):
        judges = {"referee": [point.add("train_referee", stages.train_referee, {"shards": [shards]})]}
    encoded = point.val_latents
    clean: Parents = {"latents": [Edge(encoded.node, each=True)], "first_stage": [point.first_stage]}
    reconstruction = point.add("reconstruct", stages.reconstruct, clean)
    unedited = replace(stages.evaluate, experts=experts, baseline=True, targets=[])
    baseline = point.add(
        "evaluate",
        unedited,
        {"shards": [shards], "reconstruction": [Edge(reconstruction.node, each=True)], **judges},
        "baseline",
    )
    point.add("reduce", stages.reduce, {"states": [baseline]}, "reduce_baseline")

    invert = replace(stages.invert_latents, gamma=point.cfg.edit.resolved_encode_gamma()).settled()
    # Many points start from the same latents: element by element each of them would be an array of its own.
    inverted = point.add("invert_latents", invert, {"latents": [encoded], **networks})
    edited = point.add("manipulate", stages.manipulate, {"latents": [Edge(inverted.node, each=True)], **networks})
    judged = point.add(
        "evaluate",
        replace(stages.evaluate, experts=experts, baseline=False),
        {
            "shards": [shards],
            "reconstruction": [reconstruction],
            "images": [Edge(edited.node, each=True)],
            **judges,
        },
    )
    point.add("reduce", stages.reduce, {"states": [judged]})


def generation(point: Point) -> None:
    """Faces from noise, judged as a set against the training faces (Table 4.1), and their nearest neighbours."""
    stages, wanted = point.stages, point.cfg.generation
    shards, networks = point.shards, point.networks
    seen = point.planner.features(point.cfg, stages.extract_features)
    guide: Parents = {}
    if wanted.classifier_scale:
        learnt: Parents = {"latents": [point.train_latents], "faces": [shards], **networks}
        guide = {"classifier": [point.add("train_classifier", stages.train_classifier, learnt)]}
    drawn = point.add("generate", stages.generate, {**networks, **guide})
    of_drawn = point.add("extract_features", seen, {"images": [Edge(drawn.node, each=True)]})
    of_real = point.add("extract_features", replace(seen, split="train"), {"images": [shards]}, "features_real")
    features: Parents = {"generated": [of_drawn], "real": [of_real]}
    point.add("judge_generation", stages.judge_generation, features)
    if wanted.queries_per_class:
        compared: Parents = {"generated": [drawn], "real": [shards]} if wanted.space == "pixel" else features
        point.add("find_nearest", stages.find_nearest, compared)


def interpolation(point: Point) -> None:
    """Ways between validation faces (thesis section 4.3.5)."""
    networks = point.networks
    point.add("interpolate", point.stages.interpolate, {"latents": [point.val_latents], **networks})


def clips(point: Point) -> None:
    """A corpus of talking clips; rows of speech features only where they are asked for."""
    shards = point.shards
    if point.cfg.stage == "precompute_audio":
        speech = point.stages.precompute_audio
        network = speech.network or SPEECH_NETWORKS[speech.features.name]
        speech = replace(speech, network=network, network_digest=speech_digest(network))
        point.add("precompute_audio", speech, {"shards": [shards]})


EXPERIMENTS: Mapping[Experiment, Callable[[Point], None]] = {
    Experiment.editing: editing,
    Experiment.generation: generation,
    Experiment.interpolation: interpolation,
}
REPORTS: Mapping[Experiment, str] = {
    Experiment.editing: "report",
    Experiment.generation: "report_generation",
    Experiment.interpolation: "report_interpolation",
}
"""Kind of the last run of an experiment."""
SHOWN: Mapping[Experiment, Mapping[str, Sequence[str]]] = {
    Experiment.editing: {
        "tables": ("reduce_baseline", "reduce"),
        "edits": ("manipulate",),
        "reconstruction": ("reconstruct",),
        "shards": ("prepare_shards",),
        "referee": ("train_referee",),
    },
    Experiment.generation: {
        "tables": ("judge_generation",),
        "images": ("generate",),
        "nearest": ("find_nearest",),
        "shards": ("prepare_shards",),
    },
    Experiment.interpolation: {"strips": ("interpolate",), "shards": ("prepare_shards",)},
}
"""Role in the report -> the nodes of a point that stand for it, where they are there."""


def nodes_of(planner: Planner, cfg: Config) -> dict[str, Node]:
    """All nodes of one sweep point, by kind or name."""
    point = Point(planner, cfg)
    (clips if cfg.data.holds_clips else EXPERIMENTS[cfg.experiment])(point)
    return point.nodes


def report(planner: Planner, cfg: Config, points: Sequence[Mapping[str, Node]]) -> Node:
    """The node that shows all ``points`` beside each other."""
    kind = REPORTS[cfg.experiment]
    roles = {
        role: [Edge(node) for node in _unique(point[name] for point in points for name in names if name in point)]
        for role, names in SHOWN[cfg.experiment].items()
    }
    config = _with_signer(replace(getattr(cfg.stages, kind), title=cfg.sweep), cfg)
    return planner.node(kind, config, {role: edges for role, edges in roles.items() if edges})


def _with_signer(config: Any, cfg: Config) -> Any:
    """The config of a stage; of one that makes synthetic pictures, with who signs their marks."""
    return replace(config, provenance=cfg.provenance.settled()) if hasattr(config, "provenance") else config


def _check_blocks(kind: str, config: Any, parents: Parents) -> None:
    """A run that goes on part by part must keep to its parent's blocks: others would hang on the number of parts."""
    for edge in (edge for edges in parents.values() for edge in edges if isinstance(edge, Edge) and edge.each):
        own, theirs = (getattr(one, "batch_size", 1) for one in (config, edge.node.config))
        if theirs % own:
            raise UserError(
                f"stages.{kind}.batch_size={own} does not divide stages.{edge.node.kind}.batch_size={theirs}, whose"
                f" blocks it goes on with: give a divisor of {theirs}."
            )


def _unique(nodes: Iterable[Node]) -> list[Node]:
    return list(dict.fromkeys(nodes))
