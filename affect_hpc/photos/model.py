"""Which model edits: found by a run, a store or a folder, with all that must fit it. Reads small files, no weights."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from affect_hpc.config import terms
from affect_hpc.config.available import landmarks_digest, settle_landmarks
from affect_hpc.config.compose import collect
from affect_hpc.config.corpora import FilesDataConfig
from affect_hpc.config.data import AlignConfig, CompatConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import folder_digest
from affect_hpc.core.io import read_json, read_json_if_there
from affect_hpc.core.rundir import RunDir
from affect_hpc.hpc.planner import PACKAGED
from affect_hpc.hpc.worker import stage_config
from affect_hpc.stages.marking import name_of

LDM_FILE, UNET_FILE, FIRST_STAGE_FILE = "ldm.json", "unet/config.json", "first_stage/config.json"


@dataclass(frozen=True)
class Model:
    """A latent diffusion model and its first stage, as folders."""

    ldm: Path
    """Output of train_ldm, or an imported model."""
    first_stage: Path
    """Output of train_vqgan, or an imported or packaged model."""

    @classmethod
    def find(cls, where: str, first_stage: str = "") -> "Model":
        """The model that a user names.

        Args:
            where: a train_ldm run or its out/, an imported model, or a store with one finished train_ldm run.
            first_stage: a folder, or package:NAME; empty for the one that the model was trained with.

        Raises:
            UserError: there is no such model, or its first stage is not to be found or does not fit.
        """
        ldm = _ldm_folder(Path(where).expanduser().absolute())
        model = cls(ldm, _named_first_stage(first_stage) if first_stage else _own_first_stage(ldm))
        channels = read_json(model.first_stage / FIRST_STAGE_FILE)["vq_embed_dim"]
        if channels != model._unet["in_channels"]:
            raise UserError(
                f"{model.first_stage} has latents of {channels} channels, {ldm} of {model._unet['in_channels']}: give"
                " --first-stage, the one that the model was trained with."
            )
        return model

    @property
    def name(self) -> str:
        """``train_ldm/<signature>``, or the name of an imported folder."""
        return name_of(self.ldm)

    @property
    def size(self) -> int:
        """Side of the crops that it edits, in px: that of its latents times the shrinkage of the first stage."""
        levels = read_json(self.first_stage / FIRST_STAGE_FILE)["block_out_channels"]
        return int(self._unet["sample_size"] * 2 ** (len(levels) - 1))

    @property
    def emotions(self) -> tuple[str, ...]:
        """Those that it knows, in the order of their ids."""
        return EMOTIONS[: self._described["condition"]["num_classes"]]

    @property
    def num_timesteps(self) -> int:
        """Levels of its diffusion process."""
        return int(self._described["diffusion"]["num_timesteps"])

    @property
    def terms(self) -> dict[str, Any]:
        """Corpus -> terms that bind all that is made with it."""
        found: dict[str, Any] = {}
        for folder in (self.ldm, self.first_stage):
            found |= read_json_if_there(folder / terms.FILE) or {}
        return found

    @cached_property
    def digests(self) -> dict[str, str]:
        """Network -> SHA-256 over its folder."""
        return {"ldm": folder_digest(self.ldm), "first_stage": folder_digest(self.first_stage)}

    def alignment(self, landmarks: str = "") -> tuple[AlignConfig, CompatConfig]:
        """How photos are cut for it: as its corpus was, where that was cut out of images; else as for data=folder.

        Whole photos are searched, and all their faces: images that a corpus first brings to one small size are
        portraits. Of several faces the largest counts, whatever the original code took.

        Args:
            landmarks: auto, fan or dlib; empty for the one of the corpus.

        Raises:
            UserError: the landmark network is not installed.
        """
        align, compat = _corpus_of(self.ldm) or _usual_alignment()
        backend = settle_landmarks(landmarks or align.landmarks)
        align = replace(align, landmarks=backend, landmarks_digest=landmarks_digest(backend), resize=[])
        return align, replace(compat, first_face=False)

    @cached_property
    def _unet(self) -> dict[str, Any]:
        return dict(read_json(self.ldm / UNET_FILE))

    @cached_property
    def _described(self) -> dict[str, Any]:
        return dict(read_json(self.ldm / LDM_FILE))


def _ldm_folder(where: Path) -> Path:
    for folder in (where, where / "out"):
        if (folder / LDM_FILE).is_file() and (folder / UNET_FILE).is_file():
            return folder
    runs = sorted((where / "runs" / "train_ldm").glob("*/"))
    done = [run for run in runs if RunDir(run).is_done()]
    if len(done) == 1:
        return done[0] / "out"
    if done:
        names = ", ".join(str(run) for run in done)
        raise UserError(f"--model={where} holds {len(done)} finished train_ldm runs: give one of {names}.")
    if runs or (where / "spec.json").exists():
        raise UserError(f"--model={where} is not finished: train it first, or give another model.")
    state = f"holds neither {LDM_FILE} with {UNET_FILE} nor runs/train_ldm" if where.exists() else "does not exist"
    raise UserError(f"--model={where} {state}: give a train_ldm run, a store that holds one, or an imported model.")


def _run_of(output: Path) -> RunDir | None:
    """The run of a store that made an output, if one did."""
    run = RunDir(output.parent)
    return run if output.name == "out" and run.spec() is not None else None


def _first_stage_in(*folders: Path) -> Path | None:
    return next((folder for folder in folders if (folder / FIRST_STAGE_FILE).is_file()), None)


def _named_first_stage(where: str) -> Path:
    folder = PACKAGED / where.removeprefix("package:") if where.startswith("package:") else Path(where).expanduser()
    found = _first_stage_in(folder, folder / "out")
    if found is None:
        known = ", ".join(f"package:{entry.name}" for entry in sorted(PACKAGED.glob("*/")))
        raise UserError(
            f"--first-stage={where} holds no {FIRST_STAGE_FILE}: give a folder that does, or one of {known}."
        )
    return found.absolute()


def _own_first_stage(ldm: Path) -> Path:
    """The one inside an imported model, or the one that a run was trained with."""
    if found := _first_stage_in(ldm):
        return found
    run = _run_of(ldm)
    if run is None:
        raise UserError(f"{ldm} does not say which first stage it was trained with: give --first-stage.")
    for entry in read_json(run.path / "inputs.json").get("first_stage", ()):
        if "run" in entry:
            candidates = [_parent(run, entry).path / "out"]
        else:
            # A given one may have moved since, with the whole package too: its content tells it.
            places = (Path(entry["path"]), *sorted(PACKAGED.glob("*/")))
            candidates = [place for place in places if place.is_dir() and folder_digest(place) == entry["digest"]]
        if found := _first_stage_in(*candidates):
            return found
    raise UserError(f"the first stage that {run.path} was trained with is gone or has changed: give --first-stage.")


def _parent(run: RunDir, entry: dict[str, Any]) -> RunDir:
    return RunDir(run.path.parent.parent / entry["run"])


def _ancestors(run: RunDir) -> Iterator[RunDir]:
    """The run itself and all runs that it goes back to."""
    yield run
    for entries in (read_json_if_there(run.path / "inputs.json") or {}).values():
        for entry in entries:
            if "run" in entry:
                yield from _ancestors(_parent(run, entry))


def _usual_alignment() -> tuple[AlignConfig, CompatConfig]:
    data = collect(["data=folder", "data.root=."])[0].data
    assert isinstance(data, FilesDataConfig)
    return data.align, data.compat


def _corpus_of(ldm: Path) -> tuple[AlignConfig, CompatConfig] | None:
    """How the crops were cut that a model has seen; None where they were drawn, or nothing is known of them."""
    run = _run_of(ldm)
    for ancestor in _ancestors(run) if run is not None else ():
        spec = ancestor.spec()
        if spec is not None and spec["kind"] == "prepare_shards":
            data = stage_config(ancestor, "prepare_shards").data
            return (data.align, data.compat) if isinstance(data, FilesDataConfig) else None
    return None
