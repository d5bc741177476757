"""What makes our figures differ from the thesis' besides the model: judge, data or protocol, a sentence for each."""

from collections.abc import Mapping, Sequence
from typing import Any

from affect_hpc.report.axes import GENERATION, plain

Difference = tuple[str, str]
"""(judge, data or protocol; a sentence)."""
KINDS = ("judge", "data", "protocol")
NO_JPEG: Difference = ("protocol", "lossless PNG, the thesis' JPEG of quality 75")

EDITING: Mapping[str, tuple[str, Any]] = {
    "inverter": ("inverter", "ddim"),
    "time_input": ("time that the network sees in encoding", "next"),
    "spacing": ("spacing of the steps", "linspace"),
    "end_level": ("level of the clean end", "first"),
    "precision": ("precision", "fp32"),
}
"""Setting of an edit -> its name, and the thesis' value (section 4.4)."""
DRAWING: Mapping[str, Any] = {
    "sampler.name": "ddim",
    "sampler.num_steps": 500,
    "sampler.eta": 1,
    "sampler.gamma": 1,
    "sampler.clip": 0,
    "sampler.spacing": "leading_plus_one",
    "classifier_scale": 0,
    "per_class": 5000,
}
"""Setting of drawn faces -> the thesis' value (section 4.3.3)."""
JUDGES: Mapping[str, tuple[str, str]] = {
    "emotion": ("accuracy", "enet_b2_7"),
    "perceptual": ("perceptual distance", "lpips"),
    "identity": ("identity", "cosface"),
    "features": ("FID and KID", "inception"),
    "manifold": ("precision and recall", "vgg16"),
}
"""Role of a judge -> what it judges, and who did so in the thesis."""


def of_editing(
    point: Mapping[str, Any], judges: Mapping[str, Mapping[str, Any]], samples: int, corpus: Mapping[str, Any]
) -> list[Difference]:
    """Of Tables 4.2 and 4.3.

    Args:
        point: settings of the edit.
        judges: role -> name and digest.
        samples: faces that were edited.
        corpus: its config, as the shards' manifest holds it.
    """
    found = [*_of_judges(judges), *_of_corpus(corpus)]
    if samples != 4000:
        found.append(("data", f"{samples} validation faces, the thesis' 4000"))
    for name, (told, theirs) in EDITING.items():
        ours = point.get(name, theirs)
        if ours != theirs:
            found.append(("protocol", f"{told} {ours}, the thesis' {theirs}"))
    if point.get("encode_gamma", point["gamma"]) != point["gamma"]:
        found.append(("protocol", f"encoded at guidance {point['encode_gamma']:g}, the thesis' as decoded"))
    return [*found, NO_JPEG]


def of_generation(
    settings: Mapping[str, Any],
    judges: Mapping[str, Mapping[str, Any]],
    judging: Mapping[str, Any],
    corpus: Mapping[str, Any],
) -> list[Difference]:
    """Of Table 4.1.

    Args:
        settings: how the faces were drawn, by dotted keys.
        judges: role -> name and digest.
        judging: how the figures were computed.
        corpus: its config, as the shards' manifest holds it.
    """
    found = [*_of_judges(judges), *_of_corpus(corpus)]
    for name, theirs in DRAWING.items():
        if settings[name] != theirs:
            found.append(("protocol", f"{GENERATION[name]} {plain(settings[name])}, the thesis' {plain(theirs)}"))
    if judging["real_per_class"] != 3750:
        some = judging["real_per_class"] or "all"
        found.append(("protocol", f"overall against {some} training faces of each emotion, the thesis' 3750"))
    return [*found, NO_JPEG]


def _of_judges(judges: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
    return [
        ("judge", f"{use} by {judges[role]['name']}, the thesis' by {theirs}: the scales do not compare")
        for role, (use, theirs) in JUDGES.items()
        if role in judges and judges[role]["name"] != theirs
    ]


def _of_corpus(corpus: Mapping[str, Any]) -> list[Difference]:
    name, size = corpus.get("name"), corpus.get("size")
    if (name, size) == ("affectnet", 128):
        return []
    return [("data", f"faces of {name} at {size} px, the thesis' of AffectNet at 128 px")]


def by_kind(found: Sequence[Difference]) -> dict[str, list[str]]:
    """Kind -> its sentences, each once; kinds without any are absent."""
    return {
        kind: list(dict.fromkeys(sentence for other, sentence in found if other == kind))
        for kind in KINDS
        if any(other == kind for other, _ in found)
    }
