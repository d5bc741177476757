"""What was run: the runs behind a report, the figures that they left, and the terms that come with the data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affect_hpc.core.io import read_json_if_there
from affect_hpc.report.axes import Setting

FILES: Mapping[str, Sequence[str]] = {
    "shards": ("manifest.json",),
    "referee": ("referee.json",),
    "first_stage": ("vqgan.json",),
    "ldm": ("ldm.json",),
    "reconstruction": (),
    "edits": ("edit.json",),
    "images": ("generation.json",),
    "strips": ("interpolation.json",),
    "tables": (),
}
TITLES: Mapping[str, str] = {
    "shards": "Corpus",
    "referee": "Referee",
    "first_stage": "First stage (VQGAN)",
    "ldm": "Latent diffusion model",
    "reconstruction": "Reconstructions",
    "edits": "Edits",
    "images": "Drawn faces",
    "strips": "Ways between faces",
    "tables": "Judgements",
}
HIDDEN = ("root", "folder")
"""Where something lay on the machine: neither a result nor a setting, and nobody's business."""
TERMS = ("licence", "licences", "license", "terms", "rights")


@dataclass(frozen=True)
class Fact:
    """One run behind the report."""

    title: str
    run: str
    """stage/signature, the run's identity."""
    content: Mapping[str, Any]
    """The figures and settings that it left."""


def run_name(folder: Path) -> str:
    """stage/signature of the run whose ``out`` (or part's ``out``) this is; the bare name of any other folder."""
    if folder.name != "out":
        return folder.name
    run = folder.parent
    if run.parent.name == "parts":
        run = run.parent.parent
    return f"{run.parent.name}/{run.name}"


def gather(roles: Mapping[str, Sequence[Path]]) -> list[Fact]:
    """One fact per run, in the order of the work, however the folders were given. Parts of one run are one."""
    facts: dict[tuple[str, str], Fact] = {}
    for role, names in FILES.items():
        for folder in roles.get(role, ()):
            content: dict[str, Any] = {}
            for name in names:
                content |= read_json_if_there(folder / name) or {}
            run = run_name(folder)
            known = facts.get((role, run))
            facts[role, run] = Fact(TITLES[role], run, _joined(known.content, content) if known else content)
    order = list(FILES)
    return [facts[key] for key in sorted(facts, key=lambda key: (order.index(key[0]), _place(facts[key]), key[1]))]


def _place(fact: Fact) -> Setting:
    """Edits stand in the order of their settings."""
    return Setting.of(fact.content) if "encode_gamma" in fact.content else Setting()


def _joined(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """What two parts of one run left, as one: counts add up, lists follow each other, all else is equal anyway."""
    joined: dict[str, Any] = {**a, **b}
    for name in ("counts", "findings"):
        if name in joined:
            one, other = a.get(name, {}), b.get(name, {})
            joined[name] = {key: one.get(key, 0) + other.get(key, 0) for key in sorted({*one, *other})}
    if "shards" in joined:
        joined["shards"] = [*a.get("shards", []), *b.get("shards", [])]
    return joined


def scalars(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and text of every plain value; lists of plain values as one."""
    for name, value in content.items():
        if name in HIDDEN:
            continue
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            if all(isinstance(item, str | int | float | bool) for item in value):
                yield prefix + name, ", ".join(_text(item) for item in value)
        elif value is not None and value != "":
            yield prefix + name, _text(value)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def terms(facts: Sequence[Fact]) -> list[str]:
    """Licence terms that any run's files name, each once."""
    found = [
        f"{fact.title}: {value}"
        for fact in facts
        for name, value in scalars(fact.content)
        if any(part in TERMS for part in name.lower().split("."))
    ]
    return list(dict.fromkeys(found))
