"""How fast the thesis' networks train: a step against the original's way, precisions, engines, the loop, checkpoints.

Contenders of a table take turns, and their medians are compared as ratios within this one run. Sizes are those of the
thesis (sections 4.3.2 and 4.3.3), weights are random.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from affect_hpc.config.compose import collect
from affect_hpc.config.stages import StagesConfig
from affect_hpc.config.train import EngineName, Precision
from affect_hpc.data.align import resize
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.codec import encode_npy, encode_png
from affect_hpc.data.images import ImageSet, LatentSet, unit_range
from affect_hpc.data.shards import ShardWriter
from affect_hpc.diffusion.objective import q_sample
from affect_hpc.models import first_stage
from affect_hpc.models.denoiser import count_parameters
from affect_hpc.stages.train_ldm import LatentSource, LdmTask
from affect_hpc.stages.train_vqgan import VqganTask
from affect_hpc.train import comm
from affect_hpc.train.checkpoint import Saver
from affect_hpc.train.ema import Ema
from affect_hpc.train.loop import _states, fit

WHAT = ["encode", "precision", "engine", "loop", "checkpoint", "vqgan"]
FACES = 64
OVERFIT_S = 2400.0
ALONE = comm.Ranks()
DEVICE = comm.device_of(ALONE)
Step = Callable[[], object]


class World:
    """Random faces, latents and a first stage of the thesis' sizes in a folder.

    Args:
        pictures: of real faces, for the overfit_* questions; without any, cuts of one portrait.
    """

    def __init__(self, folder: Path, batch: int, pictures: Sequence[Path] = ()) -> None:
        self.folder, self.pictures = folder, pictures
        words = ["model=thesis", "data=demo", "data.size=128", "use.first_stage=train"]
        self.stages: StagesConfig = collect(words)[0].stages
        for name in ("train_ldm", "train_vqgan"):
            config = getattr(self.stages, name)
            changes: dict[str, Any] = {"global_batch_size": batch, "samples_total": 10**9, "save_every": 10**9}
            config.train = replace(config.train, engine=EngineName.plain, **changes)
        self.stages.train_ldm.validation_samples = 0
        self.stages.train_ldm.sample_every = 0
        torch.manual_seed(0)
        model = first_stage.build(self.stages.train_vqgan.first_stage)
        model.save_pretrained(folder / "first_stage")
        self.model = first_stage.load(folder).to(DEVICE)
        random = np.random.default_rng(0)
        with ShardWriter(folder / "faces", "shard") as faces, ShardWriter(folder / "latents", "shard") as latents:
            for number in range(FACES):
                info = {"label": number % 8, "identity": str(number)}
                faces.write(f"s{number}", {"png": encode_png(random.integers(0, 256, (128, 128, 3), np.uint8))}, info)
                latent = random.standard_normal((3, 32, 32)).astype(np.float16)
                latents.write(f"s{number}", {"npy": encode_npy(latent)}, info)
        self.faces, self.latents = ImageSet.open([folder / "faces"]), LatentSet([folder / "latents"])

    def ldm(self, **changes: Any) -> LdmTask:
        """Our training of the denoiser on latents of shards."""
        config = self.stages.train_ldm
        config = replace(config, train=replace(config.train, **changes))
        source = LatentSource(self.latents, self.model, DEVICE)
        return LdmTask(config, source, source.norm(config, ALONE, self.folder), self.faces, ALONE)

    def stepper(self, task: LdmTask) -> Step:
        """One step after the other, data included."""
        config = task.cfg.train
        data = TrainingData(self.latents, self.latents.labels, config, 0, 1, self.folder).after(0)
        count = iter(range(10**9))
        return lambda: task.step(next(data), next(count), config.lr)

    def original(self, task: LdmTask, batch: int) -> Step:
        """A plain step of torch that encodes its faces anew, as the original code does; same networks, same average."""
        config = task.cfg
        net = task.denoiser
        ema = Ema(net, config.ema_decay)
        optimizer = torch.optim.AdamW(net.parameters(), lr=config.train.lr)
        data = TrainingData(self.faces, self.faces.shards.labels, config.train, 0, 1, self.folder).after(0)

        def step() -> None:
            found = next(data)
            with torch.no_grad():
                z_0 = first_stage.encode(self.model, unit_range(found["image"].to(DEVICE)))
            t, noise = torch.randint(1000, (batch,), device=DEVICE), torch.randn_like(z_0)
            label = torch.where(torch.rand(batch) < config.p_uncond, 8, found["label"]).to(DEVICE)
            loss = (net(q_sample(z_0, t, noise, task.alpha_bar), t, label) - noise).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            ema.update(net)

        return step


def seconds(step: Callable[[], object]) -> float:
    """What one call takes."""
    began = time.perf_counter()
    step()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def turns(steps: Mapping[str, Step], runs: int) -> dict[str, float]:
    """Medians of the seconds of steps taken in turn, after one of each to warm up."""
    for step in steps.values():
        step()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(runs):
        for name, step in steps.items():
            taken[name].append(seconds(step))
    return {name: statistics.median(values) for name, values in taken.items()}


def table(title: str, medians: Mapping[str, float]) -> None:
    """Print medians, and how much faster the first is than each of the others."""
    print(f"{title}:")
    for name, value in medians.items():
        print(f"  {name:42s} {value:8.3f} s   {value / next(iter(medians.values())):5.2f} times the first")


def bench_encode(world: World, batch: int, runs: int) -> None:
    """Latents from shards against encoding in each step."""
    task = world.ldm()
    print(
        f"denoiser: {count_parameters(task.denoiser.unet):,} parameters, first stage: {count_parameters(world.model):,}"
    )
    steps = {"latents from shards": world.stepper(task), "faces encoded in each step": world.original(task, batch)}
    table(f"a step of {batch} samples, float32", turns(steps, runs))
    print(f"  peak memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")


def bench_precision(world: World, batch: int, runs: int) -> None:
    """bfloat16 against float32."""
    task, other = world.ldm(precision=Precision.bf16), world.ldm()
    steps = {"bfloat16": world.stepper(task), "float32": world.stepper(other)}
    table(f"a step of {batch} samples", turns(steps, runs))


def bench_engine(world: World, batch: int, runs: int) -> None:
    """DeepSpeed's engine against torch alone, at one rank."""
    steps = {
        "plain engine": world.stepper(world.ldm()),
        "DeepSpeed, ZeRO 0": world.stepper(world.ldm(engine=EngineName.deepspeed)),
    }
    table(f"a step of {batch} samples, float32, one rank", turns(steps, runs))


class Timed(LdmTask):
    """Counts the seconds of its steps."""

    spent = begun = ended = 0.0

    def step(self, batch: Mapping[str, Tensor], step: int, lr: float) -> Mapping[str, Tensor]:
        """One optimiser step."""
        began = time.perf_counter()
        figures = super().step(batch, step, lr)
        self.ended = time.perf_counter()
        if step:  # the first one warms up
            self.spent += self.ended - began
        else:
            self.begun = self.ended
        return figures


def bench_loop(world: World, batch: int, runs: int) -> None:
    """What the loop takes beside the steps: data, figures, logs."""
    task = world.ldm(log_every=1, samples_total=batch * (runs + 2))
    task.__class__ = Timed
    assert isinstance(task, Timed)
    data = TrainingData(world.latents, world.latents.labels, task.cfg.train, 0, 1, world.folder)
    fit("bench", task, data, task.cfg.train, ALONE, world.folder / "keep")
    whole = task.ended - task.begun
    print(f"loop, logging at each step: {100 * (whole - task.spent) / whole:.2f} % of the time is not in the step")


def bench_checkpoint(world: World, batch: int, runs: int) -> None:
    """A checkpoint against safetensors alone, both flushed to the disk; and the stall of one in the background."""
    task = world.ldm()
    world.stepper(task)()
    states = _states(task, ALONE)
    tensors = {name: value.contiguous() for name, value in _tensors(states, "").items()}
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    path, count = world.folder / "alone.safetensors", iter(range(10**9))

    def alone() -> None:
        save_file(tensors, path)
        with path.open("rb") as handle:
            os.fsync(handle.fileno())

    saver = Saver(world.folder / "foreground", ALONE, 1)
    aside = Saver(world.folder / "background", ALONE, 1, background=True)
    stalls: list[float] = []

    def background() -> None:
        stalls.append(seconds(lambda: aside.save(next(count), _states(task, ALONE))))
        aside.wait()

    steps: dict[str, Step] = {
        "safetensors alone": alone,
        "our checkpoint": lambda: saver.save(next(count), _states(task, ALONE)),
        "our checkpoint in the background, to its end": background,
    }
    medians = turns(steps, runs)
    table(f"weights, average, moments: {size / 1e9:.2f} GB to the disk", medians)
    stall = statistics.median(stalls[1:])
    print(f"  in the background training stalls {stall:.3f} s, {stall / medians['safetensors alone']:.3f} of the first")


def _tensors(state: Any, prefix: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            found |= _tensors(value, f"{prefix}{name}/")
        elif isinstance(value, Tensor):
            found[prefix + name] = value
    return found


def bench_vqgan(world: World, batch: int, runs: int) -> None:
    """A step of the first stage with both losses at work."""
    config = replace(world.stages.train_vqgan, disc_start=0, perceptual="none")
    data = TrainingData(world.faces, world.faces.shards.labels, config.train, 0, 1, world.folder)
    task = VqganTask(config, data, world.faces, ALONE)
    batches, count = data.after(0), iter(range(10**9))
    medians = turns({"both engines, no perceptual loss": lambda: task.step(next(batches), next(count), 1e-5)}, runs)
    table(f"a step of the first stage, {batch} faces, float32", medians)
    print(f"  first stage {count_parameters(task.net.model):,} parameters, discriminator", end=" ")
    print(f"{count_parameters(task.discriminator.module):,}; peak memory of the process", end=" ")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")


def portraits(pictures: Sequence[Path], count: int) -> Tensor:
    """The first ``count`` pictures, else cuts of scikit-image's portrait (NASA, public domain): (B, 128, 128, 3)."""
    if pictures:
        photos = [np.asarray(Image.open(path).convert("RGB")) for path in pictures[:count]]
        if len(photos) < count:
            raise SystemExit(f"--faces gives {len(photos)} pictures where {count} are needed: name more.")
    else:
        from skimage import data  # noqa: PLC0415 (a development package)

        photo = data.astronaut()
        places = [(20 * number, 150 - 10 * number, 190 + 15 * number) for number in range(count)]
        photos = [photo[top : top + side, left : left + side] for top, left, side in places]
    return torch.from_numpy(np.stack([resize(photo, 128, 128) for photo in photos])).to(DEVICE)


def follow(name: str, step: Callable[[int], float], reached: Callable[[float], bool]) -> None:
    """Train until the mean of the last 20 values is good enough, at most 40 minutes; prints the curve."""
    began, values = time.perf_counter(), list[float]()
    while time.perf_counter() - began < OVERFIT_S:
        values.append(step(len(values)))
        recent = statistics.mean(values[-20:])
        good = len(values) >= 20 and reached(recent)
        if good or len(values) % 20 == 0:
            print(f"  step {len(values):5d}  {time.perf_counter() - began:6.0f} s  {name} {recent:.3f}", flush=True)
        if good:
            return
    print("  not reached")


def overfit_vqgan(world: World, batch: int, runs: int) -> None:
    """The first stage on two faces, bfloat16: how soon it passes 22 dB."""
    config = replace(world.stages.train_vqgan, disc_start=-1, perceptual="none", mse_weight=2.0)
    config.train = replace(config.train, global_batch_size=2, precision=Precision.bf16, clip_grad_norm=1.0)
    data = TrainingData(world.faces, world.faces.shards.labels, config.train, 0, 1, world.folder)
    task = VqganTask(config, data, world.faces, ALONE)
    faces = portraits(world.pictures, 2)

    def psnr(step: int) -> float:
        task.step({"image": faces}, step, 2e-4)
        with torch.no_grad(), torch.autocast(DEVICE.type, torch.bfloat16):
            fake = first_stage.reconstruct(task.net.model, unit_range(faces)).float().clamp(-1, 1)
        error = (fake - unit_range(faces)).square().mean(dim=(1, 2, 3))
        return float((10 * torch.log10(4 / error)).mean())

    print("first stage on two faces, bfloat16, lr 2e-4:")
    follow("PSNR (dB)", psnr, lambda value: value > 22)
    world.model = task.net.model


def overfit_ldm(world: World, batch: int, runs: int) -> None:
    """The denoiser on the encoded latents of four faces, bfloat16: how soon its loss falls below 0.2.

    The encoder is the one that overfit_vqgan trained, if that ran before, else it has random weights.
    """
    task = world.ldm(global_batch_size=4, precision=Precision.bf16, clip_grad_norm=1.0)
    with torch.no_grad():
        latents = first_stage.encode(world.model, unit_range(portraits(world.pictures, 4))).float()
    # As train_ldm does with latent.normalise: without it the scale of an encoder's latents would decide.
    latents = (latents - latents.mean()) / latents.std()
    found = {"latent": latents.half(), "label": torch.arange(4)}
    print("denoiser on four latents, bfloat16, lr 1e-4:")
    follow("loss", lambda step: float(task.step(found, step, 1e-4)["loss"]), lambda value: value < 0.2)


def main() -> None:
    """Print one table per question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what", nargs="*", default=WHAT, help=f"{', '.join(WHAT)}; overfit_vqgan, overfit_ldm (minutes)"
    )
    parser.add_argument("--batch", type=int, default=8, help="samples of a step (default: 8)")
    parser.add_argument("--faces", nargs="+", type=Path, default=[], help="for overfit_* (default: one portrait)")
    parser.add_argument("--runs", type=int, default=5, help="steps of each contender (default: 5)")
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    warnings.simplefilter("ignore")
    benches = {
        "encode": bench_encode,
        "precision": bench_precision,
        "engine": bench_engine,
        "loop": bench_loop,
        "checkpoint": bench_checkpoint,
        "vqgan": bench_vqgan,
        "overfit_vqgan": overfit_vqgan,
        "overfit_ldm": overfit_ldm,
    }
    with tempfile.TemporaryDirectory() as scratch:
        comm.set_up(ALONE, Path(scratch))
        world = World(Path(scratch), arguments.batch, arguments.faces)
        for name in arguments.what:
            benches[name](world, arguments.batch, arguments.runs)


if __name__ == "__main__":
    main()
