"""Tables, plots, contact sheets and one page of a sweep. Equal inputs give equal bytes, but for marks.

Sheets of edited faces are exported pictures and carry a mark. Those in the page, and sheets of faces that nobody
edited, carry none.
"""

import logging

from affect_hpc.config.stages import ReportConfig
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, write_bytes, write_text
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.provenance import SyntheticFacts
from affect_hpc.data.shards import ShardSet
from affect_hpc.report import facts, html
from affect_hpc.report.axes import AXES
from affect_hpc.report.furniture import data_uri
from affect_hpc.report.gallery import Gallery, load_edits
from affect_hpc.report.plots import all_plots
from affect_hpc.report.sheets import jpeg_bytes, png_bytes
from affect_hpc.report.tables import best_point, csv_text, load_points, markdown, sweeps
from affect_hpc.stages.marking import Marker, name_of

log = logging.getLogger(__name__)

EVERY_TARGET = "every_target"
"""Name of the sheet that shows all targets beside each other."""


def run(cfg: ReportConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Reads: tables, edits, reconstruction, shards; for their figures alone referee, first_stage, ldm.

    Writes: ``index.html``, ``table.csv``, ``table.md``, ``plots/*.png``, ``sheets/*.png``.
    """
    marker = Marker.of(cfg.provenance, place)
    points = load_points(inputs.many("tables"))
    runs = sweeps(points)
    if not runs:
        raise UserError("no table holds an edit: a report needs at least one evaluated point besides the baseline.")
    gallery = Gallery(
        ShardSet.open([folder / "val" for folder in inputs.many("shards")]),
        ShardSet.open(inputs.many("reconstruction")),
        load_edits(inputs.many("edits")),
        cfg.sheet_faces,
    )
    lost = [point for sweep in runs for point in sweep.points if point.setting not in gallery.edits]
    if lost:
        where = ", ".join(map(lost[0].setting.text, AXES))
        raise UserError(f"the edits at {where} are missing: give the edits of every table.")

    write_text(place.out / "table.csv", csv_text(points))
    write_text(place.out / "table.md", markdown(points))
    sources = gallery.sources()
    write_bytes(place.out / "sheets" / "sources.png", png_bytes(sources))
    pictures = html.Pictures(data_uri(jpeg_bytes(sources), "jpeg"), [])
    for i, sweep in enumerate(runs):
        # A second judge looks at the same faces: its sheets and plots bear its name.
        tail = f"_{sweep.judge}" if i else ""
        plots = {stem + tail: content for stem, content in all_plots(sweep).items()}
        sheets = {name + tail: sheet for name, sheet in gallery.target_sheets(sweep).items()}
        best = best_point(sweep)
        every = {EVERY_TARGET + tail: (", ".join(best.targets()), gallery.every_target(sweep, best))}
        for stem, content in plots.items():
            write_bytes(place.out / "plots" / f"{stem}.png", content)
        for name, (target, sheet) in {**every, **sheets}.items():
            marked = marker.png(png_bytes(sheet), _facts(cfg, inputs, name, target))
            write_bytes(place.out / "sheets" / f"{name}.png", marked)
        shown, together = (
            {name: (target, data_uri(jpeg_bytes(sheet), "jpeg")) for name, (target, sheet) in some.items()}
            for some in (sheets, every)
        )
        figures = {stem: data_uri(content, "png") for stem, content in plots.items()}
        pictures.sweeps.append(html.SweepPictures(sweep, together, shown, figures))
    known = facts.gather(inputs.roles)
    corpus = read_json(inputs.many("shards")[0] / "manifest.json")["data"]
    write_text(place.out / "index.html", html.page(cfg.title, points, pictures, known, corpus))
    log.info("report of %d points in %s", len(points), place.out)
    best = best_point(runs[0])
    accuracy = best.get("mean", "target_accuracy")
    return Outcome({"points": len(points), **({"best_target_accuracy": accuracy} if accuracy is not None else {})})


def _facts(cfg: ReportConfig, inputs: Inputs, name: str, target: str) -> SyntheticFacts:
    """What a sheet's mark says."""
    makers = dict.fromkeys(map(name_of, inputs.many("ldm") or inputs.many("edits")))
    return SyntheticFacts(", ".join(makers), edited=True, settings={"target": target, "sweep": cfg.title}, title=name)
