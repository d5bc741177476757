"""Strips of faces between two faces, and their figures. Equal inputs give equal bytes, but for marks."""

import logging

from affect_hpc.config.drawing import ReportInterpolationConfig
from affect_hpc.core.io import write_bytes, write_text
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.images import ImageSet
from affect_hpc.data.provenance import SyntheticFacts
from affect_hpc.report import facts
from affect_hpc.report.furniture import Section, card, data_uri, document, notes, picture, runs, text
from affect_hpc.report.interpolation import (
    STRIPS,
    Point,
    csv_text,
    every_way,
    load_points,
    means,
    remarks,
    strips,
    varied,
)
from affect_hpc.report.sheets import jpeg_bytes, png_bytes
from affect_hpc.stages.marking import Marker, name_of

log = logging.getLogger(__name__)


def run(cfg: ReportInterpolationConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Reads: strips (all points of the sweep), shards (val).

    Writes: ``index.html``, ``table.csv``, ``sheets/*.png``.
    """
    marker = Marker.of(cfg.provenance, place)
    points = load_points(inputs.many("strips"))
    originals = ImageSet.open([folder / "val" for folder in inputs.many("shards")])
    axes = varied(points)
    write_text(place.out / "table.csv", csv_text(points))
    faces, tables = "", means(points, axes)
    made = ", ".join(sorted(set(map(name_of, inputs.many("strips")))))
    for point in points:
        stem, told, sheet = point.stem(axes), point.told(axes), strips(point, originals)
        described = SyntheticFacts(made, edited=True, settings={"point": told, "sweep": cfg.title}, title=stem)
        write_bytes(place.out / "sheets" / f"{stem}.png", marker.png(png_bytes(sheet), described))
        shown = picture(data_uri(jpeg_bytes(sheet), "jpeg"), f"ways at {told}", f"sheets/{stem}.png")
        faces += f'<figcaption class="setting">{text(told)}</figcaption>{shown}'
        tables += f"<details><summary>Every way at {text(told)}</summary>{every_way(point)}</details>"
    known = facts.gather(inputs.roles)
    more = '<p class="small">All digits stand in <a href="table.csv">table.csv</a>.</p>'
    sections = [
        Section("strips", "Strips", "Strips", f'<p class="soft">{text(_strips_text(points))}</p>{faces}'),
        Section("tables", "Tables", "Tables", tables + more),
        Section("runs", "What was run", "What was run", runs(known)),
        Section("notes", "How to read this", "How to read this", notes(remarks(points), known)),
    ]
    page = document(cfg.title, "From one face to another", _lead(points), sections, _cards(points[0], axes))
    write_text(place.out / "index.html", page)
    log.info("report of %d points in %s", len(points), place.out)
    return Outcome({"points": len(points), "ends_db": _ends_db(points[0])})


def _lead(points: list[Point]) -> str:
    pairs, places = (_span([point.settings[name] for point in points]) for name in ("pairs", "num_points"))
    settings = f"{len(points)} settings" if len(points) > 1 else "one setting"
    return (
        f"{pairs} pairs of validation faces, each pair followed back to noise, mixed there at {places} places from one"
        f" to the other, and decoded again, at {settings}."
    )


def _span(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low} to {high}" if low < high else str(low)


def _strips_text(points: list[Point]) -> str:
    count = max(len(point.ways) for point in points)
    some = f" The first {STRIPS} of {count} pairs are shown." if count > STRIPS else ""
    return (
        "Each row is a way from the face at its left to the face at its right, which nobody trained on. Below each "
        f"mixture stands the label under which it was decoded.{some}"
    )


def _cards(point: Point, axes: list[str]) -> str:
    where = f"mean over {len(point.ways)} ways, {point.told(axes)}"
    return (
        card("Ends against the faces", f"{_ends_db(point):.1f}<small> dB</small>", where)
        + card("Angle between two faces", f"{point.mean('angle'):.0f}°", where)
        + card("Largest over mean step", f"{point.mean('unevenness'):.2f}", where)
        + card("Detour", f"{point.mean('detour'):.2f}", where)
    )


def _ends_db(point: Point) -> float:
    return (point.mean("psnr_first") + point.mean("psnr_second")) / 2
