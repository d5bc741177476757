"""The chain of ML stages at the smallest size, made once for all tests of this folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from affect_hpc.config.compose import collect
from affect_hpc.config.stages import StagesConfig
from affect_hpc.config.train import EngineName
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.stages import (
    manipulate,
    precompute_latents,
    prepare_shards,
    reconstruct,
    train_classifier,
    train_ldm,
    train_referee,
    train_vqgan,
)

MODULES = {
    "prepare_shards": prepare_shards,
    "train_referee": train_referee,
    "train_vqgan": train_vqgan,
    "encode_latents": precompute_latents,
    "train_ldm": train_ldm,
    "train_classifier": train_classifier,
    "reconstruct": reconstruct,
    "invert_latents": precompute_latents,
    "manipulate": manipulate,
}
LDM_INPUTS = {"latents": "encode_latents", "faces": "prepare_shards", "first_stage": "train_vqgan"}
"""What train_ldm reads."""
CLASSIFIER_INPUTS = {**LDM_INPUTS, "ldm": "train_ldm"}
"""What train_classifier reads."""


def smoke_stages(*overrides: str) -> StagesConfig:
    """The stage configs of model=smoke on 40 faces, trained by torch alone."""
    words = ["model=smoke", "data.train_samples=32", "data.val_samples=10", "data.samples_per_shard=16"]
    words += ["edit.num_steps=4", "edit.gamma=1", "edit.targets=[happy,sad]", *overrides]
    stages = collect(words)[0].stages
    for train in (
        stages.train_vqgan.train,
        stages.train_ldm.train,
        stages.train_classifier.train,
        stages.train_referee.emotion,
        stages.train_referee.identity,
    ):
        train.engine = EngineName.plain
    return stages


@dataclass
class Chain:
    """Runs stages below one folder."""

    root: Path
    stages: StagesConfig

    def out(self, name: str) -> Path:
        """Output of a stage that has run."""
        return self.root / name / "out"

    def run(
        self, kind: str, name: str = "", parts: int = 1, part: int = 0, config: Any = None, **roles: Any
    ) -> Outcome:
        """Run one stage (part) into a folder of its own; roles are names of earlier runs, or lists of names."""
        (self.root / (name or kind) / "out").mkdir(parents=True)  # each run once
        return self.again(kind, name, parts, part, config, **roles)

    def again(
        self, kind: str, name: str = "", parts: int = 1, part: int = 0, config: Any = None, **roles: Any
    ) -> Outcome:
        """Go on with a run that was stopped."""
        folder = self.root / (name or kind)
        folders = {
            role: tuple(self.out(one) for one in ([names] if isinstance(names, str) else names))
            for role, names in roles.items()
        }
        place = Workplace(folder / "out", folder / "keep", part, parts)
        outcome: Outcome = MODULES[kind].run(config or getattr(self.stages, kind), Inputs(folders), place)
        return outcome


def train_chain(root: Path) -> Chain:
    """Everything up to a trained model."""
    chain = Chain(root, smoke_stages())
    chain.run("prepare_shards")
    chain.run("train_vqgan", shards="prepare_shards")
    chain.run("encode_latents", shards="prepare_shards", first_stage="train_vqgan")
    chain.run("train_ldm", **LDM_INPUTS)
    config = replace(chain.stages.encode_latents, split="val", full_precision=True)
    chain.run("encode_latents", "encode_val", config=config, shards="prepare_shards", first_stage="train_vqgan")
    return chain


def edit(
    chain: Chain, tail: str = "", parts: int = 1, gamma: float = 1.0, encode_gamma: float = 0.0, **encoding: Any
) -> list[str]:
    """Invert (with the changes ``encoding``) and manipulate in ``parts`` parts; returns names of manipulate runs."""
    names = []
    for part in range(parts):
        invert = replace(chain.stages.invert_latents, gamma=encode_gamma or gamma, **encoding)
        change = replace(chain.stages.manipulate, gamma=gamma)
        inverted, made = f"invert{tail}-{part}", f"manipulate{tail}-{part}"
        networks = {"first_stage": "train_vqgan", "ldm": "train_ldm"}
        chain.run("invert_latents", inverted, parts, part, invert, latents="encode_val", **networks)
        chain.run("manipulate", made, config=change, latents=inverted, **networks)
        names.append(made)
    return names
