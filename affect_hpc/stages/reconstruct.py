"""Validation faces through the first stage and back: the ceiling of any edit."""

import torch

from affect_hpc.config.stages import ReconstructConfig
from affect_hpc.core.blocks import blocks
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import encode_png, tensor_to_images
from affect_hpc.data.images import ImageSet
from affect_hpc.data.shards import ShardWriter
from affect_hpc.models import first_stage
from affect_hpc.train.comm import Ranks, device_of


def run(cfg: ReconstructConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Write this part's share of the reconstructions as PNG, in fixed blocks."""
    torch.set_num_threads(cfg.threads)
    device = device_of(Ranks.of_environment())
    images = ImageSet.open([folder / "val" for folder in inputs.many("shards")])
    model = first_stage.load(inputs.one("first_stage")).to(device)
    work = blocks(min(cfg.num_samples, len(images)) if cfg.num_samples else len(images), cfg.batch_size)
    mine = [work[i] for i in place.slice(len(work))]
    with (
        Progress("reconstruct", sum(map(len, mine)), "face") as progress,
        torch.inference_mode(),
        ShardWriter(place.out, f"images-{place.part:05d}") as writer,
    ):
        for block in mine:
            made = tensor_to_images(first_stage.reconstruct(model, images.batch(block).to(device)))
            for index, image in zip(block, made, strict=True):
                sample = images.shards[index]
                writer.write(sample.key, {"reconstruction.png": encode_png(image)}, sample.info)
            progress.advance(len(block))
    return Outcome({"faces": sum(map(len, mine))})
