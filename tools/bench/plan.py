"""How long the launcher takes before it acts: --help, importing it, the plan of a 90-point sweep.

Each figure is the median of a few runs of the whole process, and its ratio to starting Python with Hydra alone in the
same run, so that machines can be compared.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).parent.parent.parent
ALL_TARGETS = "edit.targets=[happy],[sad],[surprised],[scared],[disgusted],[angry]"


def seconds(command: list[str], runs: int) -> float:
    """Median wall time of a command that must succeed."""
    taken = []
    for _ in range(runs):
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True, cwd=REPO)
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each command (default: 5)")
    runs = parser.parse_args().runs
    python = sys.executable
    with tempfile.TemporaryDirectory() as store:
        sweep = ["-m", "sweep=cfg_gamma", "edit.t0=400,500,600", ALL_TARGETS, f"store={store}", "dry_run=true"]
        commands = {
            "python with Hydra": [python, "-c", "import hydra"],
            "import affect_hpc.launch": [python, "-c", "import affect_hpc.launch"],
            "launch --help": [python, "-m", "affect_hpc.launch", "--help"],
            "plan of 90 points": [python, "-m", "affect_hpc.launch", *sweep],
        }
        base = 0.0
        for name, command in commands.items():
            taken = seconds(command, runs)
            base = base or taken
            print(f"{name:28s} {taken:6.2f} s   {taken / base:5.1f} times Python with Hydra")


if __name__ == "__main__":
    main()
