"""The training faces that lie nearest to drawn ones (thesis section 4.3.4)."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from affect_hpc.config.drawing import FindNearestConfig
from affect_hpc.core.blocks import blocks
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, write_json
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.images import ImageSet
from affect_hpc.metrics.features import FeatureSet
from affect_hpc.metrics.nearest import Block, Neighbours
from affect_hpc.stages.extract_features import FEATURES

NEIGHBOURS = "neighbours.json"
BLOCK = 256
"""Candidates compared at once: 256 faces of 128 px are 13 MB."""


def run(cfg: FindNearestConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Compare the first drawn faces of each emotion with this part's share of the training faces.

    Reads: generated, real (shards, or in the space of features what extract_features wrote). Writes:
    ``neighbours.json``.
    """
    torch.set_num_threads(cfg.threads)
    if cfg.space == "pixel":
        drawn = ImageSet.open(inputs.many("generated"))
        corpus = ImageSet.open([folder / "train" for folder in inputs.many("real")])
        chosen = first_of_each(drawn.shards.labels.tolist(), [e.key for e in drawn.shards], cfg.queries_per_class)
        queries, mine = _pixels(drawn, chosen), place.slice(len(corpus))
        candidates, count = (lambda some: _pixels(corpus, some)), len(corpus)
    else:
        ours, theirs = (FeatureSet.load(inputs.many(role), FEATURES) for role in ("generated", "real"))
        chosen = first_of_each(ours.labels.tolist(), ours.keys, cfg.queries_per_class)
        queries, mine = _rows(ours, chosen), place.slice(len(theirs))
        candidates, count = (lambda some: _rows(theirs, some)), len(theirs)
    state = Neighbours.none(cfg.k, queries.keys)
    with Progress("find_nearest", len(mine), "face") as progress:
        for block in _found(candidates, mine):
            state = state.add(queries, block)
            progress.advance(len(block.keys))
    seen = {"space": cfg.space, "candidates": len(mine), "of": count}
    write_json(place.out / NEIGHBOURS, {**seen, "neighbours": state.to_json()})
    return Outcome({"queries": len(queries.keys), "candidates": len(mine)})


def first_of_each(labels: Sequence[int], keys: Sequence[str], count: int) -> list[int]:
    """Places of the first ``count`` samples of each class, in the order of their keys."""
    taken: Counter[int] = Counter()
    chosen = []
    for place in sorted(range(len(keys)), key=keys.__getitem__):
        taken[labels[place]] += 1
        if taken[labels[place]] <= count:
            chosen.append(place)
    return chosen


def _found(candidates: Callable[[Sequence[int]], Block], mine: range) -> Iterator[Block]:
    for some in blocks(len(mine), BLOCK):
        yield candidates(mine[some.start : some.stop])


def _pixels(images: ImageSet, places: Sequence[int]) -> Block:
    """Faces as vectors of their 8-bit values."""
    vectors = np.stack([images.image(place).reshape(-1) for place in places])
    return Block([images.shards[place].key for place in places], vectors)


def _rows(samples: FeatureSet, places: Sequence[int]) -> Block:
    return Block([samples.keys[place] for place in places], samples.features[list(places)])


def merged(folders: Sequence[Path]) -> Neighbours:
    """The neighbours among all candidates, from the parts of one search.

    Raises:
        UserError: parts of different searches, or candidates that no part has seen.
    """
    parts = [read_json(folder / NEIGHBOURS) for folder in folders]
    first = parts[0]
    for folder, part in zip(folders, parts, strict=True):
        if (part["space"], part["of"]) != (first["space"], first["of"]):
            raise UserError(f"{folder} and {folders[0]} are parts of different searches: give those of one.")
    seen = sum(part["candidates"] for part in parts)
    if seen != first["of"]:
        raise UserError(f"{seen} of {first['of']} training faces were compared: give every part of the search once.")
    state = Neighbours.from_json(first["neighbours"])
    for part in parts[1:]:
        state = state.merge(Neighbours.from_json(part["neighbours"]))
    return state
