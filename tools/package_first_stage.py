"""Make a folder that ships with the package from a train_vqgan output: the same first stage in half the bytes.

Weights are rounded to float16 for storage and used in float32; the figures in vqgan.json are measured after rounding.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from affect_hpc.config import terms
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, sha256_file, write_json, writing_folder
from affect_hpc.data.images import ImageSet
from affect_hpc.models import first_stage
from affect_hpc.stages.train_vqgan import validate

WEIGHTS = "diffusion_pytorch_model.safetensors"


def package(run: Path, shards: Path, target: Path) -> dict[str, float]:
    """Write ``target/first_stage`` and ``target/vqgan.json``; returns the figures.

    Args:
        run: output folder of train_vqgan.
        shards: output folder of prepare_shards; its val split is reconstructed.
    """
    if not (run / "first_stage" / WEIGHTS).is_file():
        raise UserError(f"{run} holds no first_stage/{WEIGHTS}: give the out/ folder of a train_vqgan run.")
    weights = {name: value.half().contiguous() for name, value in load_file(run / "first_stage" / WEIGHTS).items()}
    with writing_folder(target / "first_stage") as folder:
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / WEIGHTS).chmod(0o644)  # safetensors keeps it to the owner
        write_json(folder / "config.json", read_json(run / "first_stage" / "config.json"))
    if (run / terms.FILE).exists():
        write_json(target / terms.FILE, read_json(run / terms.FILE))
    figures = validate(first_stage.load(target), ImageSet.open([shards / "val"]), torch.device("cpu"))
    write_json(target / "vqgan.json", {**read_json(run / "vqgan.json"), **figures})
    return figures


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python tools/package_first_stage.py", description=__doc__)
    parser.add_argument("run", type=Path, help="out/ folder of a train_vqgan run")
    parser.add_argument("shards", type=Path, help="out/ folder of its prepare_shards run")
    parser.add_argument("target", type=Path, help="affect_hpc/models/packaged/NAME")
    arguments = parser.parse_args()
    try:
        figures = package(arguments.run, arguments.shards, arguments.target)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    file = arguments.target / "first_stage" / WEIGHTS
    print(f"{file}: {file.stat().st_size} bytes, sha256 {sha256_file(file)}")
    print("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
