"""The tables of the page, rounded for people."""

import html
from collections.abc import Sequence

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.report import thesis
from affect_hpc.report.axes import told
from affect_hpc.report.tables import BASELINES, HIGH, LOW, LPIPS, Figure, Point, Row, Sweep, people_columns, rounded

HEADS = {
    "target_accuracy": "accuracy",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "csim": "identity",
    "psnr_original": "PSNR (orig.)",
    "psnr_truth": "PSNR (truth)",
    "round_trip_db": "round trip, dB",
    "calls": "calls",
    "second_accuracy": "2nd judge",
    "agreement": "agree",
    "second_csim": "identity (2nd)",
}
AXIS_HEADS = {"gamma": "γ", "t0": "t₀", "num_steps": "steps", "inverter": "inverter", "encode_gamma": "γ enc."}
THESIS_COLUMNS = ("target_accuracy", "psnr", "ssim", LPIPS)


def _head(column: str) -> str:
    return html.escape(HEADS.get(column, column))


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"


def comparison(sweep: Sweep) -> str:
    """Means over the targets of every point, beside the thesis' means at the same settings."""
    own, axes = people_columns(sweep.points), sweep.told
    groups = (
        f'<tr><th class="group" colspan="{len(axes)}">setting</th>'
        f'<th class="group edge" colspan="{len(own)}">this run (judge {html.escape(sweep.judge)})</th>'
        f'<th class="group edge" colspan="{len(THESIS_COLUMNS)}">thesis (AffectNet, HSEmotion)</th></tr>'
    )
    heads = "".join(f"<th>{AXIS_HEADS[axis]}</th>" for axis in axes)
    for names in (own, THESIS_COLUMNS):
        heads += "".join(f"<th{' class=edge' if i == 0 else ''}>{_head(name)}</th>" for i, name in enumerate(names))
    body = ""
    for point in sweep.points:
        at = point.setting
        printed = thesis.mean_at(at.t0, at.num_steps, at.gamma) or {}
        cells = "".join(_cell(_value(at.get(axis))) for axis in axes)
        cells += _own(own, point.row("mean"))
        cells += _figures(THESIS_COLUMNS, [printed.get(name) for name in THESIS_COLUMNS], "thesis")
        body += f"<tr>{cells}</tr>"
    for name in BASELINES:
        row = sweep.baseline.row(name) if sweep.baseline else None
        if row:
            cells = f'<td class="text" colspan="{len(axes)}">{name}</td>'
            cells += _own(own, row)
            body += f'<tr class="quiet">{cells}{_figures(THESIS_COLUMNS, [None] * 4, "thesis")}</tr>'
    return f'<div class="scroll"><table><thead>{groups}<tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _figures(names: Sequence[str], values: Sequence[Figure], kind: str) -> str:
    return "".join(
        _cell(rounded(name, value), f"{kind} edge".strip() if i == 0 else kind)
        for i, (name, value) in enumerate(zip(names, values, strict=True))
    )


def _own(names: Sequence[str], row: Row | None) -> str:
    """A row's figures, below each half the width of its 95 % interval, whose ends stand in the cell's title."""
    cells = ""
    for i, name in enumerate(names):
        value = row.get(name) if row else None
        low, high = (row.get(name + end) if row else None for end in (LOW, HIGH))
        shown, title = rounded(name, value), ""
        if low is not None and high is not None:
            title = f' title="95 %: {rounded(name, low)} to {rounded(name, high)}"'
            shown += f'<div class="half">± {rounded(name, (high - low) / 2)}</div>'
        cells += f"<td{' class=edge' if i == 0 else ''}{title}>{shown}</td>"
    return cells


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def every_row(points: Sequence[Point]) -> str:
    """All rows with the shares of the seen emotions: the darker, the more often."""
    names, shown = people_columns(points), told([point.setting for point in points if not point.baseline])
    heads = '<th class="text">row</th>' + "".join(f"<th>{AXIS_HEADS[axis]}</th>" for axis in shown)
    heads += "".join(f"<th{' class=edge' if i == 0 else ''}>{_head(name)}</th>" for i, name in enumerate(names))
    heads += "".join(f"<th{' class=edge' if i == 0 else ''}>{emotion}</th>" for i, emotion in enumerate(EMOTIONS))
    body = ""
    for point in points:
        for i, row in enumerate(point.rows):
            kinds = [*(["point"] if i == 0 else []), *(["strong"] if row.name == "mean" else [])]
            axes = ["–" if point.baseline else _value(point.setting.get(axis)) for axis in shown]
            cells = f'<td class="text">{html.escape(row.name)}</td>' + "".join(map(_cell, axes))
            cells += _own(names, row) + _shares(row)
            body += f'<tr class="{" ".join(kinds)}">{cells}<td class="edge">{row.count}</td></tr>'
    heads += '<th class="edge">n</th>'
    return f'<div class="scroll rows"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _shares(row: Row) -> str:
    cells = ""
    for i, emotion in enumerate(EMOTIONS):
        share = row.get(f"pred_{emotion}")
        kind = f"share{' edge' if i == 0 else ''}{' own' if row.name.split('_')[-1] == emotion else ''}"
        text = "" if share is None else f"{share:.3f}"
        cells += f'<td class="{kind}" style="--s:{share or 0:.3f}">{text}</td>'
    return cells


def judges_table(sweep: Sweep) -> str:
    """Who judged, with which weights, and how well the emotion judge does on faces with a label."""
    judges = sweep.points[0].judges
    roles = {"emotion": "emotion", "identity": "identity (cosine)", "perceptual": "perceptual distance"}
    rows = "".join(
        f'<tr><td class="text">{title}</td><td class="text"><b>{html.escape(judges[role]["name"])}</b></td>'
        f'<td class="text"><code>{html.escape(judges[role]["digest"])}</code></td></tr>'
        for role, title in roles.items()
    )
    head = '<tr><th class="text">what</th><th class="text">judge</th><th class="text">SHA-256 of its weights</th></tr>'
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>' + _referee(sweep)


def _referee(sweep: Sweep) -> str:
    base = sweep.baseline
    if base is None:
        return ""
    titles = {"unedited": "on the originals", "reconstruction": "on the reconstructions"}
    heads = '<th class="text">share of true labels seen</th><th>all</th>'
    heads += "".join(f"<th{' class=edge' if i == 0 else ''}>{emotion}</th>" for i, emotion in enumerate(EMOTIONS))
    body = ""
    for name, title in titles.items():
        values = [base.get(name, "target_accuracy")]
        values += [base.get(f"{name}_label_{emotion}", "target_accuracy") for emotion in EMOTIONS]
        cells = "".join(
            f'<td class="share{" edge" if i == 1 else ""}" style="--s:{(value or 0) * 0.5:.3f}">'
            f"{rounded('target_accuracy', value)}</td>"
            for i, value in enumerate(values)
        )
        body += f'<tr><td class="text">{title}</td>{cells}</tr>'
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
