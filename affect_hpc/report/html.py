"""The page of the report of an editing sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from affect_hpc.config.edit import Inverter
from affect_hpc.report import thesis
from affect_hpc.report.axes import IN_TABLES, NAMES, plain
from affect_hpc.report.differences import of_editing
from affect_hpc.report.facts import Fact
from affect_hpc.report.furniture import Section, document, notes, picture, runs, text, what_differs
from affect_hpc.report.headline import cards
from affect_hpc.report.html_tables import comparison, every_row, judges_table
from affect_hpc.report.plots import perceptual_name
from affect_hpc.report.tables import Point, Sweep, best_point

CAPTIONS: Mapping[str, str] = {
    "accuracy": "Share of edited faces in which the judge sees the wanted emotion.",
    "psnr": "Closeness to the first stage's reconstruction: what the edit itself changed.",
    "perceptual": "Perceptual distance to the reconstruction; lower is closer.",
    "csim": "Whether it is still the same person: cosine of identity embeddings.",
    "psnr_truth": "Closeness to the same person drawn with the wanted expression. An edit that stays below a dashed "
    "line is farther from it than a face that nobody edited.",
    "seen": "What the judge sees after the edit, at the setting of highest accuracy.",
    "tradeoff": "Accuracy against its price, means over the targets, one mark per point of the sweep. Grey: the "
    "thesis' printed values, on other data and by another judge; compare shapes, not heights.",
}


@dataclass(frozen=True)
class SweepPictures:
    """The pictures of one sweep."""

    sweep: Sweep
    together: Mapping[str, tuple[str, str]]
    """Name -> target emotions and data URI, of sheets with all targets at the setting of highest accuracy."""
    sheets: Mapping[str, tuple[str, str]]
    """The same of sheets with one target."""
    plots: Mapping[str, str]
    """File stem -> data URI."""


@dataclass(frozen=True)
class Pictures:
    """All pictures of a page."""

    sources: str
    """Data URI of the sheet of source faces."""
    sweeps: list[SweepPictures]


def page(
    title: str, points: Sequence[Point], pictures: Pictures, facts: Sequence[Fact], corpus: Mapping[str, Any]
) -> str:
    """The whole index.html.

    Args:
        corpus: its config, as the shards' manifest holds it.
    """
    first = pictures.sweeps[0].sweep
    heading = f"Editing facial affect over the {NAMES[first.axis]}"
    if len(first.points) == 1:
        heading = "Editing facial affect"
    sections = [
        Section("faces", "Faces", "Faces", _faces(pictures)),
        Section("curves", "Curves", "Curves", "".join(_plots(entry) for entry in pictures.sweeps)),
        Section("tables", "Tables", "Tables", _tables(title, points, pictures, corpus)),
        Section("judges", "Judges", "Judges", "".join(judges_table(entry.sweep) for entry in pictures.sweeps)),
        Section("runs", "What was run", "What was run", runs(facts)),
        Section("notes", "How to read this", "How to read this", _notes(pictures.sweeps, facts)),
    ]
    return document(title, heading, _lead(first), sections, cards(first), _tab_rules(pictures.sweeps))


def _faces(pictures: Pictures) -> str:
    first = pictures.sweeps[0].sweep
    return (
        f'<p class="soft">{text(_faces_text(first))}</p>'
        + "".join(_together(entry) for entry in pictures.sweeps)
        + "".join(_tabs(entry, i) for i, entry in enumerate(pictures.sweeps))
        + "<h3>The corpus</h3>"
        + picture(pictures.sources, "validation faces of each emotion", "sheets/sources.png")
    )


def _tables(title: str, points: Sequence[Point], pictures: Pictures, corpus: Mapping[str, Any]) -> str:
    count = sum(len(point.rows) for point in points)
    found = [
        difference
        for point in points
        if not point.baseline
        for difference in of_editing(point.settings, point.judges, point.samples, corpus)
    ]
    at, known = pictures.sweeps[0].sweep.points[0].setting, pictures.sweeps[0].sweep.told
    which = ",".join(f"{axis}={plain(at.get(axis))}" for axis in IN_TABLES if axis in known)
    cell = f"{title}/{which}/mean/psnr"
    explained = f"How a cell came about: <code>python -m affect_hpc.explain {text(cell)}</code>"
    return (
        f'<p class="soft">{text(_OTHER)}</p>'
        + "".join(comparison(entry.sweep) for entry in pictures.sweeps)
        + what_differs(found)
        + f'<p class="small">{explained}</p>'
        + f"<details><summary>Every row ({count})</summary>{every_row(points)}</details>"
        + '<p class="small">All digits stand in <a href="table.csv">table.csv</a>.</p>'
    )


_OTHER = (
    "Means over the targets, beside what the thesis prints for the same settings. It has other data and other judges "
    f"({thesis.SETTING}): the two sides show shapes, not a contest."
)


def _lead(sweep: Sweep) -> str:
    count = sweep.points[0].samples
    points = f"{len(sweep.points)} settings" if len(sweep.points) > 1 else "one setting"
    inverters = list(dict.fromkeys(point.setting.inverter for point in sweep.points))
    how = "deterministic DDIM" if inverters == [Inverter.ddim.name] else f"inverter {', '.join(inverters)}"
    targets = f"{len(sweep.targets())} target emotions" if len(sweep.targets()) > 1 else "one target emotion"
    return (
        f"{count} validation faces, each inverted by {how} and decoded again under {targets}, at "
        f"{points}. Emotions are seen by {sweep.judge}, a judge that took no part in training what it judges."
    )


def _faces_text(sweep: Sweep) -> str:
    told = (
        "Each row is one face that nobody trained on. Left the original and what the first stage alone makes of it, "
        "then the edits. Below each face stands the emotion that the judge sees; green where it is the wanted one."
    )
    if sweep.has("psnr_truth"):
        told += " A column named rendered is no edit: it is the same person drawn with the wanted expression."
    return told


def _together(entry: SweepPictures) -> str:
    best = best_point(entry.sweep)
    at = ", ".join(map(best.setting.text, entry.sweep.told))
    shown = "".join(
        picture(uri, f"faces edited to {targets}", f"sheets/{stem}.png")
        for stem, (targets, uri) in entry.together.items()
    )
    return f'<figcaption class="setting">{text(f"every target at {at}, where accuracy is highest")}</figcaption>{shown}'


def _tabs(entry: SweepPictures, number: int) -> str:
    """One pane per target emotion, shown by radio buttons: no script."""
    targets = list(dict.fromkeys(target for target, _ in entry.sheets.values()))
    buttons, labels, panes = [], [], []
    for i, target in enumerate(targets):
        name = f"tab{number}-{i}"
        checked = " checked" if i == 0 else ""
        buttons.append(f'<input type="radio" name="tab{number}" id="{name}"{checked}>')
        labels.append(f'<label for="{name}">{text(target)}</label>')
        inner = []
        for stem, (emotion, uri) in entry.sheets.items():
            if emotion == target:
                if "_" in stem:
                    setting = stem.partition("_")[2].replace("t0-", "t₀ ").replace("-", " ")
                    inner.append(f'<figcaption class="setting">{text(setting)}</figcaption>')
                inner.append(picture(uri, f"faces edited to {target}", f"sheets/{stem}.png"))
        panes.append(f'<div class="pane" id="pane-{name}">{"".join(inner)}</div>')
    return f'<div class="tabs">{"".join(buttons)}<div class="bar">{"".join(labels)}</div>{"".join(panes)}</div>'


def _tab_rules(sweeps: Sequence[SweepPictures]) -> str:
    rules = []
    for number, entry in enumerate(sweeps):
        for i in range(len({target for target, _ in entry.sheets.values()})):
            name = f"tab{number}-{i}"
            rules.append(f"#{name}:checked ~ #pane-{name} {{ display: block; }}")
            rules.append(
                f'#{name}:checked ~ .bar label[for="{name}"] '
                "{ background: var(--accent); border-color: var(--accent); color: var(--card); }"
            )
            rules.append(f'#{name}:focus-visible ~ .bar label[for="{name}"] {{ outline: 2px solid var(--accent); }}')
    return "\n".join(rules)


def _plots(entry: SweepPictures) -> str:
    wide = " wide" if len(entry.sweep.panels()) > 1 else ""
    figures = []
    for stem, uri in entry.plots.items():
        kind = next(name for name in sorted(CAPTIONS, key=len, reverse=True) if stem.startswith(name))
        whole = {"tradeoff": ' class="whole"', "seen": ' class="single"'}.get(kind, "")
        figures.append(
            f'<figure{whole}><div class="picture"><a href="plots/{stem}.png"><img src="{uri}" '
            f'alt="{text(CAPTIONS[kind])}">'
            f"</a></div><figcaption>{text(CAPTIONS[kind])}</figcaption></figure>"
        )
    return f'<div class="plots{wide}">{"".join(figures)}</div>'


def _notes(sweeps: Sequence[SweepPictures], facts: Sequence[Fact]) -> str:
    first = sweeps[0].sweep
    remarks = [
        "The main columns compare an edit with the first stage's reconstruction of the same face, as the thesis does"
        " (D-20): they show what the edit changed, not what the first stage lost. Columns that end in _original "
        "compare with the original.",
        "The row reconstruction compares the reconstruction with the original: the ceiling of any edit. Its "
        "accuracy, and that of the row unedited, is the share of faces in which the judge sees the true label.",
        "The row round_trip decodes under the true label: with guidance 1 it should give the reconstruction back.",
        "Rows that end in _as_<emotion> take the faces that nobody edited for an edit to that emotion; rows that end"
        " in _label_<emotion> are those of the faces with that true label.",
        "Below a figure stands half the width of its 95 % interval (bootstrap over faces, all images of one"
        " together); its ends stand in the cell's title and in table.csv.",
        "PSNR is computed per image over RGB and then averaged; SSIM has an 11 × 11 Gaussian window. Images are "
        "lossless PNG, where the thesis used JPEG of quality 75 (D-21).",
    ]
    if first.has("psnr_truth"):
        remarks.append("Drawn faces have a truth that photographs lack: columns that end in _truth compare with it.")
    if first.points[0].perceptual != "lpips":
        remarks.append(
            f"LPIPS did not judge here; the {perceptual_name(first.points[0].perceptual)} stands in its own "
            "column. Its scale is not that of LPIPS."
        )
    unknown = [name for name in ("contempt",) if name not in first.points[0].judges["emotion"]["classes"]]
    if unknown:
        remarks.append(
            "The emotion judge does not know contempt: faces with that label do not count where their own label is "
            "asked."
        )
    remarks.append(thesis.LEFT_OUT)
    return notes(remarks, facts)
