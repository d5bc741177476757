"""Table 4.1, uncurated faces and nearest neighbours of a sweep. Equal inputs give equal bytes."""

import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from affect_hpc.config.drawing import ReportGenerationConfig
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, write_bytes, write_text
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.images import ImageSet
from affect_hpc.data.provenance import SyntheticFacts
from affect_hpc.metrics.nearest import Neighbours
from affect_hpc.report import facts
from affect_hpc.report.differences import of_generation
from affect_hpc.report.furniture import Section, card, data_uri, document, notes, picture, runs, text, what_differs
from affect_hpc.report.generation import (
    DESCRIPTION,
    Point,
    csv_text,
    key_of,
    load_point,
    markdown,
    neighbours,
    shown,
    table,
    uncurated,
    varied,
)
from affect_hpc.report.sheets import jpeg_bytes, png_bytes
from affect_hpc.stages import find_nearest
from affect_hpc.stages.marking import Marker, name_of

log = logging.getLogger(__name__)

REMARKS = (
    "Each emotion is compared with all of its training faces; overall compares all drawn faces with some training faces"
    " of each emotion, so that frequent ones do not rule it; mean is the plain mean over the emotions.",
    "Precision is the share of drawn faces that lie among the real ones, recall the share of real faces that lie among"
    " the drawn ones (k nearest neighbours); FID and its kin compare only between numbers of the same features and the"
    " same number of faces.",
    "No face was chosen: those shown are the first of each emotion. Face n of a seed is the same in every launch.",
)


def run(cfg: ReportGenerationConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Reads: tables, images, shards, nearest (where it was looked for); ldm and first_stage for their figures.

    Writes: ``index.html``, ``table.csv``, ``table.md``, ``sheets/*.png``.
    """
    marker = Marker.of(cfg.provenance, place)
    points = sorted(map(load_point, inputs.many("tables")), key=lambda point: point.key)
    images = _by_point(inputs.many("images"))
    lost = [point for point in points if point.key not in images]
    if lost:
        raise UserError(f"the faces of {lost[0].told(varied(points))} are missing: give the images of every table.")
    corpus = ImageSet.open([folder / "train" for folder in inputs.many("shards")])
    source = read_json(inputs.many("shards")[0] / "manifest.json")["data"]
    near = _nearest(inputs.many("nearest"))
    axes = varied(points)
    write_text(place.out / "table.csv", csv_text(points))
    write_text(place.out / "table.md", markdown(points))
    made = ", ".join(dict.fromkeys(map(name_of, inputs.many("ldm") or inputs.many("images"))))

    def sheet(stem: str, image: Image.Image) -> str:
        told = SyntheticFacts(made, edited=False, settings={"sweep": cfg.title}, title=stem)
        write_bytes(place.out / "sheets" / f"{stem}.png", marker.png(png_bytes(image), told))
        return data_uri(jpeg_bytes(image), "jpeg")

    faces, others, tables = "", "", ""
    for number, point in enumerate(points):
        told, tail = point.told(axes), f"_{number}" if len(points) > 1 else ""
        caption = f'<figcaption class="setting">{text(told)}</figcaption>' if len(points) > 1 else ""
        drawn = ImageSet.open(images[point.key])
        name = f"uncurated{tail}"
        faces += caption + picture(sheet(name, uncurated(drawn, cfg.sheet_faces)), "drawn faces", f"sheets/{name}.png")
        if point.key in near:
            name = f"nearest{tail}"
            uri = sheet(name, neighbours(drawn, corpus, near[point.key]))
            others += caption + picture(uri, "drawn faces and their nearest training faces", f"sheets/{name}.png")
        other_setting = of_generation(point.settings, point.judges, point.judging, source)
        tables += caption + table(point) + what_differs(other_setting)
    sections = [Section("faces", "Faces", "Uncurated faces", faces)]
    if others:
        told = "Squared difference of pixels, or of features; below each face stands its root."
        sections.append(
            Section("nearest", "Nearest neighbours", "Nearest training faces", f'<p class="soft">{told}</p>{others}')
        )
    known = facts.gather(inputs.roles)
    more = '<p class="small">All digits stand in <a href="table.csv">table.csv</a>.</p>'
    sections += [
        Section("tables", "Tables", "Tables", tables + more),
        Section("runs", "What was run", "What was run", runs(known)),
        Section("notes", "How to read this", "How to read this", notes([*REMARKS, *_left_out(points)], known)),
    ]
    best = min(points, key=lambda point: float(point.row("overall")["fid"]))
    figures = best.row("overall")
    where = f"all emotions together, {best.told(axes)}"
    cards = "".join(
        card(title, shown(name, figures[name]), where)
        for name, title in (("fid", "FID"), ("kid", "KID × 1000"), ("precision", "Precision"), ("recall", "Recall"))
    )
    lead = (
        f"{figures['n']} faces drawn from noise, {best.settings['per_class']} of each emotion, compared as a set with"
        " the faces that the model was trained on."
    )
    page = document(cfg.title, "Faces from noise", lead, sections, cards)
    write_text(place.out / "index.html", page)
    log.info("report of %d points in %s", len(points), place.out)
    return Outcome({"points": len(points), "best_fid": float(figures["fid"])})


def _by_point(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Key of a point -> the parts of its faces."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        found.setdefault(key_of(read_json(folder / DESCRIPTION)), []).append(folder)
    return found


def _nearest(folders: Sequence[Path]) -> dict[str, Neighbours]:
    """Key of a point -> the neighbours of its first faces."""
    searches: dict[str, list[Path]] = {}
    for folder in folders:
        key = key_of(read_json(folder / find_nearest.NEIGHBOURS)["drawn"])
        searches.setdefault(key, []).append(folder)
    return {key: find_nearest.merged(parts) for key, parts in searches.items()}


def _left_out(points: Sequence[Point]) -> list[str]:
    left = {name: count for point in points for name, count in point.left_out.items()}
    return [
        f"{name} is left out: the corpus has {count} training faces of it, fewer than a subset of KID."
        for name, count in left.items()
    ]
