"""Training of the diffusion model: what may not change it, what it is judged on, and where its latents come from."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ml_world import LDM_INPUTS, Chain
from safetensors.torch import load_file
from torch import Tensor

from affect_hpc.config.compose import collect
from affect_hpc.config.stages import CompileBackend, DropoutUnit, LatentsFrom, TrainLdmConfig
from affect_hpc.config.train import EngineName
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, write_json
from affect_hpc.core.stop import STOP
from affect_hpc.data.images import FaceViews, ImageSet, LatentSet
from affect_hpc.data.loader import Reader
from affect_hpc.diffusion.objective import eps_error, q_sample
from affect_hpc.diffusion.schedule import alpha_bars
from affect_hpc.hpc import planner, plans
from affect_hpc.losses.denoising import VALIDATION_SEED, draws
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import LatentNorm, Ldm
from affect_hpc.stages.train_ldm import LatentSource, LdmTask
from affect_hpc.train import comm

ALONE = comm.Ranks()
DEVICE = comm.device_of(ALONE)
LR = 1e-3


@pytest.fixture
def config(chain: Chain) -> TrainLdmConfig:
    return replace(chain.stages.train_ldm, train=replace(chain.stages.train_ldm.train, global_batch_size=8))


def source(chain: Chain, images: bool = False, flip: bool = False, latents: str = "encode_latents") -> LatentSource:
    faces = FaceViews(ImageSet.open([chain.out("prepare_shards") / "train"]), flip)
    model = first_stage.load(chain.out("train_vqgan")).to(DEVICE)
    return LatentSource(faces if images else LatentSet([chain.out(latents)]), model, DEVICE)


def made(config: TrainLdmConfig, chain: Chain, ranks: comm.Ranks = ALONE, images: bool = False) -> LdmTask:
    val = ImageSet.open([chain.out("prepare_shards") / "val"])
    return LdmTask(config, source(chain, images), LatentNorm(torch.zeros(3), torch.ones(3)), val, ranks)


def batch(task: LdmTask, step: int, count: int = 8) -> Mapping[str, Tensor]:
    indices = np.arange(step * count, (step + 1) * count) % len(task.source.samples)
    return Reader(task.source.samples).read(indices)[0]


def losses(task: LdmTask, steps: int = 4) -> list[float]:
    return [float(task.step(batch(task, step), step, LR)["loss"]) for step in range(steps)]


def with_train(config: TrainLdmConfig, **changes: Any) -> TrainLdmConfig:
    return replace(config, train=replace(config.train, **changes))


@pytest.mark.parametrize("unit", DropoutUnit)
def test_accumulation_does_not_change_the_training(config: TrainLdmConfig, chain: Chain, unit: DropoutUnit) -> None:
    config = replace(config, dropout_unit=unit, p_uncond=0.5)
    whole = losses(made(config, chain))
    for micro in (4, 2):
        assert losses(made(with_train(config, micro_batch_size=micro), chain)) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("unit", DropoutUnit)
def test_ranks_share_what_one_rank_draws(config: TrainLdmConfig, chain: Chain, unit: DropoutUnit) -> None:
    config = replace(config, dropout_unit=unit, p_uncond=0.5)
    label = torch.arange(8)
    alone = made(config, chain)
    pair = [made(config, chain) for _ in range(2)]
    for rank, task in enumerate(pair):
        task.ranks = comm.Ranks(rank, 2, rank)
    dropped = set()
    for step in range(6):
        whole = alone.drawn(label, step)
        halves = [task.drawn(half, step) for task, half in zip(pair, label.chunk(2), strict=True)]
        for name, value in whole.items():
            assert torch.equal(value, torch.cat([half[name] for half in halves])), name
        dropped.add(int((whole["label"] == config.condition.null_index).sum()))
    assert dropped == {0, 8} if unit is DropoutUnit.batch else dropped - {0, 8}


def test_the_mean_loss_of_two_ranks_is_the_loss_of_one(config: TrainLdmConfig, chain: Chain) -> None:
    first = batch(made(config, chain), 0)
    whole = float(made(config, chain).step(first, 0, LR)["loss"])
    found = []
    for rank in range(2):
        task = made(with_train(config, micro_batch_size=4), chain)
        task.ranks = comm.Ranks(rank, 2, rank)
        share = {name: value.chunk(2)[rank] for name, value in first.items()}
        found.append(float(task.step(share, 0, LR)["loss"]))
    assert np.mean(found) == pytest.approx(whole, rel=1e-6)


def test_each_step_draws_anew_and_takes_nothing_from_the_random_stream(config: TrainLdmConfig, chain: Chain) -> None:
    task = made(config, chain)
    before = torch.get_rng_state()
    first, second = (task.drawn(torch.arange(8), step) for step in (0, 1))
    assert not torch.equal(first["t"], second["t"]) and not torch.isclose(first["noise"], second["noise"]).any()
    task.step(batch(task, 0), 0, LR)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_is_the_formula(config: TrainLdmConfig, chain: Chain) -> None:
    config = replace(config, p_uncond=0.0)
    task = made(config, chain)
    step, some = 3, batch(task, 3)
    drawn = draws(config.train.seed, range(24, 32), config.diffusion.num_timesteps, (3, 16, 16))
    t, noise, label = (value.to(DEVICE) for value in (drawn.t, drawn.noise, some["label"]))
    z_t = q_sample(some["latent"].float().to(DEVICE), t, noise, alpha_bars(config.diffusion))
    with torch.no_grad():
        expected = float(eps_error(task.denoiser(z_t, t, label), noise))
    assert float(task.step(some, step, LR)["loss"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("averaged", [False, True])
def test_the_averaged_network_has_the_raw_embedding_unless_that_is_averaged_too(
    config: TrainLdmConfig, chain: Chain, averaged: bool
) -> None:
    task = made(replace(config, ema_embedding=averaged), chain)
    losses(task, 2)
    raw, kept = task.denoiser.embedding.table.weight, task.averaged.embedding.table.weight
    assert torch.equal(raw, kept) is not averaged
    assert not torch.equal(task.denoiser.unet.conv_in.weight, task.averaged.unet.conv_in.weight)
    judged: list[Tensor] = []
    assert task.validation is not None
    task.validation.loss = lambda predict: judged.append(predict.embedding.table.weight) or 0.5  # type: ignore[method-assign,attr-defined,func-returns-value]
    assert task.measures(500) == {"val_loss": 0.5}
    assert judged[0] is kept, "validation sees the same network"


def test_latents_of_images_are_those_of_shards(chain: Chain) -> None:
    encode = replace(chain.stages.encode_latents, flip=True)
    inputs = {"shards": "prepare_shards", "first_stage": "train_vqgan"}
    chain.run("encode_latents", "encode-views", config=encode, **inputs)
    stored, encoded = source(chain, latents="encode-views"), source(chain, images=True, flip=True)
    assert len(stored.samples) == len(encoded.samples) == 64
    assert stored.shape == encoded.shape == (3, 16, 16)
    assert stored.samples.labels.tolist() == encoded.samples.labels.tolist()
    everyone = np.arange(64)
    for (a, label_a), (b, label_b) in zip(
        stored.pass_over(stored.samples, everyone), encoded.pass_over(encoded.samples, everyone), strict=True
    ):
        assert a.dtype == b.dtype == torch.float16
        torch.testing.assert_close(a, b, rtol=2**-10, atol=1e-5)
        assert torch.equal(label_a, label_b)


def test_training_on_images_is_training_on_latents(chain: Chain) -> None:
    config = replace(chain.stages.train_ldm, latents_from=LatentsFrom.images)
    inputs = {role: name for role, name in LDM_INPUTS.items() if role != "latents"}
    outcome = chain.run("train_ldm", "ldm-images", config=config, **inputs)
    stored, encoded = (read_json(chain.out(name) / "ldm.json") for name in ("train_ldm", "ldm-images"))
    for name in ("latent_mean", "latent_std"):
        np.testing.assert_allclose(encoded[name], stored[name], rtol=1e-5)
    figures = [metrics(chain, name)[-1] for name in ("train_ldm", "ldm-images")]
    for name in ("loss", "val_loss"):
        assert figures[1][name] == pytest.approx(figures[0][name], rel=1e-3)
    assert outcome.summary["samples"] == 32


def metrics(chain: Chain, name: str) -> list[dict[str, float]]:
    lines = (chain.root / name / "keep" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_validation_does_not_disturb_the_training(chain: Chain) -> None:
    often = replace(chain.stages.train_ldm, validate_every=1)
    never = replace(often, validate_every=0, validation_samples=0)
    with_it = chain.run("train_ldm", "ldm-validated", config=often, **LDM_INPUTS)
    without = chain.run("train_ldm", "ldm-not-validated", config=never, **LDM_INPUTS)
    for file in ("unet/diffusion_pytorch_model.safetensors", "unet_raw/diffusion_pytorch_model.safetensors"):
        a, b = (load_file(chain.out(name) / file) for name in ("ldm-validated", "ldm-not-validated"))
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    seen = {line["samples_seen"]: line["val_loss"] for line in metrics(chain, "ldm-validated") if "val_loss" in line}
    assert list(seen) == list(range(16, 129, 16))
    assert with_it.summary["val_loss"] == pytest.approx(seen[128])
    assert "val_loss" not in without.summary
    assert not any("val_loss" in line for line in metrics(chain, "ldm-not-validated"))


def test_the_validation_loss_is_that_of_the_kept_weights_on_the_val_split(chain: Chain) -> None:
    outcome = chain.run(
        "train_ldm", "ldm-judged", config=replace(chain.stages.train_ldm, validation_samples=6), **LDM_INPUTS
    )
    ldm = Ldm.load(chain.out("ldm-judged"), torch.device("cpu"))
    val = ImageSet.open([chain.out("prepare_shards") / "val"])
    chosen = np.random.default_rng(VALIDATION_SEED).permutation(10)[:6]
    latents = first_stage.encode_stored(first_stage.load(chain.out("train_vqgan")), val.batch(chosen)).float()
    drawn = draws(VALIDATION_SEED, range(6), 1000, (3, 16, 16))
    z_t = q_sample(ldm.norm.normalise(latents), drawn.t, drawn.noise, alpha_bars(ldm.diffusion))
    with torch.no_grad():
        expected = eps_error(ldm.denoiser(z_t, drawn.t, val.labels(chosen)), drawn.noise)
    assert outcome.summary["val_loss"] == pytest.approx(float(expected), rel=1e-4)


def test_a_stopped_training_ends_as_one_that_was_not(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    step = LdmTask.step

    def stopping(self: LdmTask, share: Mapping[str, Tensor], number: int, lr: float) -> object:
        if number == 3:
            STOP.received = 10  # type: ignore[assignment]
        return step(self, share, number, lr)

    monkeypatch.setattr(LdmTask, "step", stopping)
    assert chain.run("train_ldm", "ldm-halves", **LDM_INPUTS).stopped
    monkeypatch.setattr(LdmTask, "step", step)
    STOP.received = None
    assert not chain.again("train_ldm", "ldm-halves", **LDM_INPUTS).stopped
    for file in ("unet/diffusion_pytorch_model.safetensors", "conditioner.safetensors", "ldm.json"):
        assert (chain.out("ldm-halves") / file).read_bytes() == (chain.out("train_ldm") / file).read_bytes(), file


def test_the_normalisation_is_worked_out_once(config: TrainLdmConfig, chain: Chain, tmp_path: Path) -> None:
    latents = source(chain)
    first = latents.norm(config, ALONE, tmp_path)
    again = latents.norm(config, ALONE, tmp_path)
    assert torch.equal(first.mean, again.mean) and torch.equal(first.std, again.std)
    write_json(tmp_path / "latent_norm.json", {"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0]})
    assert latents.norm(config, ALONE, tmp_path).std.tolist() == [4, 5, 6]
    fixed = replace(config, latent=replace(config.latent, scale=type(config.latent.scale).fixed, scale_factor=0.5))
    assert latents.norm(fixed, ALONE, tmp_path).std.tolist() == [2, 2, 2]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_checkpointed_activations_give_the_same_losses(config: TrainLdmConfig, chain: Chain, stage: int) -> None:
    comm.set_up(ALONE, Path())
    config = with_train(config, engine=EngineName.deepspeed, zero_stage=stage)
    kept = losses(made(config, chain), 3)
    assert losses(made(replace(config, gradient_checkpointing=True), chain), 3) == pytest.approx(kept, rel=1e-6)


def test_a_compiled_training_is_the_same_and_its_files_have_the_usual_names(chain: Chain) -> None:
    train = replace(chain.stages.train_ldm.train, engine=EngineName.deepspeed, zero_stage=1)
    config = replace(chain.stages.train_ldm, compile=CompileBackend.eager, train=train)
    outcome = chain.run("train_ldm", "ldm-compiled", config=config, **LDM_INPUTS)
    plain, compiled = (metrics(chain, name)[-1] for name in ("train_ldm", "ldm-compiled"))
    assert compiled["loss"] == pytest.approx(plain["loss"], rel=1e-3)
    assert outcome.summary["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-3)
    for folder in ("unet", "unet_raw"):
        names = [
            set(load_file(chain.out(name) / folder / "diffusion_pytorch_model.safetensors"))
            for name in ("train_ldm", "ldm-compiled")
        ]
        assert names[0] == names[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validate_every": -1}, r"validate_every=-1 steps is out of range"),
        ({"validation_samples": -1}, r"validation_samples=-1 faces is out of range"),
        ({"p_uncond": 1.5}, r"p_uncond=1\.5 is out of range"),
    ],
)
def test_values_out_of_range_are_refused(config: TrainLdmConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(config, **change).check("stages.train_ldm")


def test_compiling_divided_weights_is_refused(config: TrainLdmConfig) -> None:
    config = with_train(replace(config, compile=CompileBackend.inductor), zero_stage=3)
    with pytest.raises(UserError, match=r"compile=inductor does not go with stages\.train_ldm\.train\.zero_stage=3"):
        config.check("stages.train_ldm")


def test_the_plan_feeds_images_instead_of_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "settle_perceptual", lambda name: "efficientnet_lite0")
    monkeypatch.setattr(planner, "check_experts", lambda *names: None)
    words = [f"store={tmp_path}", "use.first_stage=train", "use.ldm=train", "stages.encode_latents.flip=true"]
    points = collect(words) + collect([*words, "stages.train_ldm.latents_from=images"])
    _, (stored, encoded) = plans.plan(points)
    assert set(stored["train_ldm"].parents) == {"latents", "faces", "first_stage"}
    assert "encode_latents" not in encoded
    assert set(encoded["train_ldm"].parents) == {"faces", "first_stage"}
    (faces,) = encoded["train_ldm"].parents["faces"]
    assert faces.node is encoded["prepare_shards"]  # type: ignore[union-attr]
    assert encoded["train_ldm"].config.flip, (
        "one key says whether mirrored faces are learnt, wherever latents come from"
    )
