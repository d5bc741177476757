"""The ML stages together: what goes round comes back, and no division of the work changes a bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from ml_world import LDM_INPUTS, Chain, edit
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from affect_hpc.config.train import Precision
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.io import read_json
from affect_hpc.core.rundir import Inputs, Workplace
from affect_hpc.data.codec import decode_npy, decode_png, images_to_tensor, tensor_to_images
from affect_hpc.data.shards import ShardSet
from affect_hpc.diffusion.schedule import alpha_bars
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import Ldm
from affect_hpc.stages import precompute_latents


def members(chain: Chain, names: list[str]) -> dict[str, bytes]:
    """All members of all samples in some runs' shards."""
    shards = ShardSet.open([chain.out(name) for name in names])
    return {
        f"{sample.key}.{member}": shards.read(i, member) for i, sample in enumerate(shards) for member in sample.members
    }


def test_encoded_latents_are_the_unquantised_ones_of_the_face_and_its_mirror_image(chain: Chain) -> None:
    chain.run(
        "encode_latents",
        "encode-flip",
        config=replace(chain.stages.encode_latents, flip=True),
        shards="prepare_shards",
        first_stage="train_vqgan",
    )
    faces = ShardSet.open([chain.out("prepare_shards") / "train"])
    latents = ShardSet.open([chain.out("encode-flip")])
    assert [sample.key for sample in latents] == [sample.key for sample in faces]
    model = first_stage.load(chain.out("train_vqgan"))
    for i in (0, 31):
        image = images_to_tensor([decode_png(faces.read(i, "png"))])
        for member, view in (("npy", image), ("flip.npy", image.flip(3))):
            stored = decode_npy(latents.read(i, member))
            assert stored.dtype == np.float16
            with torch.no_grad():
                expected = first_stage.encode(model, view)[0].numpy()
            np.testing.assert_allclose(stored, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("kind", ["encode_latents", "reconstruct"])
def test_shares_of_the_work_add_up_to_the_whole_to_the_bit(chain: Chain, kind: str) -> None:
    source = {"shards": "prepare_shards"} if kind == "encode_latents" else {"latents": "encode_val"}
    inputs = {**source, "first_stage": "train_vqgan"}
    chain.run(kind, f"{kind}-whole", **inputs)
    names = [f"{kind}-{part}" for part in range(3)]
    for part, name in enumerate(names):
        chain.run(kind, name, 3, part, **inputs)
    assert members(chain, names) == members(chain, [f"{kind}-whole"])


def test_an_edit_does_not_depend_on_the_number_of_parts(chain: Chain) -> None:
    whole, shares = edit(chain, "-whole", 1, gamma=2), edit(chain, "-shares", 3, gamma=2)
    assert members(chain, shares) == members(chain, whole)
    assert len(ShardSet.open([chain.out(whole[0])])) == 10


def test_the_first_samples_are_the_same_with_fewer_samples(chain: Chain) -> None:
    config = replace(chain.stages.encode_latents, split="val", full_precision=True, num_samples=4)
    chain.run("encode_latents", "encode-four", config=config, shards="prepare_shards", first_stage="train_vqgan")
    some, every = members(chain, ["encode-four"]), members(chain, ["encode_val"])
    assert len(some) == 4
    assert some == {name: every[name] for name in some}


def test_an_edit_holds_every_target_and_the_round_trip(chain: Chain) -> None:
    (name,) = edit(chain, "-members")
    shards = ShardSet.open([chain.out(name)])
    assert {frozenset(sample.members) for sample in shards} == {frozenset({"happy.png", "sad.png", "round_trip.png"})}
    described = read_json(chain.out(name) / "edit.json")
    assert (described["gamma"], described["encode_gamma"], described["t0"]) == (1, 1, 500)


def test_with_a_network_that_ignores_its_input_the_round_trip_is_the_reconstruction(chain: Chain) -> None:
    """A denoiser that predicts one constant makes the encoding pass exactly invertible."""
    folder = chain.root / "still" / "out"
    ldm = Ldm.load(chain.out("train_ldm"), torch.device("cpu"))
    with torch.no_grad():
        ldm.denoiser.unet.conv_out.weight.zero_()
    ldm.denoiser.save(folder / "unet", folder / "conditioner.safetensors")
    (folder / "ldm.json").write_bytes((chain.out("train_ldm") / "ldm.json").read_bytes())
    networks = {"first_stage": "train_vqgan", "ldm": "still"}
    chain.run("invert_latents", "invert-still", latents="encode_val", **networks)
    chain.run("manipulate", "manipulate-still", latents="invert-still", **networks)
    chain.run("reconstruct", "reconstruct-still", latents="encode_val", first_stage="train_vqgan")
    made, expected = members(chain, ["manipulate-still"]), members(chain, ["reconstruct-still"])
    for key in (sample.key for sample in ShardSet.open([chain.out("manipulate-still")])):
        a, b = decode_png(made[f"{key}.round_trip.png"]), decode_png(expected[f"{key}.reconstruction.png"])
        assert np.abs(a.astype(int) - b).max() <= 1


def test_a_trained_model_describes_itself(chain: Chain) -> None:
    folder = chain.out("train_ldm")
    latents = ShardSet.open([chain.out("encode_latents")])
    stacked = np.stack([decode_npy(latents.read(i, "npy")) for i in range(len(latents))]).astype(np.float64)
    described = read_json(folder / "ldm.json")
    np.testing.assert_allclose(described["latent_mean"], stacked.mean(axis=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(described["latent_std"], stacked.std(axis=(0, 2, 3)), rtol=1e-3)
    theirs = DDIMScheduler.from_pretrained(folder / "scheduler").alphas_cumprod
    ldm = Ldm.load(folder, torch.device("cpu"))
    torch.testing.assert_close(alpha_bars(ldm.diffusion).float(), theirs, rtol=2e-5, atol=0)


def test_the_averaged_weights_are_the_ones_that_edit(chain: Chain) -> None:
    folder = chain.out("train_ldm")
    averaged = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    raw = load_file(folder / "unet_raw" / "diffusion_pytorch_model.safetensors")
    used = Ldm.load(folder, torch.device("cpu")).denoiser.unet.state_dict()
    assert all(torch.equal(used[name], averaged[name]) for name in used)
    assert any(not torch.equal(used[name], raw[name]) for name in used)


def test_reconstructions_are_what_the_first_stage_makes(chain: Chain) -> None:
    chain.run("reconstruct", "reconstruct-look", latents="encode_val", first_stage="train_vqgan")
    faces = ShardSet.open([chain.out("prepare_shards") / "val"])
    made = ShardSet.open([chain.out("reconstruct-look")])
    model = first_stage.load(chain.out("train_vqgan"))
    image = images_to_tensor([decode_png(faces.read(3, "png"))])
    (expected,) = tensor_to_images(first_stage.reconstruct(model, image))
    got = decode_png(made.read(made.index_of(faces[3].key), "reconstruction.png"))
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_labels_travel_with_the_latents(chain: Chain) -> None:
    faces = ShardSet.open([chain.out("prepare_shards") / "train"])
    latents = ShardSet.open([chain.out("encode_latents")])
    assert [sample.label for sample in latents] == [sample.label for sample in faces]
    assert {sample.label for sample in latents} == set(range(len(EMOTIONS)))


def test_a_missing_network_is_a_clear_error(chain: Chain, tmp_path: Path) -> None:
    place = Workplace(tmp_path, tmp_path)
    inputs = Inputs({"shards": (chain.out("prepare_shards"),), "first_stage": (tmp_path,)})
    with pytest.raises((OSError, ValueError), match=str(tmp_path)):
        precompute_latents.run(chain.stages.encode_latents, inputs, place)


def test_bfloat16_edits_are_close_to_float32(chain: Chain) -> None:
    networks = {"first_stage": "train_vqgan", "ldm": "train_ldm"}
    latents = []
    for precision in Precision:
        config = replace(chain.stages.invert_latents, precision=precision)
        name = f"invert-{precision.name}"
        chain.run("invert_latents", name, config=config, latents="encode_val", **networks)
        found = members(chain, [name])
        latents.append(np.stack([decode_npy(value) for key, value in found.items() if key.endswith(".z_t0.npy")]))
    assert latents[1].dtype == np.float32
    assert 0 < np.abs(latents[0] - latents[1]).max() < 0.1 * latents[0].std()


def test_sample_grids_do_not_disturb_the_training(chain: Chain) -> None:
    config = replace(chain.stages.train_ldm, sample_every=2)
    chain.run("train_ldm", "train_ldm-grids", config=config, **LDM_INPUTS)
    ours, theirs = (
        load_file(chain.out(name) / "unet_raw" / "diffusion_pytorch_model.safetensors")
        for name in ("train_ldm", "train_ldm-grids")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    events = EventAccumulator(str(chain.root / "train_ldm-grids" / "keep" / "tensorboard"))
    events.Reload()
    assert len(events.Images("samples")) == 4
