"""Stopped at every step and killed at random moments, a training of two ranks ends with the same bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ml_world import Chain

HERE = Path(__file__).parent
STOPS = os.environ.get("AFFECT_HPC_STOPS", "6")
KILLS = os.environ.get("AFFECT_HPC_KILLS", "2")
"""Of the law as it was stated: 20 and 30."""


@pytest.mark.parametrize("kind", ["train_vqgan", "train_ldm", "train_classifier"])
def test_no_interruption_changes_a_bit(chain: Chain, tmp_path: Path, kind: str) -> None:
    command = [sys.executable, str(HERE / "resume_law.py"), str(chain.root), str(tmp_path), kind]
    command += ["--steps", STOPS, "--kills", KILLS]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SUBMITIT"))}
    environment |= {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent)]), "OMP_NUM_THREADS": "1"}
    environment["CUDA_VISIBLE_DEVICES"] = ""  # NCCL takes no two ranks on one GPU
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    assert "digests equal" in done.stdout
