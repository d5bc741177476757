"""The training faces that lie nearest to drawn ones (thesis section 4.3.4)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from affect_hpc.config.drawing import FindNearestConfig
from affect_hpc.core.blocks import blocks
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, read_json_if_there, write_json
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import DamagedMemberError, UInt8Image
from affect_hpc.data.images import ImageSet
from affect_hpc.metrics.features import FeatureSet
from affect_hpc.metrics.nearest import Block, Neighbours
from affect_hpc.stages.extract_features import FEATURES
from affect_hpc.stages.generate import DESCRIPTION

NEIGHBOURS = "neighbours.json"
BLOCK = 256
"""Candidates compared at once: 256 faces of 128 px are 13 MB."""


def run(cfg: FindNearestConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Compare the first drawn faces of each emotion with this part's share of the training faces.

    Reads: generated, real (shards, or in the space of features what extract_features wrote).

    Writes: ``neighbours.json``: space, k, drawn (how the drawn faces were), neighbours, candidates (how many this part
    saw), share (first of them and the one after the last), of (how many there are in all).

    Raises:
        UserError: drawn and training faces are of different sizes or were seen by different networks.
        DamagedMemberError: a face cannot be read; it is named.
    """
    torch.set_num_threads(cfg.threads)
    generated, real = _faces(cfg.space, inputs)
    if generated.seen_by != real.seen_by:
        raise UserError(
            f"drawn faces were seen by {generated.seen_by}, training faces by {real.seen_by}: a distance is between"
            " features of one network; extract both by the same experts.features."
        )
    chosen = first_of_each(generated.labels, generated.keys, cfg.queries_per_class)
    queries, mine = generated.block(chosen), place.slice(len(real.keys))
    state = Neighbours.none(cfg.k, queries.keys)
    with Progress("find_nearest", len(mine), "face") as progress:
        for some in blocks(len(mine), BLOCK):
            state = state.add(queries, real.block(mine[some.start : some.stop]))
            progress.advance(len(some))
    seen = {"candidates": len(mine), "share": [mine.start, mine.stop], "of": len(real.keys)}
    drawn = read_json_if_there(inputs.many("generated")[0] / DESCRIPTION)
    search = {"space": cfg.space, "k": cfg.k, "drawn": drawn}
    write_json(place.out / NEIGHBOURS, {**search, "neighbours": state.to_json(), **seen})
    return Outcome({"queries": len(queries.keys), "candidates": len(mine)})


class Vectors(Protocol):
    """Faces as vectors, read as they are asked for."""

    keys: Sequence[str]
    labels: Sequence[int]
    seen_by: Mapping[str, str]
    """Network that made the vectors; empty for pixels."""

    def block(self, places: Sequence[int]) -> Block:
        """These faces."""
        ...


class Pixels:
    """Faces as vectors of their 8-bit values."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.images = ImageSet.open(folders)
        self.keys: Sequence[str] = [entry.key for entry in self.images.shards]
        self.labels: Sequence[int] = self.images.shards.labels.tolist()
        self.seen_by: Mapping[str, str] = {}

    def block(self, places: Sequence[int]) -> Block:
        """These faces, (n, H W 3) uint8."""
        return Block([self.keys[place] for place in places], np.stack([self._vector(place) for place in places]))

    def _vector(self, place: int) -> UInt8Image:
        try:
            return self.images.image(place).reshape(-1)
        except DamagedMemberError as error:
            raise DamagedMemberError(f"the face {self.keys[place]} cannot be compared: {error}") from error


class Seen:
    """Faces as what a network sees in them."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.features = FeatureSet.load(folders, FEATURES)
        self.keys: Sequence[str] = self.features.keys
        self.labels: Sequence[int] = self.features.labels.tolist()
        self.seen_by: Mapping[str, str] = self.features.judge

    def block(self, places: Sequence[int]) -> Block:
        """These faces, (n, D) float32."""
        return Block([self.keys[place] for place in places], self.features.features[list(places)])


def _faces(space: str, inputs: Inputs) -> tuple[Vectors, Vectors]:
    """Drawn faces and training faces."""
    generated, real = inputs.many("generated"), inputs.many("real")
    if space == "pixel":
        return Pixels(generated), Pixels([folder / "train" for folder in real])
    return Seen(generated), Seen(real)


def first_of_each(labels: Sequence[int], keys: Sequence[str], count: int) -> list[int]:
    """Places of the first ``count`` samples of each class, in the order of their keys."""
    taken: Counter[int] = Counter()
    chosen = []
    for place in sorted(range(len(keys)), key=keys.__getitem__):
        taken[labels[place]] += 1
        if taken[labels[place]] <= count:
            chosen.append(place)
    return chosen


def merged(folders: Sequence[Path]) -> Neighbours:
    """The neighbours among all candidates, from the parts of one search in any order.

    Raises:
        UserError: no part, parts of different searches, or shares that do not make up all candidates.
    """
    if not folders:
        raise UserError("there are no parts of a search for neighbours to merge: name one folder at least.")
    parts = [read_json(folder / NEIGHBOURS) for folder in folders]
    states = [Neighbours.from_json(part["neighbours"]) for part in parts]

    def search(number: int) -> tuple[object, ...]:
        return parts[number]["space"], parts[number]["of"], states[number].k, set(states[number].best)

    for number, folder in enumerate(folders):
        if search(number) != search(0):
            raise UserError(f"{folder} and {folders[0]} are parts of different searches: give those of one.")
    shares = sorted(part["share"] for part in parts)
    ends = [0, *(stop for _, stop in shares)]
    if [start for start, _ in shares] != ends[:-1] or ends[-1] != parts[0]["of"]:
        raise UserError(
            f"the parts of a search saw the shares {shares} of {parts[0]['of']} training faces: give every part once."
        )
    return reduce(Neighbours.merge, states)
