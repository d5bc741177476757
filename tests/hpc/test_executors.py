"""The text that sbatch gets, and the command of a job."""

import subprocess
from pathlib import Path

import pytest

from affect_hpc.config.cluster import ClusterConfig, ExecutorName, Resources
from affect_hpc.hpc import executors

GPU = Resources(nodes=2, tasks_per_node=4, cpus_per_task=8, gpus_per_node=4, mem_gb=1.5, timeout_min=90)


def options(text: str) -> dict[str, str]:
    """sbatch options, name -> value."""
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH --")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def text_of(cluster: ClusterConfig, dependency: str = "", hold: bool = False, code: Path | None = None) -> str:
    request = executors.ArrayRequest(Path("/store/runs/_arrays"), "affect-x", [0, 3, 7], GPU, dependency, hold, code)
    return executors.array_text(request, cluster)


def cluster(**values: object) -> ClusterConfig:
    made = ClusterConfig("here", ExecutorName.slurm, array_parallelism=16)
    for key, value in values.items():
        setattr(made, key, value)
    return made


def test_resources_and_indices_arrive() -> None:
    found = options(text_of(cluster(partition="gpu", account="lab", signal_delay_s=45)))
    expected = {
        **{"array": "0,3,7%16", "nodes": "2", "ntasks-per-node": "4", "cpus-per-task": "8", "gpus-per-node": "4"},
        **{"mem": "1536M", "time": "90", "partition": "gpu", "account": "lab", "signal": "USR2@45"},
        **{"job-name": "affect-x", "kill-on-invalid-dep": "yes", "requeue": "", "open-mode": "append"},
    }
    assert expected.items() <= found.items()
    assert not {"dependency", "hold", "qos", "constraint", "gres"} & found.keys()


def test_dependency_hold_and_further_options() -> None:
    text = text_of(cluster(gres="gpu:a100:4", extra={"nice": "10"}), "aftercorr:7,afterok:8:9_1", hold=True)
    found = options(text)
    assert found["dependency"].strip("'") == "aftercorr:7,afterok:8:9_1"
    assert "hold" in found and found["nice"] == "10"
    assert found["gres"] == "gpu:a100:4" and "gpus-per-node" not in found


def test_a_job_runs_archived_code_in_its_own_environment(tmp_path: Path) -> None:
    code = tmp_path / "code of a commit"
    code.mkdir()
    text = text_of(cluster(env={"NAME": "two words"}, setup=["export FIRST=1"]), code=code)
    setup = text.split("# setup\n")[1].split("\n# command")[0]
    asked = f'{setup}\nprintf "%s|%s|%s|%s|%s" "$FIRST" "$NAME" "$PYTHONPATH" "$PWD" "$OMP_NUM_THREADS"'
    done = subprocess.run(
        ["bash", "-c", asked], capture_output=True, text=True, env={"PYTHONPATH": "/mine"}, check=True
    )
    assert done.stdout == f"1|two words|{code}:/mine|{code}|8"


def test_the_command_names_the_index_file() -> None:
    last = text_of(cluster()).rstrip().splitlines()[-1]
    assert last.endswith("-m affect_hpc.hpc.worker --array /store/runs/_arrays/affect-x.json")
    assert last.startswith("srun ")


@pytest.mark.parametrize("word", ["a b", "it's", "$HOME", "ä"])
def test_paths_survive_the_shell(word: str) -> None:
    command = executors.worker_command(f"/store/{word}")
    done = subprocess.run(
        ["bash", "-c", f'set -- {command}; printf %s "${{@: -1}}"'], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"/store/{word}"
