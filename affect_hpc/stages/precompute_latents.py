"""Latents that many runs share: encoded train faces, and inverted validation faces."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affect_hpc.config.stages import EncodeLatentsConfig, InvertLatentsConfig
from affect_hpc.config.train import Precision
from affect_hpc.core.blocks import blocks
from affect_hpc.core.hashing import canonical
from affect_hpc.core.io import write_json
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import encode_npy
from affect_hpc.data.images import ImageSet
from affect_hpc.data.shards import ShardWriter
from affect_hpc.diffusion import ddim
from affect_hpc.diffusion.guidance import guided
from affect_hpc.diffusion.schedule import alpha_bars
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import Ldm
from affect_hpc.train.comm import Ranks, device_of


def run(cfg: EncodeLatentsConfig | InvertLatentsConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Write this part's share of the latents, in fixed blocks."""
    torch.set_num_threads(cfg.threads)
    split, count = ("val", cfg.num_samples) if isinstance(cfg, InvertLatentsConfig) else ("train", 0)
    images = ImageSet.open([folder / split for folder in inputs.many("shards")])
    total = min(count, len(images)) if count else len(images)
    device = device_of(Ranks.of_environment())
    model = first_stage.load(inputs.one("first_stage")).to(device)
    work = blocks(total, cfg.batch_size)
    mine = [work[i] for i in place.slice(len(work))]
    views: Inverter | Encoder
    if isinstance(cfg, InvertLatentsConfig):
        views = Inverter(cfg, inputs.one("ldm"), model, device)
    else:
        views = Encoder(cfg, model, device)
    with (
        Progress(f"precompute_latents {cfg.mode.name}", sum(map(len, mine)), "face") as progress,
        torch.inference_mode(),
        ShardWriter(place.out, f"latents-{place.part:05d}") as writer,
    ):
        for block in mine:
            tensors = {name: tensor.cpu().numpy() for name, tensor in views(images, block)}
            for row, index in enumerate(block):
                sample = images.shards[index]
                writer.write(sample.key, {name: encode_npy(array[row]) for name, array in tensors.items()}, sample.info)
            progress.advance(len(block))
    write_json(place.out / "latents.json", canonical(cfg))
    return Outcome({"faces": sum(map(len, mine))})


class Encoder:
    """mode=encode: unquantised float16 latents, the mirrored face's too where it is asked for."""

    def __init__(self, cfg: EncodeLatentsConfig, model: Any, device: torch.device) -> None:
        self.cfg, self.model, self.device = cfg, model, device

    def __call__(self, images: ImageSet, block: range) -> Iterator[tuple[str, Tensor]]:
        """Member name and tensor (B, C, h, w) of each view of a block."""
        faces = images.batch(block).to(self.device)
        yield "npy", first_stage.encode(self.model, faces).half()
        if self.cfg.flip:
            yield "flip.npy", first_stage.encode(self.model, faces.flip(3)).half()


class Inverter:
    """mode=invert: z_t0 by deterministic DDIM encoding under the true label (thesis section 4.4)."""

    def __init__(self, cfg: InvertLatentsConfig, ldm_folder: Path, model: Any, device: torch.device) -> None:
        self.model, self.device = model, device
        self.ldm = Ldm.load(ldm_folder, device)
        taus = ddim.timesteps(cfg.spacing, cfg.num_steps, cfg.t0, self.ldm.diffusion.num_timesteps)
        self.path = ddim.Path(taus, alpha_bars(self.ldm.diffusion), cfg.end_level, cfg.time_input)
        predict = self.ldm.predictor(cfg.precision is Precision.bf16)
        self.predict = guided(predict, cfg.gamma, self.ldm.condition.null_index)

    def __call__(self, images: ImageSet, block: range) -> Iterator[tuple[str, Tensor]]:
        """Member name and tensor (B, C, h, w) of each view of a block."""
        latents = first_stage.encode(self.model, images.batch(block).to(self.device))
        label = images.labels(block).to(self.device)
        yield "z_t0.npy", ddim.encode(self.ldm.norm.normalise(latents), label, self.path, self.predict)
