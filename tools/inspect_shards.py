"""Check prepared shards: read every byte, name what is wrong, count what is there, and draw some of it.

Exit code: 0 nothing is wrong, 1 something is, 2 wrong use.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import write_bytes
from affect_hpc.data.codec import LIMITS, DamagedMemberError, decode
from affect_hpc.data.inspection import inspect, local_folder
from affect_hpc.data.shard_check import NUMBERED, UNLABELLED, Report, bad_name
from affect_hpc.data.shards import NO_LABEL
from affect_hpc.data.tars import TarReader, split_name
from affect_hpc.report.sheets import Cell, Column, contact_sheet, png_bytes

PICTURES = ("png", "jpg", "jpeg", "webp")
IN_A_ROW = 8
FRAMES_IN_A_ROW = 12


@dataclass
class Drawn:
    """A sample that the sheet shows."""

    label: str
    """Its emotion, or ``UNLABELLED``."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """Not decoded yet, by extension."""


def samples(folder: Path, report: Report, most: int) -> Iterator[Drawn]:
    """Up to ``most`` samples, evenly spread over the shards."""
    count = min(report.samples, most)
    numbers = [i * report.samples // count for i in range(count)]
    first = 0
    for shard in report.shards:
        wanted = {number - first for number in numbers if first <= number < first + len(shard.labels)}
        first += len(shard.labels)
        if wanted:
            yield from _samples_of(folder / shard.name, shard.labels, wanted)


def _samples_of(tar: Path, labels: str, wanted: set[int]) -> Iterator[Drawn]:
    numbers: dict[str, int] = {}
    found = {i: Drawn(UNLABELLED if labels[i] == NO_LABEL else EMOTIONS[int(labels[i])]) for i in sorted(wanted)}
    with tar.open("rb") as handle:
        for member in TarReader(handle, LIMITS.array_bytes):
            if bad_name(member.name):
                continue
            key, extension = split_name(member.name)
            number = numbers.setdefault(key, len(numbers))
            if number in wanted and extension.rpartition(".")[2] in PICTURES:
                found[number].pictures[extension] = member.content
    yield from found.values()


def frames_of(sample: Drawn) -> list[str]:
    """Extensions of the frames of a clip, evenly spread; none where the sample is no clip."""
    frames = sorted(extension for extension in sample.pictures if NUMBERED.match(extension))
    count = min(len(frames), FRAMES_IN_A_ROW)
    return [frames[i * len(frames) // count] for i in range(count)]


def draw(drawn: Sequence[Drawn]) -> bytes:
    """The contact sheet as PNG: faces with their labels below, or a row of frames for each clip.

    Raises:
        UserError: the samples hold no pictures.
    """
    if not any(sample.pictures for sample in drawn):
        raise UserError("these samples hold no pictures: leave --sheet out.")
    if any(frames_of(sample) for sample in drawn):
        rows = [
            [_cell(sample, extension, extension.partition(".")[0]) for extension in frames_of(sample)]
            for sample in drawn
        ]
        names = [sample.label for sample in drawn]
    else:
        cells = [_cell(sample, next(iter(sample.pictures), ""), sample.label) for sample in drawn]
        rows = [cells[i : i + IN_A_ROW] for i in range(0, len(cells), IN_A_ROW)]
        names = [""] * len(rows)
    width = max(len(row) for row in rows)
    full = [row + [Cell(None)] * (width - len(row)) for row in rows]
    return png_bytes(contact_sheet([Column("")] * width, names, full))


def _cell(sample: Drawn, extension: str, text: str) -> Cell:
    try:
        return Cell(decode(extension, sample.pictures.get(extension, b"")), text)
    except DamagedMemberError:
        return Cell(None)  # the report names it


def text(report: Report) -> str:
    """The report for people."""
    lines = [str(fault) for fault in report.faults] + report.remarks
    for split, counts in sorted(report.counts().items()):
        by_class = "  ".join(f"{name} {counts[name]}" for name in (*EMOTIONS, UNLABELLED) if counts[name])
        lines.append(f"{split or 'no split'}: {counts.total()} samples  {by_class}")
    shards = report.shards
    lines.append(
        f"{len(report.faults)} faults in {len(shards)} shards, {report.samples} samples,"
        f" {sum(shard.members for shard in shards)} members, {sum(shard.bytes for shard in shards)} bytes"
    )
    return "\n".join(lines)


def machine_text(report: Report) -> str:
    """The report as JSON."""
    content = {
        "faults": [asdict(fault) for fault in report.faults],
        "remarks": report.remarks,
        "shards": [asdict(shard) for shard in report.shards],
        "counts": report.counts(),
        "samples": report.samples,
    }
    return json.dumps(content, indent=1)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python tools/inspect_shards.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", metavar="DIR", help="with shards at any depth: the out/ folder of a prepare_shards run"
    )
    parser.add_argument("--sheet", metavar="FILE.png", type=Path, help="draw a contact sheet")
    parser.add_argument("--samples", metavar="N", type=int, default=64, help="samples on the sheet (default: 64)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    arguments = parser.parse_args(argv)
    try:
        if arguments.samples < 1:
            raise UserError(f"--samples {arguments.samples} draws nothing: give 1 or more.")
        report = inspect(arguments.folder)
        print(machine_text(report) if arguments.json else text(report))
        if arguments.sheet:
            write_bytes(arguments.sheet, draw(list(samples(local_folder(arguments.folder), report, arguments.samples))))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
