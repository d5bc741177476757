"""How fast training data is read: latents, crops, the start of a stream over many shards, preparing of real photos.

All rates of a table are taken in turn, several times, and their medians compared as ratios within this one run.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from affect_hpc.config.compose import collect
from affect_hpc.config.train import ShuffleConfig, TrainConfig
from affect_hpc.data.align import resize
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.codec import encode_npy, encode_png
from affect_hpc.data.images import ImageSet, LatentSet
from affect_hpc.data.shards import INDEX_SUFFIX, ShardSet, ShardWriter
from affect_hpc.models.denoiser import Denoiser

BATCH = 32
LATENT = (3, 32, 32)
SIDE = 128
WHAT = ["start", "images", "latents", "prepare"]
REPO = Path(__file__).parent.parent.parent


def crops(count: int) -> Iterator[np.ndarray]:
    """Crops of SIDE px with the detail of photos: pieces of scikit-image's portrait and cat."""
    from skimage import data  # noqa: PLC0415 (a development package)

    photos = [data.astronaut(), data.chelsea()]
    random = np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % 2]
        side = int(random.integers(160, 280))
        top, left = (int(random.integers(extent - side)) for extent in photo.shape[:2])
        yield resize(photo[top : top + side, left : left + side], SIDE, SIDE)


def jpeg(image: np.ndarray) -> bytes:
    """As the thesis stored its crops."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write(folder: Path, count: int, member: str, contents: Iterator[bytes]) -> Path:
    """Shards of 1,000 samples."""
    for start in range(0, count, 1000):
        with ShardWriter(folder, f"shard-{start // 1000:05d}") as writer:
            for number in range(start, min(start + 1000, count)):
                info = {"label": number % 8, "identity": str(number)}
                writer.write(f"s{number:07d}", {member: next(contents), "json": json.dumps(info).encode()}, info)
    return folder


def as_files(shards: Path, folder: Path, member: str) -> Path:
    """The same bytes as ImageFolder wants them: a file each, in a folder for each class."""
    images = ShardSet.open([shards])
    for i, entry in enumerate(images):
        path = folder / str(entry.label) / f"{entry.key}.{member}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.read(i, member))
    return folder


def rate(batches: Callable[[], Iterator[Any]]) -> float:
    """Samples a second, from the first batch asked for to the last one given."""
    began, count = time.perf_counter(), 0
    for batch in batches():
        count += len(batch)
    return count / (time.perf_counter() - began)


def ours(samples: Any, labels: Any, workers: int, field: str, keep: Path) -> Callable[[], Iterator[Any]]:
    """An epoch of our stream."""
    count = len(samples) // BATCH * BATCH
    config = TrainConfig(BATCH, count, 0.1, shuffle=ShuffleConfig(), workers=workers)
    data = TrainingData(samples, labels, config, 0, 1, keep)
    return lambda: (batch[field] for batch in data.after(0))


def image_folder(folder: Path, workers: int) -> Callable[[], Iterator[Any]]:
    """An epoch of torchvision's ImageFolder in a DataLoader, shuffled."""
    from torchvision.datasets import ImageFolder  # noqa: PLC0415
    from torchvision.transforms.v2.functional import pil_to_tensor  # noqa: PLC0415

    loader = DataLoader(ImageFolder(str(folder), pil_to_tensor), BATCH, shuffle=True, num_workers=workers)
    return lambda: (batch for batch, _ in loader)


def webdataset(folder: Path, workers: int, member: str) -> Callable[[], Iterator[Any]]:
    """An epoch of WebDataset on the same tars, with its usual shuffle buffer."""
    import webdataset as wds  # noqa: PLC0415

    def decoded(sample: Any) -> Any:
        content = sample[member]
        if member == "npy":
            return torch.from_numpy(np.load(io.BytesIO(content)))
        return torch.from_numpy(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))

    def batches() -> Iterator[Any]:
        tars = sorted(map(str, folder.glob("*.tar")))
        dataset = (
            wds.WebDataset(tars, shardshuffle=len(tars))
            .shuffle(1000)
            .map(decoded)
            .batched(BATCH, collation_fn=torch.stack)
        )
        return iter(DataLoader(dataset, None, num_workers=workers))

    return batches


def compare(title: str, contenders: dict[str, Callable[[], Iterator[Any]]], runs: int) -> dict[str, float]:
    """Medians of rates taken in turn; the first contender is the one that the others are compared with."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, batches in contenders.items():
            rates[name].append(rate(batches))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    first = next(iter(medians))
    print(f"{title}:")
    for name, value in medians.items():
        ratio = "" if name == first else f"   {medians[first] / value:5.2f} times as fast is {first}"
        print(f"  {name:34s} {value:9.0f} samples/s{ratio}")
    return medians


def training_rate() -> float:
    """Samples a second of a training step of the thesis' U-Net on this machine, bfloat16, batch 8, best of two."""
    (config,) = collect(["model=thesis", "data=demo"])
    torch.manual_seed(0)
    net = Denoiser.build(config.model.unet, config.model.condition, LATENT[0], LATENT[1])
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-5)
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        z, t, label = torch.randn(8, *LATENT), torch.randint(1000, (8,)), torch.randint(8, (8,))
        with torch.autocast("cpu", torch.bfloat16):
            loss = (net(z, t, label) - torch.randn_like(z)).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        taken.append(time.perf_counter() - began)
    return 8 / min(taken[1:])


def bench_latents(folder: Path, count: int, runs: int) -> None:
    """Latent shards against WebDataset and against what a training consumes."""
    random = np.random.default_rng(0)
    contents = (encode_npy(random.standard_normal(LATENT).astype(np.float16)) for _ in range(count))
    shards = write(folder / "latents", count, "npy", contents)
    latents = LatentSet([shards])
    medians = compare(
        f"{count} latents 3 x 32 x 32, one worker",
        {
            "affect_hpc": ours(latents, latents.labels, 1, "latent", folder),
            "webdataset": webdataset(shards, 1, "npy"),
        },
        runs,
    )
    needed = training_rate()
    print(f"  a training step of the thesis' U-Net consumes {needed:.2f} samples/s: the stream gives")
    print(f"  {medians['affect_hpc'] / needed:.0f} times as many.")


def bench_images(folder: Path, count: int, runs: int, workers: int) -> None:
    """Image shards against ImageFolder and WebDataset on the same bytes."""
    for member, encode in {"png": encode_png, "jpg": jpeg}.items():
        shards = write(folder / member, count, member, (encode(crop) for crop in crops(count)))
        images = ImageSet.open([shards])
        compare(
            f"{count} crops of {SIDE} px as {member}, {workers} workers",
            {
                "affect_hpc": ours(images, images.shards.labels, workers, "image", folder),
                "torchvision ImageFolder": image_folder(as_files(shards, folder / f"{member}_files", member), workers),
                "webdataset": webdataset(shards, workers, member),
            },
            runs,
        )


def sparse_shards(folder: Path, shards: int, samples: int) -> Path:
    """Shards whose index is real and whose tar is a hole: as many samples as wished, no disk."""
    folder.mkdir(parents=True)
    content = encode_npy(np.zeros(LATENT, np.float16))
    with ShardWriter(folder / "one", "shard") as writer:
        for number in range(samples):
            writer.write(f"s{number:07d}", {"npy": content}, {"label": number % 8, "identity": str(number)})
    index = (folder / "one" / f"shard{INDEX_SUFFIX}").read_text()
    size = (folder / "one" / "shard.tar").stat().st_size
    with tarfile.open(folder / "one" / "shard.tar") as tar:
        assert len(tar.getmembers()) == samples
    target = folder / "all"
    target.mkdir()
    for number in range(shards):
        name = f"shard-{number:05d}"
        (target / f"{name}{INDEX_SUFFIX}").write_text(index.replace('"shard.tar"', f'"{name}.tar"', 1))
        os.link(folder / "one" / "shard.tar", target / f"{name}.tar")
    print(f"{shards} shards of {samples} samples, {shards * size / 1e9:.1f} GB as they stand in their indexes:")
    return target


def bench_start(folder: Path, shards: int, samples: int) -> None:
    """Opening a large set at a random sample, and memory while reading on."""
    where = sparse_shards(folder / "sparse", shards, samples)
    random = np.random.default_rng(0)
    taken = []
    for _ in range(5):
        seen = int(random.integers(10 * shards * samples)) // BATCH * BATCH
        began = time.perf_counter()
        latents = LatentSet([where])
        config = TrainConfig(BATCH, 10**12, 0.1)
        next(TrainingData(latents, latents.labels, config, 0, 1, folder).after(seen))
        taken.append(time.perf_counter() - began)
    print(f"  start at a random sample: median {statistics.median(taken):.3f} s, slowest {max(taken):.3f} s")
    latents = LatentSet([where])
    stream = TrainingData(latents, latents.labels, TrainConfig(BATCH, 10**12, 0.1), 0, 1, folder).after(0)
    peaks = []
    for _ in range(4):
        for _ in range(5000 // BATCH):
            next(stream)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(f"  peak memory after 5, 10, 15, 20 thousand samples: {', '.join(f'{peak:.0f}' for peak in peaks)} MB")


def portraits(folder: Path, count: int) -> Path:
    """Photos of a real face, each at another size and place: scikit-image's portrait (NASA, public domain)."""
    from skimage import data  # noqa: PLC0415 (a development package)

    random = np.random.default_rng(0)
    (folder / "happy").mkdir(parents=True)
    for number in range(count):
        side = int(random.integers(380, 512))
        left = int(random.integers(512 - side + 1))
        photo = Image.fromarray(data.astronaut()[:side, left : left + side]).resize((640, 640))
        photo.save(folder / "happy" / f"{number:04d}.jpg", quality=92)
    return folder


def bench_prepare(folder: Path, photos: str, count: int) -> None:
    """prepare_shards on photos: rate of a core, and what a second part brings."""
    root = Path(photos) if photos else portraits(folder / "photos", count)
    alone = 0.0
    for parts in (1, 2):
        store = folder / f"parts_{parts}"
        words = ["stage=prepare_shards", "data=folder", f"data.root={root}", "data.size=128", f"cluster.parts={parts}"]
        words += ["data.samples_per_shard=20", "data.on_bad_file=skip", f"store={store}", f"cluster.slots={parts}"]
        subprocess.run([sys.executable, "-m", "affect_hpc.launch", *words], cwd=REPO, check=True, capture_output=True)
        done = [json.loads(path.read_text()) for path in store.glob("runs/prepare_shards/*/**/DONE")]
        parts_done = [one for one in done if "summary" in one]
        rate = sum(one["summary"]["samples"] / one["seconds"] for one in parts_done)
        alone = alone or rate
        print(f"prepare_shards of photos, {parts} parts at once: {rate:.1f} faces/s, {rate / alone:.2f} times one part")


def main() -> None:
    """Print one table per question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=WHAT, help=", ".join(WHAT))
    parser.add_argument("--photos", default="", help="folder of photos for prepare (default: made of one portrait)")
    parser.add_argument("--count", type=int, default=4000, help="samples of each set (default: 4000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each contender (default: 5)")
    parser.add_argument("--workers", type=int, default=2, help="workers of the image readers (default: 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch, suppress(KeyboardInterrupt):
        folder = Path(scratch)
        if "start" in arguments.what:  # first, while this process is small
            bench_start(folder, 1000, 1000)
        if "images" in arguments.what:
            bench_images(folder, arguments.count, arguments.runs, arguments.workers)
        if "latents" in arguments.what:
            bench_latents(folder, 4 * arguments.count, arguments.runs)
        if "prepare" in arguments.what:
            bench_prepare(folder, arguments.photos, 160)


if __name__ == "__main__":
    main()
