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
from affect_hpc.data.codec import decode_png, images_to_tensor
from affect_hpc.data.images import ImageSet
from affect_hpc.data.stream import TrainStream
from affect_hpc.experts.referee import DESCRIPTION, RefereeIdentity, Trunk, accuracy
from affect_hpc.train import comm
from affect_hpc.train.engine import Engine, make_engine, micro_batch
from affect_hpc.train.loop import fit, seed_everything

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

    def __init__(self, network: Trunk, config: TrainConfig, images: ImageSet, ranks: comm.Ranks) -> None:
        self.images, self.config = images, config
        self.device = comm.device_of(ranks)
        self.engine = make_engine(network.to(self.device), config, ranks)
        self.micro = micro_batch(config, ranks)

    def engines(self) -> Mapping[str, Engine]:
        """The networks with their optimisers."""
        return {"network": self.engine}

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides the engines."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing beyond the engine."""

    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """Image grids of this step."""
        return {}

    def loss(self, indices: Any) -> Tensor:
        """Loss of one micro batch."""
        raise NotImplementedError

    def step(self, indices: Any, step: int, lr: float) -> Mapping[str, Tensor]:
        """One optimiser step."""
        losses = []
        for start in range(0, len(indices), self.micro):
            loss = self.loss(indices[start : start + self.micro])
            self.engine.backward(loss)
            self.engine.step(lr)
            losses.append(loss.detach())
        return {"loss": torch.stack(losses).mean()}


class EmotionTask(RefereeTask):
    """Classification with label smoothing."""

    def loss(self, indices: Any) -> Tensor:
        """Loss of one micro batch."""
        faces = augment(self.images.batch(indices)).to(self.device)
        return F.cross_entropy(
            self.engine.forward(faces), self.images.labels(indices).to(self.device), label_smoothing=0.05
        )


class IdentityTask(RefereeTask):
    """Two faces of one identity with different expressions attract, others repel."""

    def __init__(self, network: Trunk, config: TrainConfig, images: ImageSet, ranks: comm.Ranks) -> None:
        super().__init__(network, config, images, ranks)
        self.views: dict[str, list[int]] = defaultdict(list)
        for index, sample in enumerate(images.shards.samples):
            self.views[sample.identity].append(index)
        if all(len(views) < 2 for views in self.views.values()):
            raise UserError(
                "the identity judge needs two faces of an identity: set data.emotions_per_identity=2 or more."
            )

    def partner(self, index: int) -> int:
        """The next face of the same identity, itself where it has but one."""
        views = self.views[self.images.shards.samples[index].identity]
        return views[(views.index(index) + 1) % len(views)]

    def loss(self, indices: Any) -> Tensor:
        """Loss of one micro batch."""
        # Two faces of one identity in a batch would be pushed apart: one of them stays.
        unique = list({self.images.shards.samples[int(i)].identity: int(i) for i in indices}.values())
        pairs = torch.cat([self.images.batch(unique), self.images.batch([self.partner(i) for i in unique])])
        first, second = self.engine.forward(augment(pairs).to(self.device)).chunk(2)
        return contrastive_loss(first, second)


def run(cfg: TrainRefereeConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Train both judges; report how well they do on the val split."""
    ranks = comm.Ranks.of_environment()
    comm.set_up(ranks, place.keep)
    images = ImageSet.open([folder / "train" for folder in inputs.many("shards")])
    networks: dict[str, Trunk] = {}
    plan = (
        ("emotion", cfg.emotion, EmotionTask, len(EMOTIONS)),
        ("identity", cfg.identity, IdentityTask, cfg.embed_dim),
    )
    for name, config, task_class, outputs in plan:
        seed_everything(config.seed)
        networks[name] = Trunk(cfg.channels, outputs)
        task = task_class(networks[name], config, images, ranks)
        stream = TrainStream(len(images), config.global_batch_size, config.seed, ranks.rank, ranks.world)
        if not fit(f"train_referee {name}", task, stream, config, ranks, place.keep / name):
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
