"""Makes the nodes of one launch, each once, and settles what hangs on this machine: corpora, networks, judges."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import affect_hpc
from affect_hpc.config import supplied
from affect_hpc.config.available import check_experts, settle_features, settle_manifold_features, settle_perceptual
from affect_hpc.config.data import DataConfig
from affect_hpc.config.drawing import ExtractFeaturesConfig
from affect_hpc.config.experts import ExpertsConfig
from affect_hpc.config.root import Config
from affect_hpc.config.supplied import SUPPLIED
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import digest, folder_digest
from affect_hpc.hpc.graph import Edge, External, Node

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
        # What describes sets of faces judges no single one.
        return replace(
            experts, features="auto", manifold_features="auto", digest=_digest((*named, *seconds), experts.folder)
        )

    def features(self, cfg: Config, config: ExtractFeaturesConfig) -> ExtractFeaturesConfig:
        """The networks that describe sets of faces as they lie here; errors as for ``judges``."""
        folder = cfg.experts.folder
        names = (
            settle_features(cfg.experts.features, folder),
            settle_manifold_features(cfg.experts.manifold_features, folder),
        )
        return replace(config, features=names[0], manifold_features=names[1], digest=_digest(names, folder))


def _digest(names: Sequence[str], folder: str) -> str:
    """SHA-256 over the files of those networks that the user supplied; empty where there is none."""
    given = {name: supplied.digests(name, folder) for name in names if name in SUPPLIED}
    return digest(given) if given else ""


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
