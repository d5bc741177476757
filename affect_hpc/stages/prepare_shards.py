"""Corpus -> aligned crops in WebDataset shards, with a manifest of what was left out and why."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import torch

from affect_hpc.config.data import DemoDataConfig, FolderDataConfig, LabelFrom
from affect_hpc.config.stages import PrepareShardsConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import canonical
from affect_hpc.core.io import write_json
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import encode_png, images_to_tensor
from affect_hpc.data.demo.source import DemoSource
from affect_hpc.data.folder import FolderSource
from affect_hpc.data.shards import ShardWriter
from affect_hpc.data.source import Face, Source
from affect_hpc.experts.registry import EmotionJudge, load_emotion

LABEL_BATCH = 16
"""Faces that the labelling expert sees at once; a shard's faces always make the same batches."""


def source_of(config: Any) -> Source:
    """The corpus that a data config describes. A new corpus is one class and one line here."""
    if isinstance(config, DemoDataConfig):
        return DemoSource(config)
    if isinstance(config, FolderDataConfig):
        return FolderSource(config)
    raise UserError(f"data={config.name} has no source: the corpora are demo and folder.")


def run(cfg: PrepareShardsConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Write this part's share of the shards."""
    torch.set_num_threads(1)
    source = source_of(cfg.data)
    plans = source.shards()
    mine = [plans[i] for i in place.slice(len(plans))]
    labeller = None
    if isinstance(cfg.data, FolderDataConfig) and cfg.data.label is LabelFrom.pseudo:
        labeller = load_emotion(cfg.data.labeller, cfg.data.experts_folder, None)
    counts: Counter[str] = Counter()
    with Progress("prepare_shards", sum(plan.weight for plan in mine), "face") as progress:
        for plan in mine:
            with ShardWriter(place.out / plan.split, plan.name) as writer:
                for face in _labelled(source, plan, labeller):
                    assert face.label is not None, "labels are filled in above"
                    members = {"png": encode_png(face.image)}
                    members |= {f"truth_{emotion}.png": encode_png(image) for emotion, image in face.truth.items()}
                    info = {"label": face.label, "identity": face.identity, "source": face.source}
                    members["json"] = json.dumps(info, sort_keys=True).encode()
                    writer.write(face.key, members, info)
                    counts[f"{plan.split}/{EMOTIONS[face.label]}"] += 1
                    progress.advance(1)
    source.verdict()
    for split in sorted({plan.split for plan in mine}):
        if not any(name.startswith(f"{split}/") for name in counts) and len(mine) == len(plans):
            raise UserError(
                f"no usable face is left in the {split} split: add files to data.root, or mend those left out."
            )
    manifest = {
        "data": canonical(cfg.data),
        "shards": [f"{plan.split}/{plan.name}" for plan in mine],
        "counts": dict(sorted(counts.items())),
        "findings": dict(sorted(source.findings().items())),
        "left_out": dict(sorted(source.left_out().items())),
        "labels": labeller.name if labeller is not None else "given by the corpus",
    }
    write_json(place.out / "manifest.json", manifest)
    return Outcome({"faces": counts.total(), "left_out": len(source.left_out())})


def _labelled(source: Source, plan: Any, labeller: EmotionJudge | None) -> Any:
    """The faces of a shard, with the expert's label where the corpus has none."""
    if labeller is None:
        yield from source.faces(plan)
        return
    waiting: list[Face] = []
    for face in source.faces(plan):
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
