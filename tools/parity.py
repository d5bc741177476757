"""Recompute the cases of reference folders and print by how much each differs: max |ours - theirs|.

A folder holds cases.safetensors, and ldm.ckpt and config.json unless all its cases are metrics; or it holds such
folders. Sizes are those of the folder. The name of a case is any number of settings, in any order, and a result; a
setting that it leaves out is looked for at the top of config.json (not for metrics), and is the product's default
otherwise. Results and their inputs:

  latent                                          image
  latent_quantized, code_indices, reconstruction  latent
  betas, alphas_cumprod                           (the schedule in config.json)
  eps_{cond,null}_{raw,ema}, gamma_<g>.eps        latent, t, label
  t0_<t>.gamma_<g>.steps_<n>.{timesteps,z_t0,z_t0_twin,offsets,z_own,x_own,z_edit,x_edit}
                                                  latent, source_label, target_label
  sampler_<name>.gamma_<g>.steps_<n>.{timesteps,z_sample,x_sample}
                                                  z_start, sample_label, noise (of each step, as they come)
  fid, kid, kid_std, precision, recall            features_generated, features_real
  psnr, ssim, lpips, lpips_vgg                    image_a, image_b (in [0, 1], or bytes (B, H, W, 3))
  csim                                            embedding_a, embedding_b

More settings: weights, gamma_from, gamma_to, clip, classifier_scale (classifier.json and classifier.safetensors lie in
the folder) of predictions, edits and samples; spacing, end_level of edits and samples; encode_gamma, time_input,
inverter, refinements, mixing of edits; eta, t0 of samples; subsets, size, seed of kid; k of precision and recall.

Each case starts from the reference's result of the pass before it: a guided pass there and back makes a rounding error
of 1e-6 some hundred times as large, the reference's too. What is beyond the tolerance in float32 is computed once more
in float64, which leaves the reference's rounding alone; the line then gives that difference, and standard error says
so. Without --tolerance the bar is 1e-4, or ten times our own rounding error where a pass makes more of it than that.

Exit code: 0 all within the tolerance, 1 some beyond it, 2 wrong use.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

# Where this file is not run but loaded, its folder is not among those searched.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from parity_cases import KINDS, Kind, World
from parity_folder import CASES, INPUTS, Case, Folder, undeclared
from parity_metrics import METRICS, Metric

from affect_hpc.core.errors import UserError

TOLERANCE = 1e-4
ROOM = 10
"""How often its own rounding error, ours of float32 against float64, a reference may be off for rounding alone. Another
order of the same sums gave 4 times ours on the cases at hand."""
MOST_ROUNDING = 1e-3
"""Share of the largest value beyond which nothing counts as rounding."""


@dataclass(frozen=True)
class Outcome:
    """How a case came out.

    Args:
        difference: the largest one.
        bar: that it may reach.
        remark: where something is to be said of it.
    """

    name: str
    difference: float
    bar: float
    remark: str = ""

    @property
    def beyond(self) -> bool:
        """Whether the case failed."""
        return not self.difference <= self.bar


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """max |ours - theirs|; infinite where shapes differ or a value is not finite."""
    if ours.shape != theirs.shape:
        return math.inf
    difference = float((ours.double() - theirs.double()).abs().max()) if ours.numel() else 0.0
    return math.inf if math.isnan(difference) else difference


def place_of(ours: Tensor, theirs: Tensor) -> str:
    """Where the largest difference stands, as half a sentence."""
    if ours.shape != theirs.shape:
        return f"ours has the shape {tuple(ours.shape)}, theirs {tuple(theirs.shape)}"
    apart = (ours.double() - theirs.double()).abs().nan_to_num(nan=math.inf)
    place = torch.unravel_index(apart.argmax(), apart.shape)
    at = tuple(int(side) for side in place)
    return f"at {at} ours is {float(ours[at]):.6g}, theirs {float(theirs[at]):.6g}"


class Comparison:
    """Of a reference folder.

    Args:
        folder: the folder.
        tolerance: None = TOLERANCE and, above it, what float32 makes of rounding errors.

    Raises:
        UserError: a tensor is unknown, none is a case, or the model that they ask for is not there.
    """

    def __init__(self, folder: Folder, tolerance: float | None) -> None:
        self.folder, self.tolerance = folder, tolerance
        self.cases = [(case, self._kind(case)) for case in self._parsed() if case.what not in INPUTS]
        if not self.cases:
            raise UserError(f"{folder.file} holds inputs only: there is nothing to compare.")
        needs_model = any(isinstance(kind, Kind) for _, kind in self.cases)
        self.world = World.read(folder.path) if needs_model else None
        self.double: World | None = None

    def _parsed(self) -> list[Case]:
        return [Case.parse(self.folder, name) for name in self.folder.tensors]

    def _kind(self, case: Case) -> Kind | Metric:
        for kind in (*KINDS, *METRICS):
            if kind.has(case):
                return kind
        raise UserError(
            f"{self.folder.file} holds {case.name}, which is neither an input ({', '.join(INPUTS)}) nor a case that "
            "can be recomputed: take it out."
        )

    def outcomes(self) -> Iterator[Outcome]:
        """Of every case, in the file's order."""
        for case, kind in self.cases:
            try:
                with torch.inference_mode():
                    yield self._metric(case, kind) if isinstance(kind, Metric) else self._network(case, kind)
            except UserError as error:
                if str(error).startswith(str(self.folder.path)):
                    raise
                raise UserError(f"{self.folder.file}: {case.name}: {error}") from None

    def notes(self) -> list[str]:
        """What the folder speaks of and does not hold."""
        return undeclared(self.folder, [case for case, kind in self.cases if "t0" in case.settings])

    def _metric(self, case: Case, metric: Metric) -> Outcome:
        ours, theirs = metric.tensor(case), self.folder.tensors[case.name]
        # Figures have a unit of their own: FID may be 0.1 or 300.
        bar = (TOLERANCE if self.tolerance is None else self.tolerance) * max(1.0, _largest(theirs))
        return self._outcome(case, ours, theirs, bar)

    def _network(self, case: Case, kind: Kind) -> Outcome:
        assert self.world is not None
        theirs = self.folder.tensors[case.name]
        bar = TOLERANCE if self.tolerance is None else self.tolerance
        ours = kind.compute(self.world, case)
        outcome = self._outcome(case, ours, theirs, bar)
        if not outcome.beyond:
            return outcome
        self.double = self.double or self.world.in_double()
        exact = kind.compute(self.double, case)
        if self.tolerance is None and ours.is_floating_point():
            bar = max(bar, min(ROOM * largest_difference(ours, exact), MOST_ROUNDING * _largest(theirs)))
        said = f"{outcome.difference:.3g} in float32, {largest_difference(exact, theirs):.3g} in float64, bar {bar:.3g}"
        return self._outcome(case, exact, theirs, bar, f"{case.name}: {said}")

    def _outcome(self, case: Case, ours: Tensor, theirs: Tensor, bar: float, remark: str = "") -> Outcome:
        found = Outcome(case.name, largest_difference(ours, theirs), bar, remark)
        if not found.beyond:
            return found
        said = remark or f"{case.name}: {found.difference:.3g}, bar {bar:.3g}"
        return Outcome(case.name, found.difference, bar, f"{said}; {place_of(ours, theirs)}")


def _largest(tensor: Tensor) -> float:
    """Of the values that are finite, without sign; 0 where there are none."""
    values = tensor.double().abs()
    return float(values[values.isfinite()].max()) if bool(values.isfinite().any()) else 0.0


def folders_of(paths: Sequence[Path]) -> list[Path]:
    """The reference folders among ``paths`` and directly below them; UserError where one holds none."""
    found: list[Path] = []
    for path in paths:
        below = [] if (path / CASES).is_file() else sorted(file.parent for file in path.glob(f"*/{CASES}"))
        found += below or [path]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python tools/parity.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", metavar="DIR", type=Path, nargs="+", help="with ldm.ckpt, config.json and cases.safetensors"
    )
    parser.add_argument(
        "--tolerance",
        metavar="MAX",
        type=float,
        help=f"default: {TOLERANCE:g}, and more for rounding errors; for metrics, a share of figures above 1",
    )
    arguments = parser.parse_args(argv)
    tolerance: float | None = arguments.tolerance
    beyond = []
    try:
        if tolerance is not None and not tolerance >= 0:
            raise UserError(f"--tolerance {tolerance} is no bound: give 0 or more.")
        folders = folders_of(arguments.folders)
        for path in folders:
            comparison = Comparison(Folder.read(path), tolerance)
            prefix = f"{path.name}/" if len(folders) > 1 else ""
            for outcome in comparison.outcomes():
                print(f"{prefix}{outcome.name} {outcome.difference:.3g}", flush=True)
                if outcome.remark:
                    print(f"{prefix}{outcome.remark}", file=sys.stderr)
                if outcome.beyond:
                    beyond.append(f"{prefix}{outcome.name}")
            for note in comparison.notes():
                print(note, file=sys.stderr)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if beyond:
        bar = TOLERANCE if tolerance is None else tolerance
        print(f"beyond {bar:g}: {', '.join(beyond)}", file=sys.stderr)
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
