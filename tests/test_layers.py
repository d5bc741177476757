"""The layers of the package, read from its imports: nothing imports upwards, and peers leave each other alone."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "affect_hpc"
MAX_LINES = 350
COMMANDS = ("launch", "status", "cancel", "rerun")
PEERS = ("data", "models", "diffusion", "experts", "train")
BELOW: dict[str, tuple[str, ...]] = {
    "core": (),
    "config": ("core",),
    "hpc": ("core", "config"),
    **dict.fromkeys(PEERS, ("core", "config")),
    "losses": ("core", "config", *PEERS),
    "metrics": ("core", "config", *PEERS),
    "report": ("core", "config", *PEERS, "losses", "metrics"),
    "stages": ("core", "config", *PEERS, "losses", "metrics", "report"),
    "photos": ("core", "config", "hpc", *PEERS, "losses", "metrics", "report", "stages"),
    **dict.fromkeys(COMMANDS, ("core", "config", "hpc")),
    "edit": ("core", "config", "photos"),
    "explain": ("core", "config", "hpc", "report"),
    "__init__": (),
}
"""Layer -> the layers it may import besides itself."""
TORCH_FREE = ("core", "config", "hpc", *COMMANDS, "edit", "explain")
HEAVY = ("torch", "torchvision", "deepspeed", "diffusers", "transformers", "tensorboard", "lpips")
ONLY_IN = {"submitit": "hpc/executors.py", "deepspeed": "train/deepspeed_engine.py"}


def modules_imported(source: str) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function; relative imports begin with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            # ``from affect_hpc import hpc`` names a layer too.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layer_of(path: Path) -> str:
    """First folder below the package, or the name of a file that stands in it directly."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def violations(layer: str, source: str) -> list[str]:
    """What a file of ``layer`` imports and may not."""
    found = []
    for module in modules_imported(source):
        first, _, rest = module.partition(".")
        target = rest.partition(".")[0]
        upward = first == "affect_hpc" and target in BELOW and target not in (layer, *BELOW[layer])
        heavy = first in HEAVY and layer in TORCH_FREE
        if upward or heavy or module.startswith(".") or first in ("tools", "tests"):
            found.append(module)
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    layer = layer_of(path)
    assert layer in BELOW, f"{path} belongs to no layer: give it one in this test and in docs/architecture.md"
    assert not violations(layer, path.read_text()), f"{layer} may import {', '.join(BELOW[layer]) or 'no layer'}"


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("core", "from affect_hpc.config.root import Config"),
        ("config", "def f():\n    import affect_hpc.hpc.plans"),
        ("hpc", "from affect_hpc import stages"),
        ("hpc", "import torch.nn as nn"),
        ("launch", "def f():\n    from torch import Tensor"),
        ("data", "from affect_hpc.models.ldm import LatentDiffusion"),
        ("losses", "import affect_hpc.metrics.base"),
        ("report", "from affect_hpc.stages.reduce import run"),
        ("stages", "from ..hpc import worker"),
        ("stages", "from affect_hpc.photos.model import Model"),
        ("edit", "from affect_hpc.hpc.planner import PACKAGED"),
        ("train", "import tools.install_experts"),
    ],
)
def test_the_test_sees_forbidden_imports(layer: str, source: str) -> None:
    assert violations(layer, source)


def test_the_test_lets_good_imports_pass() -> None:
    assert not violations(
        "stages", "import torch\nfrom affect_hpc.report import html\nfrom affect_hpc.core.io import x"
    )
    assert not violations("data", "from affect_hpc.data.corpora.demo.source import DemoSource")


@pytest.mark.parametrize("package", ONLY_IN)
def test_package_is_imported_in_one_file(package: str) -> None:
    users = [
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if any(module.split(".")[0] == package for module in modules_imported(path.read_text()))
    ]
    assert users == [ONLY_IN[package]]


def test_no_file_is_long() -> None:
    files = [path for folder in ("affect_hpc", "tools", "slurm", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert {str(path): lines for path in files if (lines := len(path.read_text().splitlines())) > MAX_LINES} == {}


def test_a_dry_run_loads_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "import affect_hpc.launch\n"
        "import affect_hpc.config.available as available\n"
        "assert 'hydra' in sys.modules and 'torch' not in sys.modules\n"
        "available.packaged.missing = lambda name, folder='': []  # whatever weights this machine has\n"
        "words = ['dry_run=true', 'cluster=slurm', 'use.first_stage=train']\n"
        f"code = affect_hpc.launch.main([*words, 'store={tmp_path}'])\n"
        f"loaded = sorted(set(sys.modules) & set({HEAVY!r}))\n"
        "assert not loaded, loaded\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "submitted=0" in done.stdout
    assert not any(tmp_path.iterdir()), "a dry run leaves no trace"
