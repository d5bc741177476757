"""FID, KID, precision and recall of drawn faces (thesis section 4.3.3, Table 4.1)."""

import logging
from collections.abc import Mapping
from typing import Any

from affect_hpc.config.drawing import JudgeGenerationConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import canonical
from affect_hpc.core.io import read_json, write_json
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.metrics.distribution import coverage, judge
from affect_hpc.metrics.features import FeatureSet
from affect_hpc.stages.extract_features import FEATURES, MANIFOLD
from affect_hpc.stages.generate import DESCRIPTION

log = logging.getLogger(__name__)

OVERALL, MEAN = "overall", "mean"
"""Rows: all drawn faces against some training faces of each emotion; the plain mean over the rows of emotions."""


def run(cfg: JudgeGenerationConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Reads: generated, real (the parts of extract_features). Writes: ``metrics.json``."""
    generated, real = inputs.many("generated"), inputs.many("real")
    ours, theirs = FeatureSet.load(generated, FEATURES), FeatureSet.load(real, FEATURES)
    names, left_out = comparable(ours, theirs, cfg.kid_subset)
    for emotion, count in left_out.items():
        log.warning("%s is left out: the corpus has %d faces of it, KID takes %d", emotion, count, cfg.kid_subset)
    some = cfg.real_per_class or None
    chosen = list(names)
    distances = judge(
        ours.of_labels(chosen),
        theirs.of_labels(chosen),
        names,
        some,
        seed=cfg.seed,
        subsets=cfg.kid_subsets,
        size=cfg.kid_subset,
    )
    judges = {FEATURES: dict(ours.judge)}
    # One set at a time: at the thesis' size they are gigabytes.
    ours, theirs = FeatureSet.load(generated, MANIFOLD), FeatureSet.load(real, MANIFOLD)
    covered = coverage(ours.of_labels(chosen), theirs.of_labels(chosen), names, some, k=cfg.k)
    judges[MANIFOLD] = dict(ours.judge)
    rows = [{**distance, **share} for distance, share in zip(distances, covered, strict=True)]
    content = {
        "point": read_json(generated[0] / DESCRIPTION),
        "judges": judges,
        "settings": canonical(cfg),
        "left_out": left_out,
        "rows": [*rows[:-1], mean_row(rows[:-1]), rows[-1]],
    }
    write_json(place.out / "metrics.json", content)
    overall = rows[-1]
    return Outcome({name: float(overall[name]) for name in ("fid", "kid", "precision", "recall")})


def comparable(generated: FeatureSet, real: FeatureSet, least: int) -> tuple[dict[int, str], dict[str, int]]:
    """Label -> emotion of what can be compared, and emotion -> number of real faces of what cannot.

    Raises:
        UserError: nothing can.
    """
    counts = {label: int((real.labels == label).sum()) for label in sorted(set(generated.labels.tolist()))}
    names = {label: EMOTIONS[label] for label, count in counts.items() if count >= least}
    if not names:
        raise UserError(
            f"no emotion has {least} faces in the train split (generation.kid_subset={least}), the largest"
            f" {max(counts.values(), default=0)}: give a smaller subset, or more faces."
        )
    return names, {EMOTIONS[label]: count for label, count in counts.items() if label not in names}


def mean_row(rows: list[dict[str, Any]]) -> Mapping[str, Any]:
    """The plain mean of the emotions' figures, as the thesis prints it."""
    figures = ("fid", "kid", "kid_std", "precision", "recall")
    means = {name: sum(row[name] for row in rows) / len(rows) for name in figures}
    return {"name": MEAN, **means, **{name: sum(row[name] for row in rows) for name in ("n", "n_real")}}
