"""Judge edited faces, or the unedited ones: one mergeable state per part, one line per image."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from affect_hpc.config.stages import EvaluateConfig
from affect_hpc.core.blocks import own_blocks
from affect_hpc.core.emotions import EMOTIONS, TARGETS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, write_json, write_text
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import decode_png
from affect_hpc.data.shards import ShardSet
from affect_hpc.experts.registry import load_emotion, load_identity, load_perceptual
from affect_hpc.metrics.suite import Faces, Judges, Score, SuiteState, describe, keys_digest, score
from affect_hpc.stages.manipulate import ROUND_TRIP
from affect_hpc.stages.precompute_latents import CERTIFICATE
from affect_hpc.train.comm import Ranks, device_of

log = logging.getLogger(__name__)

ORIGINAL = "png"
NONE = "none"
"""Name of a second judge that is not there."""
CERTIFIED = ("round_trip_db", "residual", "calls")
"""Figures of a certificate that are columns of their own."""


def run(cfg: EvaluateConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Judge this part's blocks of samples.

    Reads: shards (val), reconstruction, images (unless ``cfg.baseline``), referee (where it judges).
    Writes: ``state.json``, ``samples.jsonl``, ``judges.json``.
    """
    torch.set_num_threads(cfg.threads)
    shards = ShardSet.open([folder / "val" for folder in inputs.many("shards")])
    count = min(cfg.num_samples or len(shards), len(shards))
    mine = own_blocks(count, cfg.batch_size, inputs, place, "shards")
    judges = load_judges(cfg, inputs).on(device_of(Ranks.of_environment()))

    state, lines = SuiteState(), []
    with Progress("evaluate", total=sum(map(len, mine)), unit="face") as progress, torch.inference_mode():
        for block, scores in zip(mine, judged(cfg, inputs, judges, shards, mine), strict=True):
            for place_in_block, i in enumerate(block):
                sample = shards[i]
                rows = {name: row[place_in_block] for name, row in scores.items()}
                lines += [sample_line(sample.key, sample.label, name, one) for name, one in rows.items()]
                named = with_label_rows(rows, EMOTIONS[sample.label]) if cfg.baseline else rows
                state = state.add(sample.key, named, judges.emotion.classes)
            progress.advance(len(block))

    keys = [shards[i].key for i in range(count)]
    content = {
        "point": {"baseline": cfg.baseline, **setting_of(inputs.many("images"))},
        "targets": list(cfg.targets),
        "expected": {"count": count, "digest": keys_digest(keys)},
        "judges": describe(judges),
        "state": state.to_json(),
    }
    write_json(place.out / "judges.json", describe(judges))
    write_text(place.out / "samples.jsonl", "".join(lines))
    write_json(place.out / "state.json", content)
    log.info("judged %d of %d faces", len(state.keys), count)
    return Outcome({"samples": len(state.keys), "emotion": judges.emotion.name, "perceptual": judges.perceptual.name})


def setting_of(images: Sequence[Path]) -> Mapping[str, Any]:
    """How the faces were edited, as their stage says; empty for the baseline."""
    return read_json(images[0] / "edit.json") if images else {}


def load_judges(cfg: EvaluateConfig, inputs: Inputs) -> Judges:
    """The judges that the config names."""
    folder, experts = cfg.experts.folder, cfg.experts
    referee = inputs.one("referee") if inputs.many("referee") else None
    return Judges(
        load_emotion(experts.emotion, folder, referee),
        load_identity(experts.identity, folder, referee),
        load_perceptual(experts.perceptual, folder),
        None if experts.second_emotion == NONE else load_emotion(experts.second_emotion, folder, referee),
        None if experts.second_identity == NONE else load_identity(experts.second_identity, folder, referee),
    )


def judged(
    cfg: EvaluateConfig, inputs: Inputs, judges: Judges, shards: ShardSet, todo: Sequence[range]
) -> Iterator[Mapping[str, list[Score]]]:
    """For each block: row -> one score per sample."""
    if not todo:  # more parts than blocks: this one has nothing to look at
        return
    reconstructions = ShardSet.open(inputs.many("reconstruction"))
    edits = None if cfg.baseline else ShardSet.open(inputs.many("images"))
    for block in todo:
        keys = [shards[i].key for i in block]
        labels = [EMOTIONS[shards[i].label] for i in block]
        references = {
            "original": read_faces(shards, keys, ORIGINAL, judges),
            "reconstruction": read_faces(reconstructions, keys, "reconstruction.png", judges),
        }
        for target in cfg.targets or TARGETS:
            if all(shards.has(i, f"truth_{target}.png") for i in block):
                references[f"truth_{target}"] = read_faces(shards, keys, f"truth_{target}.png", judges)
        if edits is None:
            yield judge_baseline(references, labels)
        else:
            yield judge_edits(cfg.targets, edits, keys, labels, references)


def judge_edits(
    targets: Sequence[str],
    edits: ShardSet,
    keys: Sequence[str],
    labels: Sequence[str],
    references: Mapping[str, Faces],
) -> dict[str, list[Score]]:
    """One row per target, and the round trip where it was made. The main reference is the reconstruction (D-20)."""
    original, reconstruction = references["original"], references["reconstruction"]
    judges = original.judges
    main = {"": reconstruction, "_original": original}
    rows = {}
    for target in targets:
        faces = read_faces(edits, keys, f"{target}.png", judges)
        truth = references.get(f"truth_{target}")
        rows[target] = score(faces, main | ({"_truth": truth} if truth else {}), [target] * len(keys))
    if all(edits.has(edits.index_of(key), f"{ROUND_TRIP}.png") for key in keys):
        rows[ROUND_TRIP] = score(read_faces(edits, keys, f"{ROUND_TRIP}.png", judges), main, labels)
    certificates = [edits[edits.index_of(key)].info[CERTIFICATE] for key in keys]
    return {name: [certified(*pair) for pair in zip(row, certificates, strict=True)] for name, row in rows.items()}


def certified(one: Score, certificate: Mapping[str, Any]) -> Score:
    """A score with what the inversion behind the image is worth."""
    return Score({**one.values, **{name: float(certificate[name]) for name in CERTIFIED}}, one.seen)


def judge_baseline(references: Mapping[str, Faces], labels: Sequence[str]) -> dict[str, list[Score]]:
    """Rows of the faces that nobody edited: what the first stage costs, and what doing nothing gives."""
    original, reconstruction = references["original"], references["reconstruction"]
    rows = {
        "reconstruction": score(reconstruction, {"": original, "_original": original}, labels),
        "unedited": score(original, {}, labels),
    }
    for name, truth in references.items():
        if name.startswith("truth_"):
            target = name.removeprefix("truth_")
            wanted = [target] * len(labels)
            rows[f"reconstruction_as_{target}"] = score(reconstruction, {"_truth": truth}, wanted)
            rows[f"unedited_as_{target}"] = score(original, {"_truth": truth}, wanted)
    return rows


def with_label_rows(rows: Mapping[str, Score], label: str) -> dict[str, Score]:
    """The rows of a baseline sample, and those of its true label."""
    return {**rows, **{f"{name}_label_{label}": rows[name] for name in ("reconstruction", "unedited")}}


def read_faces(shards: ShardSet, keys: Sequence[str], member: str, judges: Judges) -> Faces:
    """The member ``member`` of the samples ``keys``.

    Raises:
        UserError: where a sample or its member is absent.
    """
    absent = [key for key in keys if key not in shards or not shards.has(shards.index_of(key), member)]
    if absent:
        raise UserError(
            f"{absent[0]}.{member} is missing ({len(absent)} of {len(keys)} faces of a block): edits, reconstructions"
            " and evaluation must cover the same faces. Give the three stages the same edit.num_samples and "
            "batch_size."
        )
    return Faces([decode_png(shards.read(shards.index_of(key), member)) for key in keys], judges)


def sample_line(key: str, label: int, row: str, one: Score) -> str:
    """One line of samples.jsonl: floats in full, so that they read back to the same bits."""
    content: dict[str, Any] = {"key": key, "label": EMOTIONS[label], "row": row, "seen": one.seen, **one.values}
    return json.dumps(content, allow_nan=False) + "\n"
