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

ORIGINAL = "png"
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
        baseline = load_verdicts(sweep.baseline)
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
                    sheets[name] = (target, self._sheet(target, own, sweep.axis, verdicts, baseline))
        return sheets

    def _sheet(
        self, target: str, points: Sequence[Point], axis: str, verdicts: Mapping[Setting, Verdicts], baseline: Verdicts
    ) -> Image.Image:
        member = f"{target}.png"
        shards = [self.edits[point.setting] for point in points]
        shown = [sample for sample in self.originals if all(sample.key in edited for edited in shards)]
        chosen = choose(shown, target, self.faces)
        truth = f"truth_{target}.png"
        with_truth = all(truth in sample.members for sample in chosen)
        columns = [Column("original"), Column("reconstruction", "first stage only")]
        columns += [Column(point.setting.text(axis), f"edited: {target}") for point in points]
        columns += [Column("rendered", f"the true {target} face")] if with_truth else []
        rows = []
        for sample in chosen:
            label = EMOTIONS[sample.label]
            cells = [
                _cell(self.originals, sample.key, ORIGINAL, baseline.get((sample.key, "unedited"), ""), label),
                _cell(
                    self.reconstructions,
                    sample.key,
                    "reconstruction.png",
                    baseline.get((sample.key, "reconstruction"), ""),
                    label,
                ),
            ]
            for point, edited in zip(points, shards, strict=True):
                cells.append(
                    _cell(edited, sample.key, member, verdicts[point.setting].get((sample.key, target), ""), target)
                )
            cells += [_cell(self.originals, sample.key, truth, "", target)] if with_truth else []
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
