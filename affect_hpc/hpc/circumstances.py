"""Under what circumstances an element ran: code, packages, device. Told by DONE, never part of a signature.

Asks torch only where the stage has loaded it: a launcher never does.
"""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "diffusers", "deepspeed", "transformers", "numpy", "affect_hpc")
"""Whose versions are told, where the element's process has imported them."""
PACKAGE = Path(__file__).resolve().parent.parent
ARCHIVES = "_code"
"""Folder below runs/ whose folders are commits: what queued jobs run."""
WORLDS = ("SUBMITIT_LOCAL_NTASKS", "SLURM_NTASKS", "WORLD_SIZE")
"""Environment variables that say how many ranks share an element; the first one that is there counts."""


def commit(package: Path = PACKAGE) -> str | None:
    """Commit of the code that runs, ``+changes`` behind it where files differ; None where git knows none."""
    root = package.parent
    if root.parent.name == ARCHIVES:
        return root.name
    # A package that was installed into somebody's checkout is no file of that checkout.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    head, changed = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    return f"{head}+changes" if head and changed else head


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Python's version and those of the ``PACKAGES`` that this process has imported."""
    found = {"python": platform.python_version()}
    return found | {name: metadata.version(name) for name in PACKAGES if name in sys.modules}


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Model of the processor, or its architecture where the kernel names no model."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def of_element() -> dict[str, Any]:
    """What this process, the first rank of an element, tells of it.

    Returns:
        code: commit or None. versions: by package. device: name of what this rank computed on. gpus: how many ranks
        computed on a GPU, 0 or ``ranks`` (a rank has one). ranks: how many shared the element.
    """
    torch = sys.modules.get("torch")
    gpu = torch is not None and torch.cuda.is_initialized()
    ranks = next((int(os.environ[name]) for name in WORLDS if name in os.environ), 1)
    return {
        "code": commit(),
        "versions": versions(),
        "device": torch.cuda.get_device_name() if torch is not None and gpu else cpu_name(),
        "gpus": ranks if gpu else 0,
        "ranks": ranks,
    }
