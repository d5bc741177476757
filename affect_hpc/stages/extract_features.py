"""What networks see in faces: the rows by which whole sets of faces are compared."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from affect_hpc.config.drawing import ExtractFeaturesConfig
from affect_hpc.core.blocks import own_blocks
from affect_hpc.core.io import read_json_if_there, write_json
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.images import ImageSet
from affect_hpc.experts.registry import load_features
from affect_hpc.metrics.features import FeatureSet, Float32
from affect_hpc.metrics.fingerprint import fingerprint
from affect_hpc.stages.generate import DESCRIPTION
from affect_hpc.train.comm import Ranks, device_of

log = logging.getLogger(__name__)

FEATURES, MANIFOLD = "features", "manifold"
"""Names of the two sets: of FID and KID, and of precision and recall."""


def run(cfg: ExtractFeaturesConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Look at this part's faces, in fixed blocks.

    Reads: images (drawn faces, or the corpus with ``cfg.split``). Writes: the sets ``features`` and ``manifold``; with
    drawn faces also how these were drawn.
    """
    torch.set_num_threads(cfg.threads)
    folders = [folder / cfg.split for folder in inputs.many("images")]
    images = ImageSet.open(folders)
    device = device_of(Ranks.of_environment())
    names = {FEATURES: cfg.features, MANIFOLD: cfg.manifold_features}
    judges: dict[str, Any] = {name: load_features(name, cfg.folder) for name in dict.fromkeys(names.values())}
    for judge in judges.values():
        judge.to(device)
    mine = own_blocks(len(images), cfg.batch_size, inputs, place, "images")
    rows: dict[str, list[Float32]] = {name: [] for name in judges}
    with Progress("extract_features", sum(map(len, mine)), "face") as progress, torch.inference_mode():
        for block in mine:
            faces = images.batch(block).to(device)
            for name, judge in judges.items():
                rows[name].append(judge.features(faces).float().cpu().numpy())
            progress.advance(len(block))
    keys = [images.shards[i].key for block in mine for i in block]
    labels = [int(images.shards.labels[i]) for block in mine for i in block]
    known = {name: _described(name, judge) for name, judge in judges.items()}
    for kind, name in names.items():
        found = np.concatenate([np.empty((0, judges[name].dim), np.float32), *rows[name]])
        FeatureSet.of(known[name], keys, labels, found).save(place.out, kind)
    settings = read_json_if_there(folders[0] / DESCRIPTION)
    if settings is not None:
        write_json(place.out / DESCRIPTION, settings)
    log.info("looked at %d of %d faces", len(keys), len(images))
    return Outcome({"faces": len(keys), **names})


def _described(name: str, judge: Any) -> Mapping[str, str]:
    return {"name": name, "digest": fingerprint(judge)}
