"""How fast faces are edited at the thesis' sizes, beside a loop that does what the original code did.

The original's way: for each target and guidance scale encode and decode anew, eight faces at once, float32, decoding
the reconstruction each time too, with our modules as they are trained. Ours is the stages themselves: one inversion
with its certificate for all targets, large batches, tuned networks, the round trip decoded once. Weights are random,
steps few: the ratio counts. Also said: how much of a manipulate job is not in the networks, and how much memory few
and many faces take (small networks, blocks of eight, each count in a process of its own).
"""

import argparse
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from affect_hpc.config.compose import collect
from affect_hpc.config.root import Config
from affect_hpc.config.train import Precision
from affect_hpc.core.emotions import EMOTIONS, TARGETS
from affect_hpc.core.rundir import Inputs, Workplace
from affect_hpc.data.codec import encode_npy, tensor_to_images
from affect_hpc.data.images import stacked
from affect_hpc.data.shards import ShardSet, ShardWriter
from affect_hpc.diffusion import ddim
from affect_hpc.models import first_stage
from affect_hpc.models.denoiser import Denoiser
from affect_hpc.models.ldm import LatentNorm, Ldm, write_description
from affect_hpc.stages import manipulate, precompute_latents
from affect_hpc.train.comm import Ranks, device_of

ORIGINAL_BATCH = 8
MEMORY_FACES = (16, 160)


class World:
    """Encoded faces and networks in a folder."""

    def __init__(self, folder: Path, model: str, faces: int, block: int, steps: int, gamma: float) -> None:
        self.folder, self.faces = folder, faces
        words = [f"model={model}", "data=demo", "data.size=128", "use.first_stage=train", f"edit.num_steps={steps}"]
        self.cfg: Config = collect([*words, f"edit.gamma={gamma}", f"edit.batch_size={block}"])[0]
        torch.manual_seed(0)
        sizes = self.cfg.model
        first_stage.build(sizes.first_stage).save_pretrained(folder / "first_stage")
        denoiser = Denoiser.build(sizes.unet, sizes.condition, sizes.first_stage.embed_dim, 32)
        denoiser.save(folder / "unet", folder / "conditioner.safetensors")
        norm = LatentNorm(torch.zeros(3), torch.ones(3))
        write_description(folder, sizes.diffusion, sizes.condition, norm)
        random = np.random.default_rng(0)
        with ShardWriter(folder / "clean", "latents") as writer:
            for number in range(faces):
                latent = random.standard_normal((3, 32, 32)).astype(np.float32)
                info = {"label": number % len(EMOTIONS), "identity": str(number)}
                writer.write(f"f{number:03d}", {"npy": encode_npy(latent)}, info)

    def stages(self, precision: Precision) -> dict[str, float]:
        """Run both stages; seconds of each."""
        threads = torch.get_num_threads()
        invert = replace(self.cfg.stages.invert_latents, precision=precision, threads=threads)
        change = replace(self.cfg.stages.manipulate, precision=precision, threads=threads)
        networks = {"first_stage": (self.folder,), "ldm": (self.folder,)}
        with tempfile.TemporaryDirectory() as scratch:
            inverted, edited = (Workplace(Path(scratch) / name, Path(scratch)) for name in ("inverted", "edited"))
            for place in (inverted, edited):
                place.out.mkdir()
            return {
                "invert": seconds(
                    lambda: precompute_latents.run(
                        invert, Inputs({"latents": (self.folder / "clean",), **networks}), inverted
                    )
                ),
                "manipulate": seconds(
                    lambda: manipulate.run(change, Inputs({"latents": (inverted.out,), **networks}), edited)
                ),
            }

    @torch.inference_mode()
    def original(self) -> None:
        """Each target by itself, in batches of eight."""
        device = device_of(Ranks())
        ldm, model = Ldm.load(self.folder, device), first_stage.load(self.folder).to(device)
        path, predict = precompute_latents.path_and_predictor(self.cfg.stages.manipulate, ldm)
        # As it was trained: attention whole, memory in the usual order.
        unet: Any = ldm.denoiser.unet
        unet.set_attn_processor(AttnProcessor2_0())
        unet.to(memory_format=torch.contiguous_format)
        clean = ShardSet.open([self.folder / "clean"])
        for target in TARGETS:
            for start in range(0, self.faces, ORIGINAL_BATCH):
                block = range(start, min(start + ORIGINAL_BATCH, self.faces))
                z = stacked(clean, block, "npy").to(device)
                own = torch.tensor([clean[index].label for index in block], device=device)
                z_t0 = ddim.encode(z, own, path, predict)
                edited = ddim.decode(z_t0, torch.full_like(own, EMOTIONS.index(target)), path, predict)
                for side in (edited, z):
                    tensor_to_images(model.decode(side).sample)


def seconds(work: Callable[[], object]) -> float:
    """What one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class NetworkTime:
    """Counts the seconds that the networks take."""

    def __init__(self) -> None:
        self.spent = 0.0

    def around(self, function: Callable[..., object]) -> Callable[..., object]:
        """``function``, its time counted."""

        def timed(*arguments: object, **named: object) -> object:
            settle()
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                settle()
                self.spent += time.perf_counter() - began

        return timed


def settle() -> None:
    """Wait for what a GPU still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_gb() -> float:
    """Most memory that this process has had: by Linux's own count, for getrusage counts in that of the parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def memory_of(faces: int) -> float:
    """Peak of a process that edits ``faces`` by small networks, in GB."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        World(Path(scratch), "smoke", faces, block=8, steps=2, gamma=3.0).stages(Precision.fp32)
    return peak_gb()


def main() -> None:
    """Print one line per contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=8, help="edited at once by ours (default: 8)")
    parser.add_argument("--steps", type=int, default=6, help="DDIM steps of each pass (default: 6; the thesis has 40)")
    parser.add_argument("--gamma", type=float, default=3.0, help="guidance scale (default: 3)")
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        world = World(Path(scratch), "thesis", arguments.faces, arguments.faces, arguments.steps, arguments.gamma)
        original = seconds(world.original)
        print(f"{arguments.faces} faces to {len(TARGETS)} targets, {arguments.steps} steps, gamma {arguments.gamma:g}:")
        print(f"  {'the original way, float32':34s} {original:8.1f} s")
        for precision in (Precision.fp32, Precision.bf16):
            counter = NetworkTime()
            held = Denoiser.forward, first_stage.decode
            Denoiser.forward = counter.around(held[0])  # type: ignore[method-assign, assignment]
            first_stage.decode = counter.around(held[1])  # type: ignore[assignment]
            taken = world.stages(precision)
            Denoiser.forward, first_stage.decode = held  # type: ignore[method-assign]
            total = sum(taken.values())
            outside = 100 * (total - counter.spent) / total
            print(
                f"  {'ours, ' + precision.value:34s} {total:8.1f} s  {original / total:5.2f} times as fast;"
                f" {outside:.1f} % not in the networks"
            )
        print(f"peak memory {peak_gb():.1f} GB")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        few, many = (pool.apply(memory_of, (faces,)) for faces in MEMORY_FACES)
    print(f"peak memory of small networks on {MEMORY_FACES[0]} faces {few:.2f} GB, on {MEMORY_FACES[1]} {many:.2f} GB")


if __name__ == "__main__":
    main()
