"""How close edits in bfloat16 come to those in float32, by guidance scale: PSNR of the images, of a trained model.

Both inverted and edited by the stages' own code, from the same encoded faces (``encode_val`` of any sweep).
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from affect_hpc.config.compose import collect
from affect_hpc.config.root import Config
from affect_hpc.config.train import Precision
from affect_hpc.core.emotions import TARGETS
from affect_hpc.core.hashing import canonical
from affect_hpc.data.codec import UInt8Image
from affect_hpc.data.images import stacked
from affect_hpc.data.shards import ShardSet
from affect_hpc.metrics import paired
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import Ldm
from affect_hpc.stages.manipulate import Editor, Start
from affect_hpc.stages.precompute_latents import Inverting


def edited(
    cfg: Config, precision: Precision, faces: ShardSet, count: int, ldm: Path, stage_1: Path
) -> list[UInt8Image]:
    """The images of all targets, face by face."""
    device = torch.device("cpu")
    invert = replace(cfg.stages.invert_latents, precision=precision, gamma=cfg.edit.gamma).settled()
    change = replace(cfg.stages.manipulate, precision=precision)
    model = first_stage.load(stage_1)
    label = torch.tensor([faces[i].label for i in range(count)])
    z = stacked(faces, range(count), "npy")
    with torch.inference_mode():
        certified = Inverting(invert, Ldm.load(ldm, device), model).certified(z, label)
        starts = [
            Start(int(own), one.certificate.inverter, one.state, one.z_own)
            for own, one in zip(label, certified, strict=True)
        ]
        images = Editor(change, canonical(invert), Ldm.load(ldm, device), model).images(starts, list(TARGETS))
    return [images[row, name] for row in range(count) for name in TARGETS]


def main() -> None:
    """Print a line for each guidance scale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latents", type=Path, nargs="+", help="output folders of encode_val")
    parser.add_argument("--ldm", type=Path, required=True, help="output folder of train_ldm")
    parser.add_argument("--first-stage", type=Path, required=True, help="folder that holds first_stage/")
    parser.add_argument("--faces", type=int, default=8, help="default: 8")
    parser.add_argument("--steps", type=int, default=40, help="default: 40")
    parser.add_argument("--t0", type=int, default=500, help="default: 500")
    arguments = parser.parse_args()
    faces = ShardSet.open(arguments.latents)
    for gamma in (1, 2, 3, 4, 5):
        words = ["data=demo", f"edit.gamma={gamma}", f"edit.t0={arguments.t0}", f"edit.num_steps={arguments.steps}"]
        cfg: Config = collect(words)[0]
        exact, rough = (
            edited(cfg, precision, faces, arguments.faces, arguments.ldm, arguments.first_stage)
            for precision in (Precision.fp32, Precision.bf16)
        )
        found = paired.psnr(*map(paired.unit_range, (exact, rough)))
        print(
            f"gamma {gamma}: {sum(found) / len(found):.1f} dB mean, {min(found):.1f} dB least, of {len(found)} edits",
            flush=True,
        )


if __name__ == "__main__":
    main()
