"""The classifier of noisy latents: it learns what can be learnt, is kept as it is, and pulls drawn faces to a class."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ml_world import CLASSIFIER_INPUTS, Chain
from torch import Tensor

from affect_hpc.config.drawing import GenerateConfig, TrainClassifierConfig
from affect_hpc.config.sampling import SamplerConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, write_json
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.core.stop import STOP
from affect_hpc.data.codec import encode_npy
from affect_hpc.data.images import ImageSet, LatentSet
from affect_hpc.data.loader import Reader
from affect_hpc.data.shards import ShardWriter
from affect_hpc.diffusion.objective import q_sample
from affect_hpc.diffusion.schedule import alpha_bars
from affect_hpc.losses.denoising import VALIDATION_SEED, draws
from affect_hpc.models import classifier, first_stage
from affect_hpc.models.classifier import LogProb, NoisyLatentClassifier
from affect_hpc.models.ldm import Ldm
from affect_hpc.stages import generate
from affect_hpc.stages.train_classifier import ClassifierTask
from affect_hpc.stages.train_ldm import LatentSource
from affect_hpc.train import comm

CPU = torch.device("cpu")
CLASSES, SHAPE = len(EMOTIONS), (3, 16, 16)
STEPS, BATCH = 180, 16
INPUTS = {**CLASSIFIER_INPUTS, "latents": "signs"}
DRAWN = GenerateConfig(SamplerConfig(num_steps=10), per_class=4, seed=5, classifier_scale=0.0, batch_size=16)


def signs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """What is diffused, (count, 3, 16, 16), of all classes in turn, and their labels.

    The three bits of a class are the signs of three channels: anybody can tell them apart.
    """
    labels = torch.arange(count) % CLASSES
    bits = torch.stack([labels >> bit & 1 for bit in range(3)], dim=1)
    noise = torch.from_numpy(np.random.default_rng(seed).normal(0, 0.3, (count, *SHAPE)))
    return ((2 * bits - 1)[:, :, None, None] + noise).float(), labels


@pytest.fixture(scope="module")
def ldm(chain: Chain) -> Ldm:
    return Ldm.load(chain.out("train_ldm"), CPU)


@pytest.fixture(scope="module")
def world(chain: Chain, ldm: Ldm) -> Chain:
    """The chain, with a corpus of such latents."""
    z, labels = signs(64, 0)
    with ShardWriter(chain.out("signs"), "latents-00000") as writer:
        for i, (latent, label) in enumerate(zip(ldm.norm.restore(z).half(), labels, strict=True)):
            info = {"label": int(label), "identity": f"{i}"}
            writer.write(f"sign-{i:03d}", {"npy": encode_npy(latent.numpy())}, info)
    return chain


def config_of(world: Chain) -> TrainClassifierConfig:
    config = world.stages.train_classifier
    changes = {"samples_total": STEPS * BATCH, "global_batch_size": BATCH, "lr": 3e-3, "log_every": 1}
    return replace(config, train=replace(config.train, **changes))


@pytest.fixture(scope="module")
def outcome(world: Chain) -> Outcome:
    """Of a training that is long enough."""
    return world.run("train_classifier", "classifier", config=config_of(world), **INPUTS)


@pytest.fixture(scope="module")
def log_prob(world: Chain, outcome: Outcome) -> LogProb:
    return classifier.load(world.out("classifier"), CPU, SHAPE[0], CLASSES)


def of_all_classes(log_prob: LogProb, z: Tensor, t: Tensor) -> Tensor:
    """(B, classes)"""
    return torch.stack([log_prob(z, t, torch.full_like(t, wanted)) for wanted in range(CLASSES)], dim=1)


def test_a_saved_classifier_says_the_same_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = NoisyLatentClassifier(3, [16, 32], 16, CLASSES).eval()
    network.save(tmp_path)
    z, t, label = torch.randn(8, *SHAPE), torch.arange(0, 1000, 125), torch.arange(8).flip(0)
    with torch.no_grad():
        expected = F.log_softmax(network(z, t), dim=1)
    log_prob = classifier.load(tmp_path, CPU, 3, CLASSES)
    assert torch.equal(of_all_classes(log_prob, z, t), expected)
    assert torch.equal(log_prob(z, t, label), expected[torch.arange(8), label]), "each sample under its own label"
    torch.testing.assert_close(expected.exp().sum(1), torch.ones(8))


def test_training_lowers_the_loss_and_knows_less_where_there_is_more_noise(
    world: Chain, outcome: Outcome, log_prob: LogProb, ldm: Ldm
) -> None:
    lines = (world.root / "classifier" / "keep" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == STEPS
    assert losses[0] == pytest.approx(np.log(CLASSES), rel=0.25), "it begins without an opinion"
    assert np.mean(losses[-10:]) < 0.5 * np.log(CLASSES)
    z_0, label = signs(64, 1)
    noise = draws(0, range(64), 1000, SHAPE).noise
    right = []
    for level in (0, 999):
        t = torch.full((64,), level)
        z_t = q_sample(z_0, t, noise, alpha_bars(ldm.diffusion))
        right.append(float((of_all_classes(log_prob, z_t, t).argmax(1) == label).float().mean()))
    assert right[0] > 0.9 and right[1] < right[0], "latents that it has not seen"


def test_what_is_told_is_true_of_the_classifier_that_is_kept(
    world: Chain, outcome: Outcome, log_prob: LogProb, ldm: Ldm
) -> None:
    faces = ImageSet.open([world.out("prepare_shards") / "val"])
    everyone = np.arange(len(faces))
    latents = first_stage.encode_stored(first_stage.load(world.out("train_vqgan")), faces.batch(everyone))
    z_0, label = ldm.norm.normalise(latents.float()), faces.labels(everyone)
    drawn = draws(VALIDATION_SEED, range(len(z_0)), 1000, SHAPE)
    assert outcome.summary["samples"] == 64
    assert outcome.summary["val_chance"] == max(label.bincount()) / len(label)
    bands = {name for name in outcome.summary if name.startswith("val_accuracy")}
    assert bands == {f"val_accuracy_t{low}_{low + 249}" for low in (0, 250, 500, 750)}
    for low in (0, 250, 500, 750):
        t = low + drawn.t * 250 // 1000
        assert low <= int(t.min()) and int(t.max()) < low + 250
        z_t = q_sample(z_0, t, drawn.noise, alpha_bars(ldm.diffusion))
        seen = of_all_classes(log_prob, z_t, t).argmax(1)
        assert outcome.summary[f"val_accuracy_t{low}_{low + 249}"] == float((seen == label).double().mean())


def losses(world: Chain, ldm: Ldm, ranks: int = 1, micro: int = 0, steps: int = 3) -> list[list[float]]:
    """Loss of each step on each of so many ranks, from the same weights."""
    config, samples = config_of(world), LatentSet([world.out("signs")])
    config = replace(config, train=replace(config.train, micro_batch_size=micro))
    source = LatentSource(samples, first_stage.load(world.out("train_vqgan")), CPU)
    tasks = [ClassifierTask(config, source, ldm, comm.Ranks()) for _ in range(ranks)]
    found = []
    for step in range(steps):
        batch = Reader(samples).read(np.arange(step * BATCH, (step + 1) * BATCH))[0]
        own = []
        for rank, task in enumerate(tasks):
            task.ranks = comm.Ranks(rank, ranks, rank)
            share = {name: value.chunk(ranks)[rank] for name, value in batch.items()}
            own.append(float(task.step(share, step, 0.0 if ranks > 1 else 3e-3)["loss"]))
        found.append(own)
    return found


def test_neither_micro_batches_nor_ranks_change_what_is_learnt(world: Chain, ldm: Ldm) -> None:
    whole = [loss for (loss,) in losses(world, ldm)]
    assert len(set(whole)) == 3, "each step draws anew"
    assert [loss for (loss,) in losses(world, ldm, micro=4)] == pytest.approx(whole, rel=1e-5)
    first, second = losses(world, ldm, ranks=2, micro=4, steps=1)[0]
    assert (first + second) / 2 == pytest.approx(whole[0], rel=1e-5) and first != second


def test_a_stopped_training_ends_as_one_that_was_not(
    world: Chain, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ClassifierTask.step

    def stopping(self: ClassifierTask, share: dict[str, Tensor], number: int, lr: float) -> object:
        if number == 90:
            STOP.received = 10  # type: ignore[assignment]
        return step(self, share, number, lr)

    monkeypatch.setattr(ClassifierTask, "step", stopping)
    roles = {"config": config_of(world), **INPUTS}
    assert world.run("train_classifier", "classifier-halves", **roles).stopped
    monkeypatch.setattr(ClassifierTask, "step", step)
    STOP.received = None
    assert world.again("train_classifier", "classifier-halves", **roles).summary == outcome.summary
    for file in (classifier.WEIGHTS, classifier.DESCRIPTION):
        ends = [(world.out(name) / file).read_bytes() for name in ("classifier", "classifier-halves")]
        assert ends[0] == ends[1], file


def drawn(chain: Chain, out: Path, scale: float, guide: Path | None) -> Path:
    """Output of generate, guided."""
    out.mkdir(parents=True)
    roles = {"first_stage": (chain.out("train_vqgan"),), "ldm": (chain.out("train_ldm"),)}
    inputs = Inputs(roles | ({"classifier": (guide,)} if guide else {}))
    generate.run(replace(DRAWN, classifier_scale=scale), inputs, Workplace(out, out.parent / "keep"))
    return out


def test_more_guidance_makes_the_classifier_surer_of_the_wanted_class(
    world: Chain, ldm: Ldm, log_prob: LogProb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, latents = first_stage.decode, []

    def heard(model: object, z: Tensor) -> Tensor:
        latents.append(z.cpu())
        return decode(model, z)  # type: ignore[arg-type]

    monkeypatch.setattr(first_stage, "decode", heard)
    label, sure = torch.arange(4 * CLASSES) % CLASSES, []
    for scale in (0.0, 1.0, 4.0, 16.0):
        latents.clear()
        out = drawn(world, tmp_path / f"{scale}", scale, world.out("classifier"))
        assert read_json(out / generate.DESCRIPTION)["classifier_scale"] == scale
        with torch.inference_mode():
            z = ldm.norm.normalise(torch.cat(latents))
            sure.append(float(log_prob(z, torch.zeros_like(label), label).mean()))
    assert sure == sorted(sure) and sure[-1] > sure[0] + 1, sure
    tars = [next(drawn(world, tmp_path / "alone", 0.0, None).glob("*.tar")), next((tmp_path / "0.0").glob("*.tar"))]
    assert tars[0].read_bytes() == tars[1].read_bytes(), "at scale 0 nobody guides"


def test_wrong_classifiers_are_refused_in_one_sentence(world: Chain, outcome: Outcome, tmp_path: Path) -> None:
    good = world.out("classifier")
    described, weights = read_json(good / classifier.DESCRIPTION), (good / classifier.WEIGHTS).read_bytes()
    for name in ("halved", "cut", "other", "fewer"):
        shutil.copytree(good, tmp_path / name)
    (tmp_path / "halved" / classifier.WEIGHTS).unlink()
    (tmp_path / "cut" / classifier.WEIGHTS).write_bytes(weights[: len(weights) // 2])
    write_json(tmp_path / "other" / classifier.DESCRIPTION, {**described, "channels": [32, 32]})
    write_json(tmp_path / "fewer" / classifier.DESCRIPTION, {**described, "num_classes": 7})
    for folder, message in (
        (tmp_path / "nowhere", r"holds no classifier of noisy latents \(classifier\.json and .*train_classifier"),
        (world.out("train_vqgan"), "holds no classifier of noisy latents"),
        (tmp_path / "halved", "holds no classifier of noisy latents"),
        (tmp_path / "cut", "is damaged, or no weights of the network"),
        (tmp_path / "other", "is damaged, or no weights of the network"),
        (tmp_path / "fewer", "knows 7 classes of latents with 3 channels, where 8 and 3 are drawn"),
    ):
        with pytest.raises(UserError, match=message) as told:
            drawn(world, tmp_path / "out" / folder.name / folder.parent.name, 1.0, folder)
        assert str(folder) in str(told.value) and "\n" not in str(told.value)
    with pytest.raises(UserError, match=r"classifier_scale=2\.0 asks for guidance by a classifier, and none is given"):
        drawn(world, tmp_path / "out" / "none", 2.0, None)
