"""Judges for corpora that have none: emotion classifier and identity embedder, trained on the train split only."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from affect_hpc.config.stages import TrainRefereeConfig
from affect_hpc.config.train import TrainConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import write_json
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.codec import decode_png, images_to_tensor
from affect_hpc.data.images import ImageSet, unit_range
from affect_hpc.data.loader import Samples
from affect_hpc.experts.referee import DESCRIPTION, RefereeIdentity, Trunk, accuracy
from affect_hpc.train import comm
from affect_hpc.train.ema import Ema
from affect_hpc.train.engine import Engine, make_engine, micro_batch, micro_batches
from affect_hpc.train.loop import fit, seed_everything
from affect_hpc.train.precision import autocast

TEMPERATURE = 0.1
"""Of the contrastive loss."""
MAX_SHIFT = 4
"""Pixels of random translation at 64 px."""


def augment(images: Tensor) -> Tensor:
    """Random mirror, shift, brightness, contrast, blur and noise for each image (B, 3, H, W) in [-1, 1].

    Blur and noise matter most: reconstructions and edits are softer than what the judge learns from.
    """
    count, _, height, _ = images.shape
    shift = max(1, MAX_SHIFT * height // 64)
    padded = F.pad(images, (shift,) * 4, mode="replicate")
    offsets = torch.randint(2 * shift + 1, (count, 2)).tolist()
    moved = torch.stack([padded[i, :, y : y + height, x : x + height] for i, (y, x) in enumerate(offsets)])
    moved = torch.where(torch.rand(count, 1, 1, 1) < 0.5, moved.flip(3), moved)
    blurred = F.avg_pool2d(F.pad(moved, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    amount = torch.rand(count, 1, 1, 1) * (torch.rand(count, 1, 1, 1) < 0.6)
    moved = moved + amount * (blurred - moved)
    moved = moved * (0.8 + 0.4 * torch.rand(count, 1, 1, 1)) + 0.2 * (torch.rand(count, 1, 1, 1) - 0.5)
    return moved + 0.1 * torch.rand(count, 1, 1, 1) * torch.randn(moved.shape)


def contrastive_loss(a: Tensor, b: Tensor) -> Tensor:
    """NT-Xent (Chen et al. 2020, Eq. 1) between two views of the same identities, both (B, D)."""
    both = F.normalize(torch.cat([a, b]), dim=1)
    similarity = both @ both.T / TEMPERATURE
    similarity.fill_diagonal_(float("-inf"))
    count = len(a)
    partner = torch.cat([torch.arange(count, 2 * count), torch.arange(count)]).to(a.device)
    return F.cross_entropy(similarity, partner)


class RefereeTask:
    """What both judges share; ``loss`` is a subclass' own."""

    def __init__(self, network: Trunk, config: TrainConfig, ranks: comm.Ranks) -> None:
        self.device, self.precision = comm.device_of(ranks), config.precision
        self.engine = make_engine(network.to(self.device), config, ranks)
        self.micro = micro_batch(config, ranks)

    def engines(self) -> Mapping[str, Engine]:
        """The networks with their optimisers."""
        return {"network": self.engine}

    def flops_per_sample(self) -> float:
        """Not counted."""
        return 0.0

    def averages(self) -> Mapping[str, Ema]:
        """None."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides the engines."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing beyond the engine."""

    def measures(self, step: int) -> Mapping[str, float]:
        """No slow figures."""
        return {}

    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """Image grids of this step."""
        return {}

    def outputs(self, faces: Tensor) -> Tensor:
        """What the network makes of faces (B, 3, H, W) in [-1, 1], in float32."""
        with autocast(self.precision, self.device):
            out: Tensor = self.engine.forward(augment(faces).to(self.device))
        return out.float()

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Loss of one micro batch."""
        raise NotImplementedError

    def step(self, batch: Mapping[str, Tensor], step: int, lr: float) -> Mapping[str, Tensor]:
        """One optimiser step."""
        losses = []
        for micro in micro_batches(batch, self.micro):
            loss = self.loss(micro)
            self.engine.backward(loss)
            self.engine.step(lr)
            losses.append(loss.detach())
        return {"loss": torch.stack(losses).mean()}


class EmotionTask(RefereeTask):
    """Classification with label smoothing."""

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Loss of one micro batch."""
        logits = self.outputs(unit_range(batch["image"]))
        return F.cross_entropy(logits, batch["label"].to(self.device), label_smoothing=0.05)


class PairSet:
    """Each face with another one of the same identity."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self.identities = [entry.identity for entry in images.shards]
        self.views: dict[str, list[int]] = defaultdict(list)
        for index, identity in enumerate(self.identities):
            self.views[identity].append(index)
        if all(len(views) < 2 for views in self.views.values()):
            raise UserError(
                "the identity judge needs two faces of an identity: set data.emotions_per_identity=2 or more."
            )

    def __len__(self) -> int:
        return len(self.images)

    def partner(self, index: int) -> int:
        """The next face of the same identity, itself where it has but one."""
        views = self.views[self.identities[index]]
        return views[(views.index(index) + 1) % len(views)]

    def sample(self, index: int) -> Mapping[str, Any]:
        """image and partner (H, W, 3) uint8; identity: place of its first face, as a number that stands for it."""
        return {
            "image": self.images.image(index),
            "partner": self.images.image(self.partner(index)),
            "identity": self.views[self.identities[index]][0],
        }


class IdentityTask(RefereeTask):
    """Two faces of one identity with different expressions attract, others repel."""

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Loss of one micro batch."""
        # Two faces of one identity in a batch would be pushed apart: one of them stays.
        unique = list({int(identity): row for row, identity in enumerate(batch["identity"])}.values())
        pairs = unit_range(torch.cat([batch["image"][unique], batch["partner"][unique]]))
        first, second = self.outputs(pairs).chunk(2)
        return contrastive_loss(first, second)


def run(cfg: TrainRefereeConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Train both judges; report how well they do on the val split."""
    ranks = comm.Ranks.of_environment()
    comm.set_up(ranks, place.keep)
    images = ImageSet.open([folder / "train" for folder in inputs.many("shards")])
    networks: dict[str, Trunk] = {}
    plan: tuple[tuple[str, TrainConfig, type[RefereeTask], Samples, int], ...] = (
        ("emotion", cfg.emotion, EmotionTask, images, len(EMOTIONS)),
        ("identity", cfg.identity, IdentityTask, PairSet(images), cfg.embed_dim),
    )
    for name, config, task_class, samples, outputs in plan:
        seed_everything(config.seed)
        networks[name] = Trunk(cfg.channels, outputs)
        task = task_class(networks[name], config, ranks)
        keep = place.keep / name
        data = TrainingData(samples, images.shards.labels, config, ranks.rank, ranks.world, keep)
        if not fit(f"train_referee {name}", task, data, config, ranks, keep, place.keep.parent):
            return Outcome(stopped=True)
    if not ranks.is_chief:
        return Outcome()
    figures = judge_judges(networks, ImageSet.open([folder / "val" for folder in inputs.many("shards")]))
    for name, network in networks.items():
        save_file(network.cpu().state_dict(), place.out / f"{name}.safetensors")
    description = {"channels": cfg.channels, "embed_dim": cfg.embed_dim, **figures}
    write_json(place.out / DESCRIPTION, description)
    return Outcome(figures)


@torch.no_grad()
def judge_judges(networks: Mapping[str, Trunk], val: ImageSet) -> dict[str, float]:
    """Accuracy of the emotion judge on val, and how well the identity judge tells people apart.

    Identity figures compare each val face with the same identity under another expression (its truth) and with another
    identity under that expression; AUC is the share of (same, other) pairs in the right order.
    """
    for network in networks.values():
        network.eval().cpu()
    everyone = range(len(val))
    figures = {"val_accuracy": accuracy(networks["emotion"], val.batch(everyone), val.labels(everyone))}
    judge = RefereeIdentity(networks["identity"], "referee", "")
    happy = [i for i in everyone if val.shards.has(i, "truth_happy.png") and val.shards.has(i, "truth_angry.png")]
    if len(happy) > 1:
        views = [
            judge.embed(images_to_tensor([decode_png(val.shards.read(i, f"truth_{name}.png")) for i in happy]))
            for name in ("happy", "angry")
        ]
        cosines = (views[0] @ views[1].T).numpy()
        same = np.diag(cosines)
        other = cosines[~np.eye(len(cosines), dtype=bool)]
        figures["same_identity_cosine"] = float(same.mean())
        figures["other_identity_cosine"] = float(other.mean())
        figures["identity_auc"] = float((same[:, None] > other[None, :]).mean())
    return figures
