"""Ways from one validation face to another through the space of noise (thesis section 4.3.5, Eq. 4.12)."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from affect_hpc.config.drawing import BlendLabel, InterpolateConfig
from affect_hpc.core.blocks import blocks
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import canonical
from affect_hpc.core.io import write_json
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import encode_png, tensor_to_images
from affect_hpc.data.images import stacked
from affect_hpc.data.provenance import SyntheticFacts
from affect_hpc.data.shards import ShardSet, ShardWriter
from affect_hpc.diffusion import ddim
from affect_hpc.diffusion.noise import SampleNoise
from affect_hpc.diffusion.sampling import ddim as ddim_solver
from affect_hpc.diffusion.slerp import angle, slerp
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import Ldm
from affect_hpc.stages.marking import Marker, name_of
from affect_hpc.stages.precompute_latents import path_and_predictor
from affect_hpc.train.comm import Ranks, device_of

DESCRIPTION = "interpolation.json"
"""Beside the shards: how their faces were made."""
ENDS = ("first", "second")
"""Members: what the first stage alone makes of the two faces."""


class Pair(NamedTuple):
    """Places of two faces."""

    first: int
    second: int


def point_name(number: int) -> str:
    """Member of a place on the way, from 0 at the first face."""
    return f"point_{number:03d}"


def choose_pairs(keys: Sequence[str], labels: Sequence[int], count: int, seed: int) -> list[Pair]:
    """Random pairs of faces of two emotions, or of one where the corpus has no other.

    A face comes again only when those left make no such pair any more; no choice before that wastes a face. A function
    of the seed and the faces: neither their order nor ``count`` matters to a pair.

    Raises:
        UserError: fewer than two faces.
    """
    if len(keys) < 2:
        raise UserError(f"{len(keys)} validation faces make no pair: interpolation needs two (edit.num_samples).")
    random = np.random.default_rng(seed)
    by_key = sorted(range(len(keys)), key=keys.__getitem__)
    pairs: list[Pair] = []
    while len(pairs) < count:
        order = [by_key[i] for i in random.permutation(len(by_key))]
        pairs += _one_round(order, labels)
    return pairs[:count]


def _one_round(order: Sequence[int], labels: Sequence[int]) -> list[Pair]:
    """As many pairs of two emotions as faces in this order make, each face in one; of one emotion where all have it."""
    queues: dict[int, list[int]] = {}
    alone = len({labels[face] for face in order}) == 1
    for place, face in reversed(list(enumerate(order))):
        queues.setdefault(place % 2 if alone else labels[face], []).append(place)
    pairs = []
    while left := most_pairs({label: len(queue) for label, queue in queues.items()}):
        # Whoever comes first in the order, with the first one who leaves the others as many pairs as can be.
        fronts = sorted((queue[-1], label) for label, queue in queues.items() if queue)
        one, other = next(
            (one, other)
            for (_, one), (_, other) in combinations(fronts, 2)
            if most_pairs({label: len(queue) - (label in (one, other)) for label, queue in queues.items()}) == left - 1
        )
        pairs.append(Pair(order[queues[one].pop()], order[queues[other].pop()]))
    return pairs


def most_pairs(counts: Mapping[int, int]) -> int:
    """How many pairs of two different labels there are at most, where each sample is in one pair."""
    total = sum(counts.values())
    return min(total // 2, total - max(counts.values()))


def run(cfg: InterpolateConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Write this part's pairs, each as one sample with a PNG for each place on its way.

    Reads: latents (of val), first_stage, ldm. Writes: shards, ``interpolation.json``.
    """
    torch.set_num_threads(cfg.threads)
    clean = ShardSet.open(inputs.many("latents"))
    keys = [entry.key for entry in clean]
    pairs = choose_pairs(keys, clean.labels.tolist(), cfg.pairs, cfg.seed)
    device = device_of(Ranks.of_environment())
    model = first_stage.load(inputs.one("first_stage")).to(device)
    ldm = Ldm.load(inputs.one("ldm"), device)
    ways = Ways(cfg, ldm)
    marker = Marker.of(cfg.provenance, place)
    work = blocks(len(pairs), cfg.batch_size)
    mine = [work[i] for i in place.slice(len(work))]
    with (
        Progress("interpolate", sum(map(len, mine)), "pair") as progress,
        torch.inference_mode(),
        ShardWriter(place.out, f"images-{place.part:05d}") as writer,
    ):
        for block in mine:
            chosen = [pairs[i] for i in block]
            z = torch.stack([stacked(clean, pair, "npy") for pair in chosen]).to(device)  # (B, 2, C, h, w)
            labels = torch.tensor([[clean[end].label for end in pair] for pair in chosen], device=device)
            points, omega = ways.between(ldm.norm.normalise(z.flatten(0, 1)).reshape(z.shape), labels, block)
            strips = torch.cat([z, ldm.norm.restore(points.flatten(0, 1)).reshape(points.shape)], dim=1)
            images = tensor_to_images(first_stage.decode(model, strips.flatten(0, 1)))
            names = [*ENDS, *map(point_name, range(cfg.num_points))]
            for row, (index, pair) in enumerate(zip(block, chosen, strict=True)):
                own = images[row * len(names) : (row + 1) * len(names)]
                members = {f"{name}.png": encode_png(image) for name, image in zip(names, own, strict=True)}
                first, second = (clean[end] for end in pair)
                info = {
                    **{"label": first.label, "identity": first.identity, "first": first.key, "second": second.key},
                    **{"labels": [EMOTIONS[end.label] for end in (first, second)], "angle": float(omega[row])},
                    **{"fractions": ways.fractions, "decoded_as": ways.decoded_as(first.label, second.label)},
                }
                writer.write(f"pair-{index:06d}", members, info)
            progress.advance(len(block))
    settings = canonical(cfg)
    write_json(place.out / DESCRIPTION, settings)
    marker.shards(place.out, SyntheticFacts(name_of(inputs.one("ldm")), edited=True, settings=settings, title="faces"))
    return Outcome({"pairs": sum(map(len, mine))})


class Ways:
    """Finds the places between pairs of latents."""

    def __init__(self, cfg: InterpolateConfig, ldm: Ldm) -> None:
        self.cfg, self.null = cfg, ldm.condition.null_index
        self.path, self.predict = path_and_predictor(cfg, ldm)
        self.solve = ddim_solver(cfg.eta)
        self.fractions = [i / (cfg.num_points - 1) for i in range(cfg.num_points)]

    def between(self, z: Tensor, labels: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Clean latents of the places (B, num_points, C, h, w), and the angles (B,) at t0.

        Args:
            z: clean latents of both ends, (B, 2, C, h, w).
            labels: their own, (B, 2) int64: each is followed back under its own.
            numbers: of the pairs; fresh noise hangs on them alone.
        """
        noisy = ddim.encode(z.flatten(0, 1), labels.flatten(), self.path, self.predict).reshape(z.shape)
        mixed = slerp(noisy[:, 0], noisy[:, 1], self.fractions, self.cfg.slerp)
        count = self.cfg.num_points
        indices = [number * count + point for number in numbers for point in range(count)]
        noise = SampleNoise(self.cfg.seed, indices, z.shape[2:], z.device)
        points = self.solve(mixed.flatten(0, 1), self._labels(labels).flatten(), self.path, self.predict, noise)
        return points.reshape(mixed.shape), angle(noisy[:, 0], noisy[:, 1])

    def _labels(self, labels: Tensor) -> Tensor:
        """Under which label each place is decoded, (B, num_points)."""
        if self.cfg.label is BlendLabel.none:
            return torch.full((len(labels), self.cfg.num_points), self.null, device=labels.device)
        return labels[:, [int(fraction > 0.5) for fraction in self.fractions]]

    def decoded_as(self, first: int, second: int) -> list[str]:
        """The same for people: emotions, or "no label"."""
        decoded = self._labels(torch.tensor([[first, second]]))[0].tolist()
        return ["no label" if label == self.null else EMOTIONS[label] for label in decoded]
