"""Which faces a report shows, and the contact sheets made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.io import read_json
from affect_hpc.data.codec import UInt8Image, decode_png
from affect_hpc.data.shards import Entry, ShardSet
from affect_hpc.metrics.samples import FILE, read_samples
from affect_hpc.report.axes import Setting
from affect_hpc.report.sheets import Cell, Column, contact_sheet
from affect_hpc.report.tables import Point, Sweep

ORIGINAL, RECONSTRUCTION = "png", "reconstruction.png"
SOURCES_PER_EMOTION = 4
Verdicts = Mapping[tuple[str, str], str]
"""(sample key, row) -> emotion seen by the judge"""


def load_edits(folders: Sequence[Path]) -> dict[Setting, ShardSet]:
    """The edited faces of all points; the parts of one point are told by their edit.json."""
    groups: dict[Setting, list[Path]] = {}
    for folder in folders:
        groups.setdefault(Setting.of(read_json(folder / "edit.json")), []).append(folder)
    return {setting: ShardSet.open(parts) for setting, parts in groups.items()}


def load_verdicts(point: Point | None) -> Verdicts:
    """What the judge saw in every image of a point."""
    if point is None:
        return {}
    entries = read_samples(point.folder / FILE, ("key", "row", "seen"))
    return {(entry["key"], entry["row"]): entry["seen"] for entry in entries}


def choose(samples: Sequence[Entry], target: str, count: int) -> list[Entry]:
    """Up to ``count`` faces that do not show ``target`` yet: of each label in turn, people before repeats."""
    queues: dict[str, list[Entry]] = {emotion: [] for emotion in EMOTIONS if emotion != target}
    seen: set[str] = set()
    again: dict[str, list[Entry]] = {emotion: [] for emotion in queues}
    for sample in samples:
        label = EMOTIONS[sample.label]
        if label in queues:
            (again if sample.identity in seen else queues)[label].append(sample)
            seen.add(sample.identity)
    for label, late in again.items():
        queues[label] += late
    chosen: list[Entry] = []
    while len(chosen) < count and any(queues.values()):
        chosen += [queue.pop(0) for queue in queues.values() if queue]
    return chosen[:count]


@dataclass(frozen=True)
class Edit:
    """A column of edited faces."""

    head: Column
    point: Point
    target: str


@dataclass(frozen=True)
class Gallery:
    """The images behind a report."""

    originals: ShardSet
    reconstructions: ShardSet
    edits: Mapping[Setting, ShardSet]
    faces: int
    """Source faces of one sheet."""

    def target_sheets(self, sweep: Sweep) -> dict[str, tuple[str, Image.Image]]:
        """Name of the sheet -> (target emotion, sheet): one per target and setting of the axes that were not swept."""
        panels = sweep.panels()
        sheets = {}
        verdicts = {point.setting: load_verdicts(point) for point in sweep.points}
        for target in sweep.targets():
            for title, points in panels.items():
                own = [point for point in points if target in point.targets()]
                name = (
                    target
                    if len(panels) == 1
                    else f"{target}_{title.replace(' ', '-').replace(',', '').replace('₀', '0')}"
                )
                if own:
                    edits = [
                        Edit(Column(point.setting.text(sweep.axis), f"edited: {target}"), point, target)
                        for point in own
                    ]
                    sheets[name] = (target, self._sheet(edits, target, sweep.baseline, verdicts))
        return sheets

    def every_target(self, sweep: Sweep, point: Point) -> Image.Image:
        """Faces of different labels, each edited to every target at one point (the thesis' Fig. 4.5)."""
        edits = [Edit(Column(target, "edited"), point, target) for target in point.targets()]
        return self._sheet(edits, "", sweep.baseline, {point.setting: load_verdicts(point)})

    def _sheet(
        self, edits: Sequence[Edit], target: str, baseline: Point | None, verdicts: Mapping[Setting, Verdicts]
    ) -> Image.Image:
        """Faces that do not show ``target`` yet, as they were and edited; with the true face, where there is one."""
        shards = [self.edits[edit.point.setting] for edit in edits]
        shown = [sample for sample in self.originals if all(sample.key in edited for edited in shards)]
        chosen = choose(shown, target, self.faces)
        truth, unedited = f"truth_{target}.png", load_verdicts(baseline)
        with_truth = bool(target) and all(truth in sample.members for sample in chosen)
        columns = [Column("original"), Column("reconstruction", "first stage only"), *(edit.head for edit in edits)]
        columns += [Column("rendered", f"the true {target} face")] if with_truth else []
        rows = []
        for sample in chosen:
            key, label = sample.key, EMOTIONS[sample.label]
            cells = [
                _cell(self.originals, key, ORIGINAL, unedited.get((key, "unedited"), ""), label),
                _cell(self.reconstructions, key, RECONSTRUCTION, unedited.get((key, "reconstruction"), ""), label),
            ]
            for edit, edited in zip(edits, shards, strict=True):
                seen = verdicts[edit.point.setting].get((key, edit.target), "")
                cells.append(_cell(edited, key, f"{edit.target}.png", seen, edit.target))
            cells += [_cell(self.originals, key, truth, "", target)] if with_truth else []
            rows.append(cells)
        return contact_sheet(columns, [EMOTIONS[sample.label] for sample in chosen], rows)

    def sources(self) -> Image.Image:
        """The corpus at a glance: some validation faces of each emotion."""
        found: dict[str, list[Entry]] = {emotion: [] for emotion in EMOTIONS}
        for sample in self.originals:
            queue = found[EMOTIONS[sample.label]]
            if len(queue) < SOURCES_PER_EMOTION:
                queue.append(sample)
        height = max(map(len, found.values()))
        rows = [
            [Cell(self._original(found[emotion][i].key) if i < len(found[emotion]) else None) for emotion in EMOTIONS]
            for i in range(height)
        ]
        return contact_sheet([Column(emotion) for emotion in EMOTIONS], [""] * height, rows)

    def _original(self, key: str) -> UInt8Image:
        return decode_png(self.originals.read(self.originals.index_of(key), ORIGINAL))


def _cell(shards: ShardSet, key: str, member: str, verdict: str, wanted: str) -> Cell:
    return Cell(decode_png(shards.read(shards.index_of(key), member)), verdict, verdict == wanted)
