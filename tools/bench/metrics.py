"""How long the metrics of whole sets take, and how much memory: FID, KID, precision and recall, nearest neighbours.

Each contender of a question has a process of its own, so that its peak of memory is its own. Features are made up, but
as those of networks are: from few causes, correlated, never negative.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from affect_hpc.metrics.distribution import Moments, frechet_distance, kid, precision_recall
from affect_hpc.metrics.features import FeatureSet
from affect_hpc.metrics.nearest import Block, Neighbours

WHAT = ["fid", "kid", "prc", "nearest"]
INCEPTION, VGG = 2048, 4096
FID_SAMPLES, PRC_SAMPLES, PARTS = 20_000, 10_000, 16
QUERIES, CANDIDATES, PIXELS = 64, 8192, 3 * 128 * 128
CAUSES = 48
Figures = dict[str, Any]


class Clock:
    """Seconds between one stroke and the next."""

    def __init__(self) -> None:
        self.began = time.perf_counter()

    def stroke(self) -> float:
        """What passed since the last one."""
        now = time.perf_counter()
        passed, self.began = now - self.began, now
        return passed


def write(folder: Path, name: str, count: int, dim: int, parts: int, shift: float) -> None:
    """Features of ``count`` samples, dealt out to ``parts`` folders in turn."""
    weights = np.random.default_rng(0).standard_normal((CAUSES, dim), np.float32) * np.geomspace(1, 0.1, dim)
    for part in range(parts):
        rows = range(part, count, parts)
        random = np.random.default_rng([part, round(1000 * shift)])
        causes = random.standard_normal((len(rows), CAUSES), np.float32) + np.float32(shift)
        noise = random.standard_normal((len(rows), dim), np.float32)
        features = np.maximum(causes @ weights.astype(np.float32) + noise, 0)
        keys = [f"sample-{row:06d}" for row in rows]
        FeatureSet.of({"name": "made up"}, keys, [0] * len(rows), features).save(folder / f"{part:04d}", name)


def load(folder: Path, name: str) -> FeatureSet:
    """All parts of ``write``."""
    return FeatureSet.load(sorted(folder.iterdir()), name)


def make(folder: Path) -> Figures:
    """What the questions ask about; in a process of its own, for what it takes is nobody's."""
    for name, shift in (("generated", 0.1), ("real", 0.0)):
        write(folder / "inception", name, FID_SAMPLES, INCEPTION, PARTS, shift)
        write(folder / "vgg", name, PRC_SAMPLES, VGG, PARTS, shift)
    return {}


def fid_ours(folder: Path) -> Figures:
    """Merge, moments, distance."""
    clock = Clock()
    generated, real = load(folder / "inception", "generated"), load(folder / "inception", "real")
    merged = clock.stroke()
    a, b = Moments.of(generated), Moments.of(real)
    moments = clock.stroke()
    value = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    return {"merge": merged, "moments": moments, "distance": clock.stroke(), "fid": value}


def fid_other(folder: Path) -> Figures:
    """torch-fidelity on the same features."""
    import torch  # noqa: PLC0415 (its memory is not ours)
    from torch_fidelity import metric_fid  # type: ignore[import-untyped]  # noqa: PLC0415

    generated, real = load(folder / "inception", "generated"), load(folder / "inception", "real")
    clock = Clock()
    a, b = (metric_fid.fid_features_to_statistics(torch.from_numpy(s.features).double()) for s in (generated, real))
    moments = clock.stroke()
    value = metric_fid.fid_statistics_to_metric(a, b, False)["frechet_inception_distance"]
    return {"moments": moments, "distance": clock.stroke(), "fid": value}


def kid_ours(folder: Path) -> Figures:
    """100 subsets of 1,000 in float64."""
    generated, real = load(folder / "inception", "generated"), load(folder / "inception", "real")
    clock = Clock()
    found = kid(generated, real)
    return {"kid": clock.stroke(), "mean": found.mean, "std": found.std}


def kid_other(folder: Path) -> Figures:
    """torch-fidelity, in the float32 that its extractor gives."""
    import torch  # noqa: PLC0415
    from torch_fidelity.metric_kid import kid_features_to_metric  # type: ignore[import-untyped]  # noqa: PLC0415

    generated, real = (torch.from_numpy(load(folder / "inception", name).features) for name in ("generated", "real"))
    clock = Clock()
    mean, std = kid_features_to_metric(generated, real, verbose=False).values()
    return {"kid": clock.stroke(), "mean": mean, "std": std}


def prc_ours(folder: Path) -> Figures:
    """Precision and recall, exact."""
    generated, real = load(folder / "vgg", "generated"), load(folder / "vgg", "real")
    clock = Clock()
    precision, recall = precision_recall(generated, real)
    return {"prc": clock.stroke(), "precision": precision, "recall": recall}


def prc_other(folder: Path) -> Figures:
    """torch-fidelity with --save-cpu-ram, float32."""
    import torch  # noqa: PLC0415
    from torch_fidelity.metric_prc import prc_features_to_metric  # type: ignore[import-untyped]  # noqa: PLC0415

    generated, real = (torch.from_numpy(load(folder / "vgg", name).features) for name in ("generated", "real"))
    clock = Clock()
    found = prc_features_to_metric(generated, real, save_cpu_ram=True, verbose=False)
    return {"prc": clock.stroke(), "precision": found["precision"], "recall": found["recall"]}


def nearest_ours(folder: Path) -> Figures:
    """Ten neighbours in pixels of 128 px faces."""
    random = np.random.default_rng(0)
    queries = Block([f"q{i}" for i in range(QUERIES)], random.integers(0, 256, (QUERIES, PIXELS), np.uint8))
    candidates = Block([f"c{i}" for i in range(CANDIDATES)], random.integers(0, 256, (CANDIDATES, PIXELS), np.uint8))
    clock = Clock()
    Neighbours.none(10, queries.keys).add(queries, candidates)
    seconds = clock.stroke()
    return {"nearest": seconds, "candidates a second": CANDIDATES / seconds}


TITLES = {
    "fid": f"FID of twice {FID_SAMPLES} x {INCEPTION} features in {PARTS} parts",
    "kid": f"KID of twice {FID_SAMPLES} x {INCEPTION} features, 100 subsets of 1000",
    "prc": f"precision and recall of twice {PRC_SAMPLES} x {VGG} features",
    "nearest": f"10 nearest of {CANDIDATES} images of 128 px to {QUERIES}",
}
CONTENDERS: dict[str, dict[str, Callable[[Path], Figures]]] = {
    "make": {"affect_hpc": make},
    "fid": {"affect_hpc": fid_ours, "torch-fidelity": fid_other},
    "kid": {"affect_hpc": kid_ours, "torch-fidelity": kid_other},
    "prc": {"affect_hpc": prc_ours, "torch-fidelity": prc_other},
    "nearest": {"affect_hpc": nearest_ours},
}


def apart(question: str, contender: str, folder: Path) -> Figures:
    """The figures of one contender, from a new process."""
    command = [sys.executable, __file__, "--in", str(folder), "--alone", contender, question]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: Figures = json.loads(said.splitlines()[-1])
    return figures


def alone(question: str, contender: str, folder: Path) -> None:
    """Print the figures of one contender as JSON, with the peak of this process."""
    figures = CONTENDERS[question][contender](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**figures, "peak GB": peak}))


def main() -> None:
    """Print one table per question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=WHAT, help=", ".join(WHAT))
    parser.add_argument("--in", dest="folder", default="", help=argparse.SUPPRESS)
    parser.add_argument("--alone", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        alone(arguments.what[0], arguments.alone, Path(arguments.folder))
        return
    print(f"{os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    # This process stays small: a child's peak begins with what its parent held.
    with tempfile.TemporaryDirectory() as scratch, suppress(KeyboardInterrupt):
        apart("make", "affect_hpc", Path(scratch))
        for question in arguments.what:
            print(f"{TITLES[question]}:", flush=True)
            for contender in CONTENDERS[question]:
                figures = apart(question, contender, Path(scratch))
                told = "   ".join(f"{name} {value:.6g}" for name, value in figures.items())
                print(f"  {contender:16s} {told}", flush=True)


if __name__ == "__main__":
    main()
