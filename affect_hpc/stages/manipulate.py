"""Decode inverted faces under every target label (thesis section 4.4, Eq. 4.19)."""

import numpy as np
import torch

from affect_hpc.config.stages import ManipulateConfig
from affect_hpc.config.train import Precision
from affect_hpc.core.blocks import blocks
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.hashing import canonical
from affect_hpc.core.io import read_json, write_json
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import decode_npy, encode_png, tensor_to_images
from affect_hpc.data.shards import ShardSet, ShardWriter
from affect_hpc.diffusion import ddim
from affect_hpc.diffusion.guidance import guided
from affect_hpc.diffusion.schedule import alpha_bars
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import Ldm
from affect_hpc.train.comm import Ranks, device_of

ROUND_TRIP = "round_trip"
"""Member name of the face decoded under its true label."""


def run(cfg: ManipulateConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Write this part's edited faces as PNG; all targets of a block are one batch."""
    torch.set_num_threads(cfg.threads)
    device = device_of(Ranks.of_environment())
    inverted = ShardSet.open(inputs.many("latents"))
    ldm = Ldm.load(inputs.one("ldm"), device)
    model = first_stage.load(inputs.one("first_stage")).to(device)
    taus = ddim.timesteps(cfg.spacing, cfg.num_steps, cfg.t0, ldm.diffusion.num_timesteps)
    path = ddim.Path(taus, alpha_bars(ldm.diffusion), cfg.end_level, cfg.time_input)
    predict = guided(ldm.predictor(cfg.precision is Precision.bf16), cfg.gamma, ldm.condition.null_index)
    names = [*cfg.targets, *([ROUND_TRIP] if cfg.round_trip else [])]
    work = blocks(len(inverted), cfg.batch_size)
    if "latents" not in inputs.own:
        work = [work[i] for i in place.slice(len(work))]
    with (
        Progress("manipulate", sum(map(len, work)) * len(names), "image") as progress,
        torch.inference_mode(),
        ShardWriter(place.out, f"images-{place.part:05d}") as writer,
    ):
        for block in work:
            samples = [inverted[i] for i in block]
            z = torch.from_numpy(np.stack([decode_npy(inverted.read(i, "z_t0.npy")) for i in block])).to(device)
            own = torch.tensor([sample.label for sample in samples], device=device)
            labels = [own if name == ROUND_TRIP else torch.full_like(own, EMOTIONS.index(name)) for name in names]
            edited = ddim.decode(z.repeat(len(names), 1, 1, 1), torch.cat(labels), path, predict)
            images = tensor_to_images(first_stage.decode(model, ldm.norm.restore(edited)))
            for row, sample in enumerate(samples):
                members = {f"{name}.png": encode_png(images[k * len(block) + row]) for k, name in enumerate(names)}
                writer.write(sample.key, members, sample.info)
            progress.advance(len(images))
    encoding = read_json(inputs.many("latents")[0] / "latents.json")
    write_json(place.out / "edit.json", {**canonical(cfg), "encode_gamma": encoding["gamma"]})
    return Outcome({"images": sum(map(len, work)) * len(names)})
