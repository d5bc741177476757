"""What a job runs: one element, given by its folder alone.

``python -m affect_hpc.hpc.worker runs/train_ldm/7983e2a3de`` repeats any job by hand; it does nothing where DONE is.
"""

import argparse
import errno
import importlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from affect_hpc.config import provenance, terms
from affect_hpc.core import logs
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, read_json_if_there, write_json
from affect_hpc.core.progress import PROGRESS_FILE
from affect_hpc.core.rundir import HANG, Inputs, Outcome, PartDir, RunDir, Workplace
from affect_hpc.core.stop import STOP, Stopped
from affect_hpc.hpc import circumstances
from affect_hpc.hpc.catalog import CATALOG

log = logging.getLogger(__name__)

EXIT_FAILED, EXIT_USER, EXIT_STOPPED = 1, 2, 143
LOCAL_AGAIN = 144
"""Exit code by which submitit's local controller starts a job again."""
MOST_BEGINNINGS = 3
"""How often a stage without intermediate state is begun when signals interrupt it."""
INPUT_PATIENCE_S = 30.0
"""How long a parent's DONE may take to show on a shared file system."""


def split(folder: Path) -> tuple[RunDir, int]:
    """Run and part number that the folder of an element stands for."""
    folder = folder.absolute()
    if folder.parent.name == "parts":
        return RunDir(folder.parent.parent), int(folder.name)
    return RunDir(folder), 0


def stage_config(run: RunDir, kind: str) -> Any:
    """The config of a run as the dataclass of its stage."""
    # The data config's class is told by its name, all others by their annotation.
    from affect_hpc.config.corpora import CORPORA  # noqa: PLC0415

    loaded = OmegaConf.load(run.path / "config.yaml")
    schema = OmegaConf.structured(CATALOG[kind].config)
    if "data" in loaded:
        schema.data = OmegaConf.structured(CORPORA[loaded.data.name])
    return OmegaConf.to_object(OmegaConf.merge(schema, loaded))


def gather_inputs(run: RunDir, part: int) -> Inputs:
    """The output folders of the parents, once all of them are done.

    Raises:
        UserError: where one is not done: SLURM can satisfy a dependency without a word when it has forgotten the job.
    """
    store = run.path.parent.parent.parent
    roles: dict[str, tuple[Path, ...]] = {}
    own: set[str] = set()
    for role, entries in read_json(run.path / "inputs.json").items():
        folders: list[Path] = []
        for entry in entries:
            if "path" in entry:
                folders.append(Path(entry["path"]))
                continue
            parent = RunDir(store / "runs" / entry["run"])
            parts = [parent.parts()[part]] if entry["each"] else parent.parts()
            if entry["each"] and len(parent.parts()) > 1:
                own.add(role)
            for element in parts:
                _await_done(element)
                folders.append(element.out)
        roles[role] = tuple(folders)
    return Inputs(roles, frozenset(own))


def _await_done(element: PartDir) -> None:
    deadline = time.monotonic() + INPUT_PATIENCE_S
    while not element.is_done():
        if time.monotonic() > deadline:
            raise UserError(
                f"the input {element.path} is not DONE: run it first, or `python -m affect_hpc.rerun` the sweep."
            )
        time.sleep(0.5)


def rank_of_process() -> int:
    """Global rank of this process, 0 where it is alone."""
    for name in ("SLURM_PROCID", "SUBMITIT_LOCAL_GLOBALID", "RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def run_element(folder: Path) -> int:
    """Do the work of one element; returns the exit code. Failures are written to FAILED and said on standard error."""
    run, part = split(folder)
    spec = run.spec()
    if spec is None:
        print(f"{folder} is no run folder: it has no spec.json.", file=sys.stderr)
        return EXIT_USER
    place = run.parts()[part]
    if place.is_done():
        print(f"{place.path} is done.", file=sys.stderr)
        return 0
    chief = rank_of_process() == 0
    began = time.monotonic()
    try:
        if chief:
            os.environ[PROGRESS_FILE] = str(place.progress)
            place.begin_attempt()
        outcome = _run_stage(run, spec, place, part, chief)
        if outcome.stopped:
            return _stopped(place, chief)
        if chief:
            place.finish(place.aside(), outcome, time.monotonic() - began, circumstances.of_element())
            run.settle()
    except UserError as error:
        return _failed(place, chief, str(error), "user", EXIT_USER)
    except Stopped as error:
        if STOP.received is signal.SIGUSR2 and place.attempts() < MOST_BEGINNINGS:
            return _again(place, chief)
        return _failed(place, chief, f"{error}, and this stage keeps no state between", "stopped", EXIT_STOPPED)
    except BaseException as error:
        # Whatever ends a stage must leave a FAILED and an exit code that stops the jobs that wait for it.
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            way_out = "free some space there (or set store=DIR) and launch again."
            return _failed(place, chief, f"the disk that holds {place.path} is full: {way_out}", "user", EXIT_USER)
        traceback.print_exc()
        return _failed(place, chief, f"{type(error).__name__}: {error}".splitlines()[0], "error", EXIT_FAILED)
    return 0


def _run_stage(run: RunDir, spec: dict[str, Any], place: PartDir, part: int, chief: bool) -> Outcome:
    config = stage_config(run, spec["kind"])
    inputs = gather_inputs(run, part)
    aside = place.aside()
    if chief:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        place.keep.mkdir(exist_ok=True)
    log.info("%s part %d of %d", run.name, part, spec["parts"])
    stage = importlib.import_module(f"affect_hpc.stages.{spec['stage']}")
    signer = run.path.parent.parent.parent / provenance.FOLDER
    outcome: Outcome = stage.run(config, inputs, Workplace(aside, place.keep, part, spec["parts"], signer))
    if chief and not outcome.stopped:
        carry_terms(inputs, aside)
    return outcome


def carry_terms(inputs: Inputs, out: Path) -> None:
    """Put the terms of all corpora that this output hangs on beside it."""
    found: dict[str, Any] = {}
    for folder in (*(folder for folders in inputs.roles.values() for folder in folders), out):
        found |= read_json_if_there(folder / terms.FILE) or {}
    if found:
        write_json(out / terms.FILE, found)


def _failed(place: PartDir, chief: bool, message: str, kind: str, code: int) -> int:
    print(f"failed: {message}", file=sys.stderr, flush=True)
    if chief:
        # First give back what was half-written: on a full disk there is room for the marker only then.
        shutil.rmtree(place.aside(), ignore_errors=True)
        if (place.failure() or {}).get("kind") != HANG:
            place.fail(message, kind)
    return code


def _stopped(place: PartDir, chief: bool) -> int:
    """State is saved; ask to be started again unless we were told to end."""
    if chief:
        place.take_back_attempt()
    if STOP.received is signal.SIGUSR2:
        return _again(place, chief)
    if chief:
        shutil.rmtree(place.aside(), ignore_errors=True)
    print("stopped by SIGTERM; the state is saved, the next launch goes on from it.", file=sys.stderr)
    return EXIT_STOPPED


def _again(place: PartDir, chief: bool) -> int:
    """Have this job started again under its own id, so that what waits for it goes on waiting."""
    if chief:
        shutil.rmtree(place.aside(), ignore_errors=True)
    if "SLURM_JOB_ID" not in os.environ:
        return LOCAL_AGAIN
    if chief:
        array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        # The bare id of an array would start every element again.
        job = f"{array}_{element}" if array else os.environ["SLURM_JOB_ID"]
        subprocess.run(["scontrol", "requeue", job], check=False, timeout=60)
    return 0


def main() -> int:
    """Entry point of a job."""
    parser = argparse.ArgumentParser(prog="python -m affect_hpc.hpc.worker", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="run folders, or parts/<i> of divided runs")
    parser.add_argument("--array", type=Path, help="index file of an array: element $SLURM_ARRAY_TASK_ID is done")
    arguments = parser.parse_args()
    STOP.install()
    logs.set_up()
    folders = arguments.folders
    if arguments.array is not None:
        folders = [Path(read_json(arguments.array)["elements"][os.environ["SLURM_ARRAY_TASK_ID"]])]
    if not folders:
        parser.error("give a run folder or --array FILE")
    codes = []
    for folder in folders:
        codes.append(run_element(folder))
        if codes[-1] in (LOCAL_AGAIN, EXIT_STOPPED):
            break
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
