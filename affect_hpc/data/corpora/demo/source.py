"""The procedural faces as a corpus."""

from collections.abc import Iterator
from typing import Any

from affect_hpc.config.corpora import DemoDataConfig
from affect_hpc.core.blocks import blocks
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.data.codec import UInt8Image
from affect_hpc.data.corpora.demo.drawing import render
from affect_hpc.data.corpora.source import Face, Findings, ShardPlan

VAL_IDENTITY = 1_000_000
"""Identities of the val split start here: the largest train split ends below it."""


class DemoSource:
    """Faces drawn by sample index; train and val share no identity.

    In the train split each identity shows ``emotions_per_identity`` of the eight expressions, in the val split one;
    the val faces carry the same identity under every expression as their truth.
    """

    def __init__(self, config: DemoDataConfig) -> None:
        self.config = config
        self.findings = Findings()

    def shards(self) -> list[ShardPlan]:
        """All shards, train first."""
        plans = []
        for split, count in (("train", self.config.train_samples), ("val", self.config.val_samples)):
            for number, block in enumerate(blocks(count, self.config.samples_per_shard)):
                plans.append(ShardPlan(split, f"shard-{number:05d}", tuple(block), len(block)))
        return plans

    def samples(self, shard: ShardPlan) -> Iterator[Face]:
        """Draw the faces of one shard."""
        for index in shard.units:
            identity, label = self.subject(shard.split, index)
            truth = {}
            if shard.split == "val":
                truth = {emotion: self._draw(identity, emotion) for emotion in EMOTIONS}
            yield Face(
                key=f"{shard.split}-{index:07d}",
                image=self._draw(identity, EMOTIONS[label]),
                label=label,
                identity=f"demo-{identity}",
                source=f"demo seed {self.config.seed} identity {identity} {EMOTIONS[label]}",
                truth=truth,
            )

    def subject(self, split: str, index: int) -> tuple[int, int]:
        """Identity and emotion id of sample ``index``.

        Any 8 * emotions_per_identity train samples on end (val: 8) hold every emotion equally often.
        """
        if split == "val":
            return VAL_IDENTITY + index, index % len(EMOTIONS)
        each = self.config.emotions_per_identity
        identity, view = divmod(index, each)
        # Steps of 8 / each spread the expressions of one identity; the identity's number shifts them.
        return identity, (identity + view * (len(EMOTIONS) // each)) % len(EMOTIONS)

    def facts(self) -> dict[str, Any]:
        """Nothing more than the counts."""
        return {}

    def verdict(self) -> None:
        """Drawn faces are always good."""

    def _draw(self, identity: int, emotion: str) -> UInt8Image:
        return render(identity, emotion, self.config.size, self.config.seed)
