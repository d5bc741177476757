"""Write a trained model as a folder that diffusers opens by itself, without this program.

    DiffusionPipeline.from_pretrained(OUT, trust_remote_code=True)     generation; runs OUT/pipeline.py
    UNet2DConditionModel.from_pretrained(OUT, subfolder="unet")        the parts alone, likewise vqvae and scheduler

The label embedding becomes the projection of the U-Net's context, which takes the class as a one-hot vector. Editing is
not exported: diffusers' DDIM scheduler walks one way, at one distance.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import UNet2DConditionModel
from omegaconf import OmegaConf

from affect_hpc.config import terms
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, read_json_if_there, write_json, write_text, writing_folder
from affect_hpc.core.rundir import RunDir
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import DESCRIPTION, Ldm

PIPELINE = Path(__file__).with_name("exported_pipeline.py")
LDM_FILE, FIRST_STAGE_FILE = DESCRIPTION, "first_stage/config.json"


@dataclass(frozen=True)
class Source:
    """What is exported.

    Args:
        ldm: output folder of train_ldm, or an imported model.
        first_stage: output folder of train_vqgan, or an imported or packaged model.
    """

    ldm: Path
    first_stage: Path


def output_folder(path: Path, must_hold: str) -> Path | None:
    """``path`` or the ``out`` of the run ``path``, whichever holds that file; None where neither does."""
    return next((folder for folder in (path, path / "out") if (folder / must_hold).is_file()), None)


def parents(run: Path, role: str = "") -> Iterator[Path]:
    """Folders of the runs, or of finished inputs, that a run was made from; of all roles where none is given."""
    store = run.absolute().parent.parent.parent
    for name, entries in (read_json_if_there(run / "inputs.json") or {}).items():
        if role in ("", name):
            for entry in entries:
                yield Path(entry["path"]) if "path" in entry else RunDir(store / "runs" / entry["run"]).path


def find(run: Path, first_stage_folder: Path | None) -> Source:
    """Model and first stage of a run.

    Raises:
        UserError: ``run`` is no train_ldm run, or its first stage is not to be found.
    """
    ldm = output_folder(run, LDM_FILE)
    if ldm is None:
        raise UserError(f"{run} holds no {LDM_FILE}: give a train_ldm run, its out/ folder or an imported model.")
    candidates = [first_stage_folder] if first_stage_folder else [ldm, *parents(ldm.parent, "first_stage")]
    for candidate in candidates:
        if found := output_folder(candidate, FIRST_STAGE_FILE):
            return Source(ldm, found)
    raise UserError(
        f"{candidates[-1]} holds no {FIRST_STAGE_FILE}: give --first-stage, a folder with the first stage that the "
        "model was trained on."
    )


def corpus_of(run: Path) -> str:
    """Name of the corpus that a run goes back to; empty where that is not known."""
    if run.absolute().parent.name == "prepare_shards":
        return str(OmegaConf.load(run / "config.yaml").data.name)
    return next((name for parent in parents(run) if (name := corpus_of(parent))), "")


def export(source: Source, out: Path) -> None:
    """Write the folder, whole or not at all; UserError where it exists."""
    if out.exists():
        raise UserError(f"{out} exists: give a folder that does not, or remove it.")
    ldm = Ldm.load(source.ldm, torch.device("cpu"))
    vqgan = first_stage.load(source.first_stage)
    channels = vqgan.quantize.embedding.embedding_dim
    if channels != len(ldm.norm.mean):
        raise UserError(
            f"{source.first_stage} has latents of {channels} channels, {source.ldm} of "
            f"{len(ldm.norm.mean)}: give the --first-stage that the model was trained on."
        )
    count = ldm.condition.num_classes
    if ldm.condition.null_index != count:
        raise UserError(
            f"{source.ldm / DESCRIPTION}: null_index={ldm.condition.null_index} is not the last row of {count + 1}, "
            "which the exported pipeline takes for no label: export another model."
        )
    names = EMOTIONS if count == len(EMOTIONS) else [str(i) for i in range(count)]
    index = {
        "_class_name": ["pipeline", "LabelPipeline"],
        "_diffusers_version": diffusers.__version__,
        "vqvae": ["diffusers", "VQModel"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "classes": {name: i for i, name in enumerate(names)},
        "latent_norm": {"mean": ldm.norm.mean.tolist(), "std": ldm.norm.std.tolist()},
    }
    # How the levels are spaced is not part of a training; these are the levels that we generate at.
    scheduler = {**read_json(source.ldm / "scheduler" / "scheduler_config.json")}
    scheduler |= {"timestep_spacing": "leading", "steps_offset": 1}
    with writing_folder(out) as folder:
        save(self_contained(ldm), folder / "unet")
        save(vqgan, folder / "vqvae")
        write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
        write_json(folder / "model_index.json", index)
        shutil.copyfile(PIPELINE, folder / "pipeline.py")
        conditions = conditions_of(source)
        if conditions:
            write_json(folder / terms.FILE, conditions)
        write_text(folder / "README.md", card(source, list(names), conditions))


def save(network: Any, folder: Path) -> None:
    """As diffusers writes it, without the path on this machine that it adds."""
    network.save_pretrained(folder)
    config = read_json(folder / "config.json")
    config.pop("_name_or_path", None)
    write_json(folder / "config.json", config)


def self_contained(ldm: Ldm) -> UNet2DConditionModel:
    """The U-Net with the label embedding inside: a one-hot vector times the table is a row of it, to the bit."""
    unet: Any = ldm.denoiser.unet
    table = ldm.denoiser.embedding.table.weight
    with torch.device("meta"):
        whole = UNet2DConditionModel.from_config(
            {**unet.config, "encoder_hid_dim": len(table), "encoder_hid_dim_type": "text_proj"}
        )
    weights = {**unet.state_dict(), "encoder_hid_proj.weight": table.T.contiguous()}
    weights["encoder_hid_proj.bias"] = torch.zeros(table.shape[1])
    whole.load_state_dict(weights, assign=True)
    return whole.eval()


def conditions_of(source: Source) -> dict[str, Any]:
    """Terms of the corpora that the model hangs on, by corpus."""
    found: dict[str, Any] = {}
    for folder in (source.first_stage, source.ldm):
        found |= read_json_if_there(folder / terms.FILE) or {}
    return found


def card(source: Source, names: list[str], conditions: dict[str, Any]) -> str:
    """The model card, in Markdown."""
    about = read_json_if_there(source.ldm / "imported.json")
    done = read_json_if_there(source.ldm.parent / "DONE") or {}
    figures = {
        "denoiser": done.get("summary", {}),
        "first stage": read_json_if_there(source.first_stage / "vqgan.json") or {},
    }
    corpus = corpus_of(source.ldm.parent)
    if about:
        origin = f"Imported from `{about['source']}` (SHA-256 `{about['sha256']}`, {about['weights']} weights)."
        data = "What the checkpoint was trained on is not recorded in it: ask whoever gave it."
    else:
        origin = f"Output of the run `{source.ldm.parent.parent.name}/{source.ldm.parent.name}`; averaged weights."
        data = f"The corpus `{corpus}`." if corpus else "Not recorded beside the run."
    lines = [
        *("---", "library_name: diffusers", "license: other", "tags: [latent-diffusion, facial-expression]", "---", ""),
        *("# Faces by emotion class", "", origin, ""),
        f"A latent diffusion model that draws faces of the classes {', '.join(names)}.",
        *("", "```python", "from diffusers import DiffusionPipeline", ""),
        'pipe = DiffusionPipeline.from_pretrained("PATH", trust_remote_code=True)  # runs pipeline.py of this folder',
        f'pipe(["{names[-1]}"], guidance_scale=3.0, num_inference_steps=50).images[0].save("face.png")',
        *("```", "", "## Data", "", data, "", "## Terms", ""),
    ]
    if not conditions:
        lines.append("No terms stand beside the run. The code in `pipeline.py` is under Apache-2.0.")
    for entry in conditions.values():
        lines.append(f"The model hangs on {entry['name']} ({entry['owner']}), {entry['version']}, {entry['url']}:")
        lines += ["", *(f"* {point}" for point in entry["points"]), "", f"Cite: {entry['citation']}", ""]
    if conditions:
        lines.append(
            "Whether weights may be passed on under these terms is for their owners to say: ask before you do."
        )
    lines += ["", "## Figures", ""]
    measured = [
        f"* {part}, {name}: {value:.4g}"
        for part, values in figures.items()
        for name, value in sorted(values.items())
        if isinstance(value, int | float)
    ]
    lines += measured or ["None are recorded beside the run."]
    lines += [
        *("", "## Intended use", ""),
        "Research on facial expression and on generative models. Not for judging people, not for pictures of a real",
        "person without consent, not for deception.",
        *("", "## Limits", ""),
        "* What it draws is synthetic: mark it so wherever it is shown.",
        "* It repeats the bias of its data, in whose faces there are and in what an emotion is taken to look like.",
        "* Generation only. Editing visits levels at uneven distance up to a chosen one and walks them both ways,",
        "  which diffusers' DDIM scheduler cannot; it takes the program that trained the model.",
        "* Step numbers that divide the number of levels give the same images as that program, up to rounding.",
        "",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python tools/export_pipeline.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="train_ldm run, its out/ folder, or an imported model")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to make")
    parser.add_argument(
        "--first-stage", metavar="PATH", type=Path, help="folder of the first stage (default: as the run says)"
    )
    arguments = parser.parse_args(argv)
    try:
        source = find(arguments.run, arguments.first_stage)
        export(source, arguments.out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{arguments.out}: {source.ldm} with the first stage {source.first_stage}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
