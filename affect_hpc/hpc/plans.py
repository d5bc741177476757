"""From configs to a graph: which stages a sweep point needs, and who feeds whom."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import affect_hpc
from affect_hpc.config import supplied
from affect_hpc.config.available import SPEECH_NETWORKS, check_experts, settle_perceptual, speech_digest
from affect_hpc.config.checks import one_of
from affect_hpc.config.data import DataConfig
from affect_hpc.config.experts import ExpertsConfig
from affect_hpc.config.root import Config
from affect_hpc.config.stages import EncodeLatentsConfig, LatentsFrom
from affect_hpc.config.supplied import SUPPLIED
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import digest, folder_digest
from affect_hpc.hpc.advice import check_trainings
from affect_hpc.hpc.catalog import CATALOG
from affect_hpc.hpc.graph import Edge, External, Graph, Node

Parents = Mapping[str, Sequence[Edge | External]]
PACKAGED = Path(affect_hpc.__file__).parent / "models" / "packaged"


class Planner:
    """Makes the nodes of all points of one launch; equal nodes are one object."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._nodes: dict[str, Node] = {}
        self._externals: dict[Path, External] = {}
        self._corpora: dict[str, DataConfig] = {}

    def node(self, kind: str, config: Any, parents: Parents, parts: int = 1) -> Node:
        """The node of this kind, config and parents."""
        node = Node(kind, config, {role: tuple(edges) for role, edges in parents.items()}, parts)
        if node.name not in self._nodes:
            spec = node.run_dir(self.store).spec()
            # Work that has begun keeps its division: the parts that are done stay done.
            self._nodes[node.name] = replace(node, parts=spec["parts"]) if spec else node
        return self._nodes[node.name]

    def external(self, key: str, where: str, must_hold: str) -> External:
        """The folder ``where`` (or the packaged network ``package:NAME``) as a finished input."""
        path = PACKAGED / where.removeprefix("package:") if where.startswith("package:") else Path(where)
        path = path.absolute()
        if not (path / must_hold).exists():
            known = ", ".join(f"package:{entry.name}" for entry in sorted(PACKAGED.glob("*/"))) or "none is packaged"
            raise UserError(
                f"{key}={where} holds no {must_hold}: give a folder that does, 'train', or one of: {known}."
            )
        if path not in self._externals:
            self._externals[path] = External(path, folder_digest(path))
        return self._externals[path]

    def corpus(self, data: DataConfig) -> DataConfig:
        """A corpus as it lies here, looked at once a launch."""
        key = repr(data)
        if key not in self._corpora:
            self._corpora[key] = data.settled(self.store)
        return self._corpora[key]

    def judges(self, cfg: Config) -> ExpertsConfig:
        """The judges as they lie here; a missing or changed file ends the launch."""
        experts = replace(cfg.experts, perceptual=settle_perceptual(cfg.experts.perceptual))
        named = (experts.emotion, experts.identity, experts.perceptual)
        seconds = (experts.second_emotion, experts.second_identity)
        check_experts(*named, experts.folder, *seconds)
        check_judges(cfg, experts)
        given = {name: supplied.digests(name, experts.folder) for name in (*named, *seconds) if name in SUPPLIED}
        return replace(experts, digest=digest(given) if given else "")

    def point(self, cfg: Config) -> dict[str, Node]:
        """All nodes of one sweep point, by kind (``baseline`` and ``reduce_baseline`` are the unedited rows)."""
        if cfg.data.holds_clips:
            return self.clips(cfg)
        stages, edit, parts = cfg.stages, cfg.edit, cfg.cluster.parts
        experts = self.judges(cfg)
        nodes: dict[str, Node] = {}

        def add(kind: str, config: Any, parents: Parents, name: str = "") -> Edge:
            count = parts if CATALOG[kind].divisible else 1
            if kind in ("train_vqgan", "train_ldm") and not config.train.peak_tflops:
                peak = cfg.cluster.peak_tflops.get(config.train.precision.name, 0.0)
                config = replace(config, train=replace(config.train, peak_tflops=peak))
            nodes[name or kind] = self.node(kind, config, parents, count)
            return Edge(nodes[name or kind])

        shards = add("prepare_shards", replace(stages.prepare_shards, data=self.corpus(cfg.data)), {})
        first_stage: Edge | External
        if cfg.use.first_stage == "train":
            first_stage = add("train_vqgan", stages.train_vqgan, {"shards": [shards]})
        else:
            first_stage = self.external("use.first_stage", cfg.use.first_stage, "first_stage/config.json")
        ldm: Edge | External
        if cfg.use.ldm == "train":
            # The faces are for validation, or instead of the latents.
            learnt: Parents = {"faces": [shards], "first_stage": [first_stage]}
            if stages.train_ldm.latents_from is LatentsFrom.shards:
                encode: Parents = {"shards": [shards], "first_stage": [first_stage]}
                learnt = {"latents": [add("encode_latents", stages.encode_latents, encode)], **learnt}
            ldm = add("train_ldm", stages.train_ldm, learnt)
        else:
            ldm = self.external("use.ldm", cfg.use.ldm, "unet/config.json")
        networks: Parents = {"first_stage": [first_stage], "ldm": [ldm]}
        judges: Parents = {}
        if "referee" in judges_of(experts):
            judges = {"referee": [add("train_referee", stages.train_referee, {"shards": [shards]})]}

        # Val faces are encoded once for everything that starts from them, at full precision and in the blocks of edits.
        encoding = EncodeLatentsConfig(
            split="val",
            num_samples=edit.num_samples,
            full_precision=True,
            batch_size=edit.batch_size,
            threads=stages.encode_latents.threads,
        )
        encoded = add("encode_latents", encoding, {"shards": [shards], "first_stage": [first_stage]}, "encode_val")
        clean: Parents = {"latents": [Edge(encoded.node, each=True)], "first_stage": [first_stage]}
        reconstruction = add("reconstruct", stages.reconstruct, clean)
        unedited = replace(stages.evaluate, experts=experts, baseline=True, targets=[])
        baseline = add(
            "evaluate",
            unedited,
            {"shards": [shards], "reconstruction": [Edge(reconstruction.node, each=True)], **judges},
            "baseline",
        )
        add("reduce", stages.reduce, {"states": [baseline]}, "reduce_baseline")

        invert = replace(stages.invert_latents, gamma=edit.resolved_encode_gamma()).settled()
        # Many points start from the same latents: element by element each of them would be an array of its own.
        inverted = add("invert_latents", invert, {"latents": [encoded], **networks})
        edited = add("manipulate", stages.manipulate, {"latents": [Edge(inverted.node, each=True)], **networks})
        judged = add(
            "evaluate",
            replace(stages.evaluate, experts=experts, baseline=False),
            {
                "shards": [shards],
                "reconstruction": [reconstruction],
                "images": [Edge(edited.node, each=True)],
                **judges,
            },
        )
        add("reduce", stages.reduce, {"states": [judged]})
        return nodes

    def clips(self, cfg: Config) -> dict[str, Node]:
        """The nodes of a corpus of talking clips, by kind; of the speech network only where it is asked for."""
        stages, parts = cfg.stages, cfg.cluster.parts
        shards = self.node("prepare_shards", replace(stages.prepare_shards, data=self.corpus(cfg.data)), {}, parts)
        nodes = {"prepare_shards": shards}
        if cfg.stage == "precompute_audio":
            speech = stages.precompute_audio
            network = speech.network or SPEECH_NETWORKS[speech.features.name]
            speech = replace(speech, network=network, network_digest=speech_digest(network))
            nodes["precompute_audio"] = self.node("precompute_audio", speech, {"shards": [Edge(shards)]}, parts)
        return nodes

    def report(self, cfg: Config, points: Sequence[dict[str, Node]]) -> Node:
        """The node that shows all ``points`` beside each other."""
        tables = _unique(node for point in points for node in (point["reduce_baseline"], point["reduce"]))
        roles: dict[str, list[Edge | External]] = {"tables": [Edge(node) for node in tables]}
        for role, kind in {"edits": "manipulate", "reconstruction": "reconstruct", "shards": "prepare_shards"}.items():
            roles[role] = [Edge(node) for node in _unique(point[kind] for point in points)]
        if "train_referee" in points[0]:
            roles["referee"] = [Edge(node) for node in _unique(point["train_referee"] for point in points)]
        return self.node("report", replace(cfg.stages.report, title=cfg.sweep), roles)


def plan(configs: Sequence[Config]) -> tuple[Graph, list[dict[str, Node]]]:
    """The graph of all sweep points up to the stage that is asked for, and the nodes of each point by kind."""
    for cfg in configs:
        cfg.check()
        one_of("stage", cfg.stage, CATALOG)
    first = configs[0]
    planner = Planner(Path(first.store).absolute())
    points = [planner.point(cfg) for cfg in configs]
    if first.stage == "report" and all("reduce" in point for point in points):
        graph = Graph([planner.report(first, points)])
        check_trainings(graph, first.cluster, planner.store)
        return graph, points
    missing = [point for point in points if first.stage not in point]
    if missing:
        if first.data.holds_clips:
            raise UserError(
                f"stage={first.stage} is not part of this plan, since data={first.data.name} holds talking clips: give"
                " stage=prepare_shards or stage=precompute_audio."
            )
        raise UserError(f"stage={first.stage} is not part of this plan: it runs {', '.join(points[0])}, report.")
    graph = Graph([point[first.stage] for point in points])
    check_trainings(graph, first.cluster, planner.store)
    return graph, points


def check_judges(cfg: Config, experts: ExpertsConfig) -> None:
    """No network that guided a model may judge it.

    Raises:
        UserError: where a judge also labelled the corpus or was part of a training loss.
    """
    data, vqgan = cfg.data, cfg.stages.train_vqgan
    for key in ("emotion", "second_emotion"):
        if data.labeller_in_use == getattr(experts, key):
            raise UserError(
                f"experts.{key}={data.labeller_in_use} also labels the corpus (data.labeller): a network that guided a"
                " model may not judge it. Choose another emotion judge or labeller."
            )
    if cfg.use.first_stage == "train" and vqgan.perceptual == experts.perceptual:
        raise UserError(
            f"experts.perceptual={experts.perceptual} is also the perceptual loss of train_vqgan: one that guided "
            "a model may not judge it. Choose another one on either side."
        )
    if "referee" in judges_of(experts) and not data.has_certain_labels:
        raise UserError(
            "experts=referee needs labels and identities that are certain, as data=demo has: use experts=folder."
        )


def judges_of(experts: ExpertsConfig) -> tuple[str, ...]:
    """Names of all judges of emotion and identity."""
    return (experts.emotion, experts.identity, experts.second_emotion, experts.second_identity)


def _unique(nodes: Any) -> list[Node]:
    return list(dict.fromkeys(nodes))
