"""What only a GPU can show: float32 is float32, trainings of the thesis' sizes repeat their bits, edits follow suit."""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ml_world import CLASSIFIER_INPUTS, LDM_INPUTS, Chain, edit, smoke_stages
from torch import Tensor
from torch.nn import functional

from affect_hpc.config.compose import collect
from affect_hpc.config.train import EngineName, Precision
from affect_hpc.core.io import manifest_of
from affect_hpc.core.stop import STOP
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.codec import encode_npy, encode_png
from affect_hpc.data.images import ImageSet, LatentSet
from affect_hpc.data.shards import ShardWriter
from affect_hpc.experts.referee import RefereeEmotion, RefereeIdentity, Trunk
from affect_hpc.experts.registry import load_perceptual
from affect_hpc.metrics.suite import Faces, Judges, score
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import LatentNorm
from affect_hpc.stages.train_classifier import ClassifierTask
from affect_hpc.stages.train_ldm import LatentSource, LdmTask
from affect_hpc.stages.train_vqgan import VqganTask
from affect_hpc.train import comm

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ALONE = comm.Ranks()
BATCH, STEPS = 4, 3


def test_float32_is_not_rounded_to_ten_bits() -> None:
    device = comm.device_of(ALONE)
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(shape, generator=generator) for shape in ((4, 64, 32, 32), (64, 64, 3, 3)))
    for call in (
        lambda x, w: functional.conv2d(x, w, padding=1),
        lambda x, w: x.flatten(1)[:, :576] @ w.flatten(1).T,
    ):
        exact = call(x.double(), w.double())
        found = call(x.to(device), w.to(device)).cpu().double()
        assert (found - exact).norm() / exact.norm() < 1e-6


@pytest.fixture(scope="module")
def thesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random faces, latents and a first stage of the thesis' sizes."""
    folder = tmp_path_factory.mktemp("thesis")
    torch.manual_seed(0)
    first_stage.build(collect(["model=thesis"])[0].stages.train_vqgan.first_stage).save_pretrained(
        folder / "first_stage"
    )
    random = np.random.default_rng(0)
    with ShardWriter(folder / "faces", "shard") as faces, ShardWriter(folder / "latents", "shard") as latents:
        for number in range(16):
            info = {"label": number % 8, "identity": str(number)}
            faces.write(f"s{number}", {"png": encode_png(random.integers(0, 256, (128, 128, 3), np.uint8))}, info)
            latent = random.standard_normal((3, 32, 32)).astype(np.float16)
            latents.write(f"s{number}", {"npy": encode_npy(latent)}, info)
    return folder


def task_of(kind: str, folder: Path, precision: Precision, engine: EngineName) -> tuple[Any, TrainingData]:
    stages = collect(["model=thesis", "data=demo", "data.size=128", "use.first_stage=train"])[0].stages
    cfg = getattr(stages, kind)
    train = replace(cfg.train, precision=precision, engine=engine, global_batch_size=BATCH, micro_batch_size=BATCH // 2)
    cfg = replace(cfg, train=train)
    images = ImageSet.open([folder / "faces"])
    if kind == "train_vqgan":
        data = TrainingData(images, images.shards.labels, train, 0, 1, folder)
        cfg = replace(cfg, disc_start=0, revive_every=2, perceptual="none")
        return VqganTask(cfg, data, images, ALONE), data
    samples = LatentSet([folder / "latents"])
    source = LatentSource(samples, first_stage.load(folder), comm.device_of(ALONE))
    data = TrainingData(samples, samples.labels, train, 0, 1, folder)
    norm = LatentNorm(torch.zeros(3), torch.ones(3))
    if kind == "train_ldm":
        return LdmTask(replace(cfg, validation_samples=0), source, norm, images, ALONE), data
    raise AssertionError(kind)


def digest_of(states: Mapping[str, Any]) -> str:
    found = hashlib.sha256()
    for name, value in sorted(states.items()):
        found.update(name.encode())
        if isinstance(value, Mapping):
            found.update(digest_of(value).encode())
        else:
            found.update(value.cpu().numpy().tobytes() if isinstance(value, Tensor) else str(value).encode())
    return found.hexdigest()


@pytest.mark.parametrize("kind", ["train_vqgan", "train_ldm"])
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
@pytest.mark.parametrize("engine", list(EngineName))
def test_steps_at_the_thesis_sizes_repeat_their_bits(
    thesis: Path, tmp_path: Path, kind: str, precision: Precision, engine: EngineName
) -> None:
    comm.set_up(ALONE, tmp_path)
    digests = []
    for _ in range(2):
        task, data = task_of(kind, thesis, precision, engine)
        for step, batch in enumerate(itertools.islice(data.after(0), STEPS)):
            figures = task.step(batch, step, 1e-4)
            assert all(torch.isfinite(value) for value in figures.values())
        assert torch.cuda.max_memory_allocated() > 0
        digests.append([digest_of(one.state()) for one in task.engines().values()])
        del task
        torch.cuda.empty_cache()
    assert digests[0] == digests[1]


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize(("engine", "zero"), [(EngineName.plain, 0), *((EngineName.deepspeed, n) for n in range(3))])
@pytest.mark.parametrize("kind", ["train_vqgan", "train_ldm", "train_classifier"])
def test_a_stopped_training_ends_with_the_bits_of_one_that_never_was(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, kind: str, engine: EngineName, zero: int, precision: Precision
) -> None:
    roles = {
        "train_ldm": LDM_INPUTS,
        "train_classifier": CLASSIFIER_INPUTS,
        "train_vqgan": {"shards": "prepare_shards"},
    }
    task = {"train_ldm": LdmTask, "train_classifier": ClassifierTask, "train_vqgan": VqganTask}[kind]
    cfg = getattr(smoke_stages(), kind)
    total = 6 * cfg.train.global_batch_size
    train = replace(cfg.train, samples_total=total, save_every=100, engine=engine, zero_stage=zero, precision=precision)
    cfg = replace(cfg, train=train)
    whole, halves = (f"{kind}-{engine.name}{zero}-{precision.name}-{name}" for name in ("whole", "halves"))
    assert not chain.run(kind, whole, config=cfg, **roles[kind]).stopped
    original = task.step

    def stopped_in_between(self: Any, batch: Any, step: int, lr: float) -> Any:
        figures = original(self, batch, step, lr)
        if step == 2:
            STOP.received = 15
        return figures

    with monkeypatch.context() as patch:
        patch.setattr(task, "step", stopped_in_between)
        assert chain.run(kind, halves, config=cfg, **roles[kind]).stopped
    STOP.received = None
    assert not chain.again(kind, halves, config=cfg, **roles[kind]).stopped
    saved = [
        manifest_of(chain.root / name / "keep" / "checkpoints" / f"samples_{total:012d}") for name in (whole, halves)
    ]
    assert saved[0] == saved[1]


def test_judges_on_a_gpu_say_what_they_say_on_a_cpu(chain: Chain) -> None:
    torch.manual_seed(0)
    trunks = [Trunk(chain.stages.train_referee.channels, size).eval().requires_grad_(False) for size in (8, 16)]
    random = np.random.default_rng(0)
    images = [[random.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(6)] for _ in range(2)]
    found = []
    for device in (torch.device("cpu"), comm.device_of(ALONE)):
        emotion, identity = RefereeEmotion(trunks[0], "e", "0"), RefereeIdentity(trunks[1], "i", "0")
        judges = Judges(emotion, identity, load_perceptual("efficientnet_lite0", "")).on(device)
        faces, reference = (Faces(some, judges) for some in images)
        assert faces.embedding.device == device
        found.append(score(faces, {"": reference}, ["happy"] * 6))
    for ours, theirs in zip(*found, strict=True):
        assert ours.seen == theirs.seen
        assert ours.values == pytest.approx(theirs.values, rel=1e-4)


def faces_of(folder: Path) -> dict[str, list[bytes]]:
    shards = ImageSet.open([folder]).shards
    return {entry.key: [shards.read(i, name) for name in entry.members] for i, entry in enumerate(shards)}


def test_edits_hang_on_no_division_into_parts(chain: Chain) -> None:
    (whole,), parts = edit(chain, "-gpu-whole"), edit(chain, "-gpu-parts", parts=3)
    found = [faces_of(chain.out(name)) for name in parts]
    assert sum(map(len, found)) == 10
    assert {key: faces for part in found for key, faces in part.items()} == faces_of(chain.out(whole))
