"""Corpus -> aligned crops in WebDataset shards, with a manifest of what was left out and why."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from affect_hpc.config import terms
from affect_hpc.config.corpora import (
    AffectNetDataConfig,
    DemoClipsDataConfig,
    DemoDataConfig,
    FolderDataConfig,
    GatedDataConfig,
    MeadDataConfig,
)
from affect_hpc.config.data import DataConfig
from affect_hpc.config.stages import PrepareShardsConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import canonical
from affect_hpc.core.io import write_json, write_text
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import images_to_tensor
from affect_hpc.data.corpora.affectnet import AffectNetSource
from affect_hpc.data.corpora.demo.clips import DemoClipsSource
from affect_hpc.data.corpora.demo.source import DemoSource
from affect_hpc.data.corpora.folder import FolderSource
from affect_hpc.data.corpora.mead import MeadSource
from affect_hpc.data.corpora.source import Clip, Face, ShardPlan, Source
from affect_hpc.data.shards import ShardWriter
from affect_hpc.experts.registry import EmotionJudge, load_emotion

LABEL_BATCH = 16
"""Faces that the labelling expert sees at once; a shard's faces always make the same batches."""
UNITS = {False: "face", True: "clip"}

SOURCES: dict[type[DataConfig], Callable[[Any], Source]] = {
    DemoDataConfig: DemoSource,
    DemoClipsDataConfig: DemoClipsSource,
    FolderDataConfig: FolderSource,
    AffectNetDataConfig: AffectNetSource,
    MeadDataConfig: MeadSource,
}


def run(cfg: PrepareShardsConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Write this part's share of the shards."""
    torch.set_num_threads(1)
    data = cfg.data
    conditions: dict[str, Any] = {}
    if isinstance(data, GatedDataConfig):
        # The plan has asked too; but a job may be run by hand, or long after.
        terms.require_accepted(data.name, Path(data.licences))
        conditions = {data.name: terms.summary(data.name)}
        write_json(place.out / terms.FILE, conditions)
    source = SOURCES[type(data)](data)
    plans = source.shards()
    mine = [plans[i] for i in place.slice(len(plans))]
    labeller = None
    if isinstance(data, FolderDataConfig) and data.labeller_in_use:
        labeller = load_emotion(data.labeller, data.experts_folder, None)
    counts: Counter[str] = Counter()
    with Progress("prepare_shards", sum(plan.weight for plan in mine), UNITS[data.holds_clips]) as progress:
        for plan in mine:
            with ShardWriter(place.out / plan.split, plan.name) as writer:
                for sample in _labelled(source, plan, labeller):
                    assert sample.label is not None, "labels are filled in above"
                    writer.write(sample.key, sample.members(), sample.info())
                    counts[f"{plan.split}/{EMOTIONS[sample.label]}"] += 1
                    progress.advance(1)
    source.verdict()
    for split in sorted({plan.split for plan in mine}):
        if not any(name.startswith(f"{split}/") for name in counts) and len(mine) == len(plans):
            raise UserError(
                f"nothing usable is left in the {split} split: add files to data.root, or mend those left out."
            )
    findings = source.findings
    manifest = {
        "data": canonical(data),
        "shards": [f"{plan.split}/{plan.name}" for plan in mine],
        "counts": dict(sorted(counts.items())),
        "findings": findings.counts(),
        "facts": source.facts(),
        "terms": conditions,
        "labels": labeller.name if labeller is not None else "given by the corpus",
    }
    write_json(place.out / "manifest.json", manifest)
    write_text(place.out / "findings.jsonl", "".join(f"{json.dumps(entry)}\n" for entry in findings.entries))
    return Outcome({"samples": counts.total(), "left_out": len(findings.left_out())})


def _labelled(source: Source, plan: ShardPlan, labeller: EmotionJudge | None) -> Iterator[Face | Clip]:
    """The samples of a shard, with the expert's label where the corpus has none."""
    if labeller is None:
        yield from source.samples(plan)
        return
    waiting: list[Face] = []
    for face in source.samples(plan):
        assert isinstance(face, Face), "only faces are labelled by an expert"
        waiting.append(face)
        if len(waiting) == LABEL_BATCH:
            yield from _ask(waiting, labeller)
            waiting = []
    if waiting:
        yield from _ask(waiting, labeller)


def _ask(faces: list[Face], labeller: EmotionJudge) -> list[Face]:
    with torch.inference_mode():
        best = labeller.probabilities(images_to_tensor([face.image for face in faces])).argmax(dim=1)
    return [
        replace(face, label=EMOTIONS.index(labeller.classes[int(index)]))
        for face, index in zip(faces, best, strict=True)
    ]
