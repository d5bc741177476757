"""The exported folder: stock diffusers opens it in a process without this package, and draws what we draw."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel, VQModel
from original_layout import Model, make
from safetensors.torch import load_file, save_file
from torch import Tensor

from affect_hpc.config import terms
from affect_hpc.config.edit import Spacing, timesteps
from affect_hpc.config.model import DiffusionConfig
from affect_hpc.core.io import read_json, write_json, write_text
from affect_hpc.diffusion import ddim
from affect_hpc.diffusion.guidance import guided
from affect_hpc.diffusion.schedule import alpha_bars
from affect_hpc.models import first_stage, pretrained
from affect_hpc.models.ldm import DESCRIPTION, Ldm
from affect_hpc.models.pretrained import Weights

LABELS, STEPS, GAMMA = [1, 7, 3], 10, 2.5
STRANGER = """
import sys
sys.modules["affect_hpc"] = None  # any import of it fails
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
folder, noise, out = sys.argv[1:]
for words in ({}, {"custom_pipeline": folder + "/pipeline.py"}):
    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, **words)
pipe.set_progress_bar_config(disable=True)
given = dict(latents=load_file(noise)["noise"], num_inference_steps=10)
labels = ["happy", 7, "surprised"]
save_file({
    "latents": pipe(labels, guidance_scale=2.5, output_type="latent", **given).images,
    "plain": pipe(labels, guidance_scale=1, output_type="latent", **given).images,
    "faces": pipe(labels, guidance_scale=2.5, output_type="pt", **given).images.contiguous(),
}, out)
picture, = pipe(["sad"], num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images
print(picture.size, type(pipe).__module__.split(".")[0])
for labels, steps in ((["glad"], 10), ([8], 10), ([0], 501)):
    try:
        pipe(labels, num_inference_steps=steps)
    except ValueError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("export_pipeline")


@pytest.fixture(scope="module")
def model() -> Model:
    return make()


@pytest.fixture(scope="module")
def run(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A train_ldm run in a store, on a first stage of another run, on shards of a corpus with terms."""
    store = tmp_path_factory.mktemp("store")
    shards, vqgan, ldm = (store / "runs" / name for name in ("prepare_shards/a", "train_vqgan/b", "train_ldm/c"))
    write_text(shards / "config.yaml", "data:\n  name: affectnet\n")
    write_json(vqgan / "inputs.json", {"shards": [{"run": "prepare_shards/a", "each": False}]})
    roles = {"latents": [{"run": "prepare_shards/a", "each": False}], "first_stage": [{"run": "train_vqgan/b"}]}
    write_json(ldm / "inputs.json", roles)
    (store / "checkpoint").mkdir()
    pretrained.read(*model.save(store / "checkpoint")).write(ldm / "out", Weights.ema)
    (ldm / "out" / "imported.json").unlink()
    (vqgan / "out").mkdir()
    (ldm / "out" / "first_stage").rename(vqgan / "out" / "first_stage")
    write_json(ldm / "DONE", {"summary": {"samples": 4, "val_loss": 0.125}})
    write_json(vqgan / "out" / "vqgan.json", {"val_psnr": 27.25, "perceptual": "none"})
    write_json(ldm / "out" / terms.FILE, {"affectnet": terms.summary("affectnet")})
    description = read_json(ldm / "out" / DESCRIPTION)
    write_json(
        ldm / "out" / DESCRIPTION, {**description, "latent_mean": [0.5, -1.0, 0.25], "latent_std": [0.5, 2.0, 1.5]}
    )
    return ldm


@pytest.fixture(scope="module")
def exported(run: Path, tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model"
    assert tool.main([str(run), str(out)]) == 0
    return out


@torch.no_grad()
def our_latents(ldm: Ldm, noise: Tensor, gamma: float) -> Tensor:
    taus = timesteps(Spacing.leading_plus_one, STEPS, 999, 1000)
    predict = guided(ldm.predictor(low_precision=False), gamma, 8)
    return ldm.norm.restore(
        ddim.decode(noise, torch.tensor(LABELS), ddim.Path(taus, alpha_bars(ldm.diffusion)), predict)
    )


def test_a_process_without_this_package_draws_the_same(exported: Path, run: Path, tmp_path: Path) -> None:
    noise = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    save_file({"noise": noise}, tmp_path / "noise.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, exported, tmp_path / "noise.safetensors", tmp_path / "faces.safetensors"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "(16, 16) diffusers_modules"
    assert said[1].startswith("'glad' is no class: the valid ones are neutral, happy, sad, surprised, scared, ")
    assert (
        said[2].startswith("8 is no class: ") and said[3] == "num_inference_steps=501 is out of range: give 1 to 500."
    )
    theirs = load_file(tmp_path / "faces.safetensors")
    ldm, vqgan = Ldm.load(run / "out", torch.device("cpu")), first_stage.load(run.parents[1] / "train_vqgan/b/out")
    for name, gamma in (("latents", GAMMA), ("plain", 1.0)):
        torch.testing.assert_close(theirs[name], our_latents(ldm, noise, gamma), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        faces = (first_stage.decode(vqgan, theirs["latents"]).clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(theirs["faces"], faces, rtol=0, atol=1e-5)


def test_stock_classes_open_the_parts(exported: Path, model: Model) -> None:
    unet = UNet2DConditionModel.from_pretrained(exported, subfolder="unet")
    z, t, ids = torch.randn(2, 3, 8, 8), torch.tensor([3, 500]), torch.tensor([8, 2])
    one_hot = torch.nn.functional.one_hot(ids, 9)[:, None].float()
    with torch.no_grad():
        tokens = model.embedding(ids)
        assert torch.equal(unet.encoder_hid_proj(one_hot), tokens)
        expected = model.averaged(z, t, encoder_hidden_states=tokens).sample
        assert torch.equal(unet(z, t, encoder_hidden_states=one_hot).sample, expected)
        vqgan = VQModel.from_pretrained(exported, subfolder="vqvae")
        assert torch.equal(vqgan.decode(z).sample, model.first_stage.decode(z).sample)
    scheduler = DDIMScheduler.from_pretrained(exported, subfolder="scheduler")
    scheduler.set_timesteps(STEPS)
    taus = timesteps(Spacing.leading_plus_one, STEPS, 999, 1000)
    assert scheduler.timesteps.tolist() == taus[::-1]
    # The clean end of ours: the first level, not exactly 1.
    bars = alpha_bars(DiffusionConfig())
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), bars, rtol=1e-4, atol=0)
    assert float(scheduler.final_alpha_cumprod) == float(scheduler.alphas_cumprod[0])


def test_the_folder_says_where_it_is_from(exported: Path, run: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "Output of the run `train_ldm/c`" in card and "The corpus `affectnet`." in card
    assert "AffectNet (University of Denver (M. H. Mahoor)), Academic Use License v2.1" in card
    assert "* Academic research only, nothing commercial." in card and "first stage, val_psnr: 27.25" in card
    assert "denoiser, val_loss: 0.125" in card and "synthetic: mark it so" in card
    assert read_json(exported / terms.FILE) == {"affectnet": terms.summary("affectnet")}
    assert read_json(exported / "model_index.json")["latent_norm"]["mean"] == [0.5, -1.0, 0.25]
    store = str(run.parents[2])
    assert not [file for file in exported.rglob("*") if file.is_file() and store.encode() in file.read_bytes()]


def test_an_imported_model_brings_its_first_stage(
    model: Model, tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrained.read(*model.save(tmp_path)).write(tmp_path / "in", Weights.raw)
    assert tool.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Imported from `model.ckpt`" in card and "raw weights" in card and "No terms stand beside" in card
    capsys.readouterr()
    assert tool.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'out'} exists: give a folder that does not, or remove it.\n"


def test_what_cannot_be_exported(
    run: Path, tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(*words: Path) -> str:
        assert tool.main([*map(str, words), "--first-stage", str(tmp_path)]) == 2
        return capsys.readouterr().err

    assert f"{tmp_path} holds no ldm.json: give a train_ldm run, its out/ folder" in refusal(tmp_path, tmp_path / "o")
    assert f"{tmp_path} holds no first_stage/config.json: give --first-stage" in refusal(run, tmp_path / "o")
    other = VQModel(latent_channels=4, block_out_channels=(32,))
    other.save_pretrained(tmp_path / "first_stage")
    assert "has latents of 4 channels, " in refusal(run, tmp_path / "o")
    assert not (tmp_path / "o").exists()
