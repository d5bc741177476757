"""Recompute the cases of a reference folder and print by how much each differs: max |ours - theirs|.

The folder holds ldm.ckpt, config.json and cases.safetensors. Each case starts from the reference's result of the pass
before it: a guided pass there and back makes a rounding error of 1e-6 some hundred times as large, the reference's too.
What is beyond the tolerance in float32 is computed once more in float64, which leaves the reference's rounding alone;
the line then gives that difference, and standard error says so.

Exit code: 0 all within the tolerance, 1 some beyond it, 2 wrong use.
"""

import argparse
import copy
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from affect_hpc.config.edit import Spacing
from affect_hpc.core.errors import UserError
from affect_hpc.diffusion import ddim
from affect_hpc.diffusion.guidance import guided
from affect_hpc.diffusion.schedule import alpha_bars
from affect_hpc.models import first_stage, pretrained
from affect_hpc.models.ldm import Ldm
from affect_hpc.models.pretrained import Pretrained, Weights

INPUTS = ("image", "t", "label", "source_label", "target_label")
NOISE = re.compile(r"eps_(cond|null)_(raw|ema)")
NUMBER = r"\d+(?:\.\d+)?"
EDIT = re.compile(rf"t0_({NUMBER})\.gamma_({NUMBER})\.steps_(\d+)\.(timesteps|z_t0|z_edit|x_edit)")


@dataclass(frozen=True)
class World:
    """The model, and what the reference gives.

    Args:
        cases: in the precision that all is computed in.
        file: that the cases are from.
    """

    model: Pretrained
    cases: Mapping[str, Tensor]
    file: Path

    @property
    def ldm(self) -> Ldm:
        """With averaged weights: those of edits."""
        return self.model.ldm(Weights.ema)

    def in_double(self) -> "World":
        """The same in float64."""
        model = copy.deepcopy(self.model)
        for network in (model.first_stage, model.raw, model.averaged, model.embedding):
            if network is not None:
                network.double()
        cases = {name: case.double() if case.is_floating_point() else case for name, case in self.cases.items()}
        return World(model, cases, self.file)

    def given(self, name: str) -> Tensor:
        """A tensor of the reference that others are computed from."""
        if name not in self.cases:
            raise UserError(f"{self.file} holds no {name}, which its other tensors are computed from: add it.")
        return self.cases[name]

    def ours(self, name: str) -> Tensor:
        """What we compute for a tensor of the reference; UserError where its name means nothing."""
        vqgan = self.model.first_stage
        if match := NOISE.fullmatch(name):
            return self.noise(*match.groups())
        if match := EDIT.fullmatch(name):
            return self.edit(*match.groups())
        if name == "latent":
            return first_stage.encode(vqgan, self.given("image"))
        if name in ("latent_quantized", "code_indices"):
            latent = self.given("latent")
            quantised, _, (_, _, index) = vqgan.quantize(latent)
            found: Tensor = quantised if name == "latent_quantized" else index.reshape(len(latent), *latent.shape[2:])
            return found
        if name == "reconstruction":
            return first_stage.decode(vqgan, self.given("latent"))
        raise UserError(
            f"{self.file} holds {name}, which is neither an input ({', '.join(INPUTS)}) nor a case that can be "
            "recomputed: take it out."
        )

    def noise(self, label: str, weights: str) -> Tensor:
        """Prediction for the labels (cond), or for none (null)."""
        labels = self.given("label")
        if label == "null":
            labels = torch.full_like(labels, self.ldm.condition.null_index)
        noise: Tensor = self.model.denoiser(Weights[weights])(self.given("latent"), self.given("t"), labels)
        return noise

    def edit(self, t0: str, gamma: str, steps: str, what: str) -> Tensor:
        """One result of an edit; gamma acts in both passes."""
        ldm = self.ldm
        taus = self.timesteps(t0, int(steps))
        if what == "timesteps":
            return torch.tensor(taus)
        before = f"t0_{t0}.gamma_{gamma}.steps_{steps}."
        if what == "x_edit":
            return first_stage.decode(self.model.first_stage, ldm.norm.restore(self.given(f"{before}z_edit")))
        path = ddim.Path(taus, alpha_bars(ldm.diffusion))
        predict = guided(ldm.predictor(low_precision=False), float(gamma), ldm.condition.null_index)
        if what == "z_edit":
            return ddim.decode(self.given(f"{before}z_t0"), self.given("target_label"), path, predict)
        return ddim.encode(ldm.norm.normalise(self.given("latent")), self.given("source_label"), path, predict)

    def timesteps(self, t0: str, steps: int) -> list[int]:
        """The visited levels. A t0 with a decimal point is a share of all levels."""
        count = self.ldm.diffusion.num_timesteps
        level = int(float(t0) * count) if "." in t0 else int(t0)
        if not 2 <= level < count:
            raise UserError(f"{self.file}: t0_{t0} is no level: there are {count}, counted from 0.")
        return ddim.timesteps(Spacing.linspace, steps, level, count)


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """max |ours - theirs|; infinite where shapes differ or a value is not finite."""
    if ours.shape != theirs.shape:
        return math.inf
    difference = float((ours.double() - theirs.double()).abs().max())
    return math.inf if math.isnan(difference) else difference


def open_world(folder: Path) -> World:
    """Model and cases of a reference folder; UserError where a file is missing or wrong."""
    file = folder / "cases.safetensors"
    if not file.is_file():
        raise UserError(f"{folder} holds no cases.safetensors: give a folder with it, ldm.ckpt and config.json.")
    try:
        cases = load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} is no safetensors file ({error}): copy it again.") from None
    return World(pretrained.read(folder / "ldm.ckpt", folder / "config.json"), cases, file)


def compare(world: World, tolerance: float) -> Iterator[tuple[str, float, str]]:
    """Name, largest difference and remark of every case, in the file's order; UserError where a tensor is unknown."""
    names = [name for name in world.cases if name not in INPUTS]
    if not names:
        raise UserError(f"{world.file} holds inputs only: there is nothing to compare.")
    double: World | None = None
    for name in names:
        with torch.inference_mode():
            difference, remark = largest_difference(world.ours(name), world.cases[name]), ""
            if difference > tolerance:
                double = double or world.in_double()
                again = largest_difference(double.ours(name), world.cases[name])
                remark = f"{name}: {difference:.3g} in float32, {again:.3g} in float64"
                difference = again
        yield name, difference, remark


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python tools/parity.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="with ldm.ckpt, config.json and cases.safetensors")
    parser.add_argument("--tolerance", metavar="MAX", type=float, default=1e-4, help="default: 1e-4")
    arguments = parser.parse_args(argv)
    beyond = []
    try:
        if not arguments.tolerance >= 0:
            raise UserError(f"--tolerance {arguments.tolerance} is no bound: give 0 or more.")
        for name, difference, remark in compare(open_world(arguments.folder), arguments.tolerance):
            print(f"{name} {difference:.3g}", flush=True)
            if remark:
                print(remark, file=sys.stderr)
            if difference > arguments.tolerance:
                beyond.append(name)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if beyond:
        print(f"beyond {arguments.tolerance:g}: {', '.join(beyond)}", file=sys.stderr)
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
