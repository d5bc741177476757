"""Models of others: nothing is lost or mixed up on the way, and files that do not fit are refused in one sentence."""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, VQModel
from original_layout import LARGER, NO_ATTENTION, TINY, Model, first_stage_state, make, unet_state

from affect_hpc.config.model import ConditionConfig, FirstStageConfig, UnetConfig
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json
from affect_hpc.hpc.planner import Planner
from affect_hpc.models import first_stage, pretrained
from affect_hpc.models.denoiser import Denoiser
from affect_hpc.models.ldm import Ldm
from affect_hpc.models.pretrained import Weights

T = torch.tensor([3, 500])


@pytest.fixture(scope="module")
def tiny() -> Model:
    return make()


@pytest.fixture
def model(tiny: Model) -> Model:
    """Its own copy, to spoil."""
    return Model(
        tiny.first_stage, tiny.raw, tiny.averaged, tiny.embedding, copy.deepcopy(tiny.config), dict(tiny.state)
    )


def outputs(denoiser: Denoiser, vqgan: VQModel) -> list[torch.Tensor]:
    """What the networks make of fixed inputs, among them the label that means none."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, vqgan.config.vq_embed_dim, 8, 8, generator=generator)
    image = torch.rand(1, 3, 32, 32, generator=generator) * 2 - 1
    none = denoiser.embedding.null_index
    with torch.no_grad():
        latents = first_stage.encode(vqgan, image)
        noises = [denoiser(z, T, torch.tensor(labels)) for labels in ([0, none - 1], [none, none])]
        return [*noises, latents, first_stage.decode(vqgan, latents)]


def ours(model: Model, weights: Weights) -> list[torch.Tensor]:
    unet = model.averaged if weights is Weights.ema else model.raw
    return outputs(Denoiser(unet, model.embedding), model.first_stage)


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("sizes", "classes", "one_table", "new_format"),
    [(TINY, 8, False, True), (LARGER, 5, False, True), (NO_ATTENTION, 12, True, False)],
    ids=["tiny", "larger", "no attention, one table, old format"],
)
def test_an_imported_model_computes_the_same(
    sizes: tuple[FirstStageConfig, UnetConfig], classes: int, one_table: bool, new_format: bool, tmp_path: Path
) -> None:
    model = make(sizes, classes, one_table)
    imported = pretrained.read(*model.save(tmp_path, new_format))
    assert "pytorch_lightning" not in sys.modules
    for weights in Weights:
        assert same(outputs(imported.denoiser(weights), imported.first_stage), ours(model, weights))
    assert not same(ours(model, Weights.ema), ours(model, Weights.raw))
    assert imported.extras == 5


@pytest.mark.parametrize("weights", list(Weights))
def test_the_folder_is_what_later_stages_load(weights: Weights, tiny: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pretrained.read(*tiny.save(tmp_path)).write(out, weights)
    ldm = Ldm.load(out, torch.device("cpu"))
    assert same(outputs(ldm.denoiser, first_stage.load(out)), ours(tiny, weights))
    raw = Denoiser.load(out, ldm.condition, "unet_raw")
    assert same(outputs(raw, first_stage.load(out)), ours(tiny, Weights.raw))
    assert (ldm.diffusion.beta_schedule, ldm.diffusion.beta_end) == ("scaled_linear", 0.0205)
    assert torch.equal(ldm.norm.std, torch.ones(3)) and torch.equal(ldm.norm.mean, torch.zeros(3))
    assert read_json(out / "scheduler" / "scheduler_config.json")["beta_start"] == 0.0015
    about = read_json(out / "imported.json")
    assert about["weights"] == weights.name and about["tensors_used"] == len(tiny.state) - 5
    planner = Planner(tmp_path)
    for key, must_hold in (("use.ldm", "unet/config.json"), ("use.first_stage", "first_stage/config.json")):
        assert planner.external(key, str(out), must_hold).path == out
    with pytest.raises(UserError, match="out exists: give a folder that does not"):
        pretrained.read(*tiny.save(tmp_path)).write(out, weights)


def test_other_terms_of_the_original(tmp_path: Path) -> None:
    """Deeper transformers, linear projections, a number of heads, scale and shift, uneven levels, a wider encoder."""
    model = make()
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        **{"sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": (32, 64)},
        **{"layers_per_block": (1, 2), "cross_attention_dim": 24, "attention_head_dim": 4, "norm_num_groups": 32},
        **{"transformer_layers_per_block": 2, "use_linear_projection": True, "resnet_time_scale_shift": "scale_shift"},
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).eval()
    vqgan = VQModel(
        **{"latent_channels": 6, "vq_embed_dim": 3, "block_out_channels": (32, 64), "num_vq_embeddings": 16},
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()
    model.config["unet"] |= {"num_res_blocks": [1, 2], "num_heads": 4, "num_head_channels": -1}
    model.config["unet"] |= {"transformer_depth": 2, "use_linear_in_transformer": True, "use_scale_shift_norm": True}
    model.config["unet"] |= {"attention_resolutions": [2, 16], "use_checkpoint": True}
    model.config["first_stage"] |= {"z_channels": 6, "ch_mult": [1, 2], "attn_resolutions": []}
    model.config["context_dim"] = 24
    for name in [name for name in model.state if name.startswith(("model", "first_stage_model"))]:
        del model.state[name]
    model.state |= {f"model.diffusion_model.{name}": tensor for name, tensor in unet_state(unet).items()}
    model.state |= {f"first_stage_model.{name}": tensor for name, tensor in first_stage_state(vqgan).items()}
    imported = pretrained.read(*model.save(tmp_path))
    expected = outputs(Denoiser(unet, model.embedding), vqgan)
    assert same(outputs(imported.denoiser(Weights.raw), imported.first_stage), expected)
    with pytest.raises(UserError, match=r"holds no averaged weights \(model_ema\.\*\): give --weights raw"):
        imported.denoiser(Weights.ema)


@pytest.fixture
def read_model(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], pretrained.Pretrained]:
    """Reads the spoilt copy, whose tensors go past the disk."""

    def read() -> pretrained.Pretrained:
        monkeypatch.setattr(pretrained, "read_tensors", lambda _: model.state)
        (tmp_path / "config.json").write_text(json.dumps(model.config))
        return pretrained.read(tmp_path / "model.ckpt", tmp_path / "config.json")

    return read


def test_half_precision_and_scale_factor(model: Model, read_model: Any) -> None:
    name = "first_stage_model.quant_conv.weight"
    model.state[name] = model.state[name].half()
    model.state["scale_factor"] = torch.tensor(0.25)
    imported = read_model()
    assert torch.equal(imported.first_stage.quant_conv.weight, model.state[name].float())
    torch.testing.assert_close(imported.norm.normalise(torch.ones(1, 3, 1, 1)), torch.full((1, 3, 1, 1), 0.25))
    model.config["scale_factor"] = 0.5
    with pytest.raises(UserError, match=r"scale_factor is 0\.25, but 0\.5 in"):
        read_model()
    del model.state["scale_factor"]
    assert float(read_model().norm.std[0]) == 2.0


SPOILT: list[tuple[str, Any, str]] = [
    ("model.diffusion_model.out.2.bias", None, r"holds no model\.diffusion_model\.out\.2\.bias, which the sizes in"),
    ("model_ema.diffusion_modelout2bias", None, r"holds no model_ema\.diffusion_modelout2bias, which"),
    ("first_stage_model.quant_conv.weight", None, r"holds no first_stage_model\.quant_conv\.weight, which"),
    ("cond_stage_model.embedding.weight", None, r"holds no cond_stage_model\.embedding\.weight, which"),
    (
        "cond_stage_model.uncond_embedding.weight",
        None,
        r"cond_stage_model\.embedding\.weight is 8x24 of float32, where .* make it 9x24 of floats",
    ),
    ("model.diffusion_model.out.2.bias", torch.zeros(4), r"out\.2\.bias is 4 of float32, where .* make it 3 of floats"),
    ("model.diffusion_model.out.2.bias", torch.zeros(3).int(), r"out\.2\.bias is 3 of int32, where"),
    ("model.diffusion_model.label_emb.0.weight", torch.zeros(1), r"holds model\.diffusion_model\.label_emb\.0\.weight"),
    ("cond_stage_model.other", torch.zeros(1), r"holds cond_stage_model\.other, which .* leave no place for: give the"),
    ("betas", torch.linspace(0.0015, 0.0205, 1000), r"betas are 1000 values from 0\.0015 to 0\.0205, which"),
]


@pytest.mark.parametrize(("name", "tensor", "sentence"), SPOILT)
def test_every_tensor_must_fit(name: str, tensor: Any, sentence: str, model: Model, read_model: Any) -> None:
    if tensor is None:
        del model.state[name]
    else:
        model.state[name] = tensor
    with pytest.raises(UserError, match=sentence) as refusal:
        read_model()
    assert "\n" not in str(refusal.value)


TERMS: list[tuple[str, Any, str]] = [
    ("unet.channel_mult", [2, 4], r"unet\.channel_mult=\[2, 4\] must begin with 1"),
    ("unet.channel_mult", None, r"unet\.channel_mult is missing: add it"),
    ("unet.model_channels", 48, r"unet\.model_channels=48 must be a multiple of 32"),
    ("unet.model_channels", "32", r"unet\.model_channels='32' must be an integer of 1 or more"),
    ("unet.num_head_channels", 24, r"unet\.num_head_channels=24 does not divide 32"),
    ("unet.num_res_blocks", [1], r"unet\.num_res_blocks=\[1\] must name each of the 2 levels"),
    ("unet.use_spatial_transformer", False, r"unet\.use_spatial_transformer must be True here: other attention"),
    ("unet.resblock_updown", True, r"unet\.resblock_updown must be False here"),
    ("unet.num_classes", 8, r"unet\.num_classes=8 cannot be built: the class is told by cross-attention"),
    ("unet.surprise", 1, r"unet\.surprise is unknown: the terms of this part are attention_resolutions, "),
    ("unet.in_channels", 4, r"unet\.in_channels=4 differs from first_stage\.embed_dim=3"),
    ("context_dim", 32, r"context_dim=32 differs from unet\.context_dim=24"),
    ("first_stage.double_z", True, r"first_stage\.double_z must be False here"),
    ("first_stage.attn_type", "linear", r"first_stage\.attn_type='linear' cannot be built"),
    ("first_stage.out_ch", 1, r"first_stage\.out_ch=1 must be 3"),
    ("first_stage", [], r"first_stage is no mapping"),
    ("beta_schedule", "cosine", r"beta_schedule='cosine' is unknown: the valid ones are linear, sqrt_linear"),
    ("linear_start", 0.5, r"linear_start=0\.5 must lie between 0 and linear_end=0\.0205"),
    ("n_classes", 0, r"n_classes=0 must be an integer of 1 or more"),
    ("linear_end", 0.02, r"betas are 1000 values from 0\.0015 to 0\.0205, which"),
    ("first_stage.n_embed", 32, r"quantize\.embedding\.weight is 16x3 of float32, where .* make it 32x3 of floats"),
]


@pytest.mark.parametrize(("key", "value", "sentence"), TERMS)
def test_terms_that_cannot_be_built(key: str, value: Any, sentence: str, model: Model, read_model: Any) -> None:
    section, _, last = key.rpartition(".")
    (model.config[section] if section else model.config)[last] = value
    with pytest.raises(UserError, match=sentence) as refusal:
        read_model()
    assert "\n" not in str(refusal.value)


def test_a_config_that_is_none(tiny: Model, tmp_path: Path) -> None:
    checkpoint, config = tiny.save(tmp_path)
    config.write_text("{")
    with pytest.raises(UserError, match=r"config\.json is no JSON"):
        pretrained.read(checkpoint, config)
    config.write_text(json.dumps([]))
    with pytest.raises(UserError, match="the config is no mapping"):
        pretrained.read(checkpoint, config)
    with pytest.raises(UserError, match=r"absent\.json is no file"):
        pretrained.read(checkpoint, tmp_path / "absent.json")


def test_no_label_has_the_row_of_its_own_table(tiny: Model, tmp_path: Path) -> None:
    imported = pretrained.read(*tiny.save(tmp_path))
    assert imported.condition == ConditionConfig(8, 24, 8)
    assert torch.equal(imported.embedding(torch.tensor([8]))[0], tiny.state["cond_stage_model.uncond_embedding.weight"])
