"""Generated corpora as their owners ship them, and the commands that bring them into shards."""

import subprocess
import sys
from pathlib import Path

import generated_affectnet
import generated_mead
from commands import REPO, Said, environment, run

from affect_hpc.core.io import sha256_file


def write_affectnet(root: Path, layout: str) -> None:
    """A small AffectNet in one of its two layouts."""
    shots = generated_affectnet.shots(train=16, val=8)
    if layout == "csv":
        generated_affectnet.write_csv_layout(root, shots)
    else:
        generated_affectnet.write_npy_layout(root, shots)


def write_mead(root: Path) -> None:
    """A few clips of a few actors."""
    generated_mead.write_mead(root)


def accept(corpus: str, store: Path) -> Said:
    """Accept the terms of a corpus for a store."""
    return run("data", "accept", corpus, "--store", store, "--by", "Test Lab", "--yes")


def prepare(corpus: str, root: Path, store: Path, *more: str, **env: str) -> Said:
    """Launch the preparation of a corpus."""
    words = ["stage=prepare_shards", f"data={corpus}", f"data.root={root}", "data.align.landmarks=dlib"]
    if corpus == "mead":
        words.append("data.val_actors=1")  # there are few
    return run("launch", *words, f"store={store}", "cluster.parts=2", *more, **env)


def inspect(store: Path) -> Said:
    """What the inspector says of the prepared shards of a store."""
    (where,) = (store / "runs" / "prepare_shards").iterdir()
    command = [sys.executable, str(REPO / "tools" / "inspect_shards.py"), str(where)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=REPO, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


def digests(store: Path) -> dict[str, str]:
    """Split and name of every shard and index -> its digest."""
    files = [path for path in store.glob("runs/prepare_shards/*/parts/*/out/*/*") if path.is_file()]
    return {f"{path.parent.name}/{path.name}": sha256_file(path) for path in files}
