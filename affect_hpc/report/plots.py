"""Curves over the swept axis and trade-offs, as PNG whose bytes depend on the figures alone."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.report import thesis
from affect_hpc.report.axes import NAMES
from affect_hpc.report.tables import LPIPS, Point, Sweep, best_point

COLOURS: Mapping[str, str] = {
    "neutral": "#8a8a8a",
    "happy": "#e8a317",
    "sad": "#2f6fb3",
    "surprised": "#d1669f",
    "scared": "#7a5bb0",
    "disgusted": "#2b9a76",
    "angry": "#d2492a",
    "contempt": "#8c6d31",
}
INK, QUIET, ACCENT = "#22262b", "#8b929a", "#3355cc"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": "#c9ced4",
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e9ecef",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
}
THESIS_GREYS = {400: "#b9bfc6", 500: "#8b929a", 600: "#5d646b"}
DARK = 0.6
"""Share above which a cell of the heat map is dark enough for white digits."""


def all_plots(sweep: Sweep) -> dict[str, bytes]:
    """File stem -> PNG of every plot that the sweep has figures for."""
    judge, perceptual = sweep.points[0].judge, sweep.points[0].perceptual
    identity = str(sweep.points[0].judges["identity"]["name"])
    wanted = {
        "accuracy": ("target_accuracy", f"target accuracy (emotion judge: {judge})"),
        "psnr": ("psnr", "PSNR to the reconstruction, dB"),
        "perceptual": (perceptual, f"{_axis_name(perceptual)} to the reconstruction"),
        "csim": ("csim", f"identity cosine to the reconstruction ({identity})"),
        "psnr_truth": ("psnr_truth", "PSNR to the rendered target face, dB"),
    }
    with mpl.rc_context(STYLE):
        plots = {stem: curves(sweep, *what) for stem, what in wanted.items() if sweep.has(what[0])}
        plots["seen"] = seen(sweep, best_point(sweep))
        plots["tradeoff"] = tradeoff(sweep)
    return plots


def perceptual_name(name: str) -> str:
    """How an axis names the perceptual distance: LPIPS, or a stand-in by its network."""
    return "LPIPS" if name == LPIPS else f"perceptual distance by {name} (not LPIPS)"


def _axis_name(perceptual: str) -> str:
    return perceptual_name(perceptual).replace(" by ", " by\n")


def curves(sweep: Sweep, column: str, label: str) -> bytes:
    """One figure column over the swept axis: a panel per setting of the other axes, a line per target emotion."""
    panels = sweep.panels()
    figure = Figure(figsize=(1.7 + 3.9 * len(panels), 3.5), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, points) in zip(axes, panels.items(), strict=True):
        for target in sweep.targets():
            ax.plot(*_line(points, sweep.axis, target, column), "o-", color=COLOURS[target], label=target)
        if len(sweep.targets()) > 1:
            ax.plot(*_line(points, sweep.axis, "mean", column), "o-", color=INK, label="mean", linewidth=2.6)
        _reference_line(ax, sweep, column)
        ax.set_title(title)
        ax.set_xlabel(NAMES[sweep.axis])
        if sweep.axis != "inverter":  # names are their own ticks
            ax.set_xticks([point.setting.get(sweep.axis) for point in points])
        if column == "target_accuracy":
            ax.set_ylim(0, 1.02)
    axes[0].set_ylabel(label)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center")
    return png(figure)


def _line(points: Sequence[Point], axis: str, row: str, column: str) -> tuple[list[Any], list[float]]:
    """Places along the axis and figures of a row, where it has any."""
    pairs = [(point.setting.get(axis), value) for point in points if (value := point.get(row, column)) is not None]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _reference_line(ax: Axes, sweep: Sweep, column: str) -> None:
    """What the unedited faces give, where that is a fair mark for the column."""
    marks: dict[str, float | None] = {}
    if column == "target_accuracy" and sweep.baseline is not None:
        marks["unedited faces,\ntrue label"] = sweep.baseline.get("unedited", column)
    elif column == "psnr_truth":
        marks = {f"doing nothing:\n{what}": doing_nothing(sweep, row) for row, what in UNEDITED.items()}
    dashes = ((0, (4, 3)), (0, (1, 2)))
    for (label, value), dash in zip(marks.items(), dashes, strict=False):
        if value is not None:
            ax.axhline(value, color=QUIET, linestyle=dash, linewidth=1.3, label=label)


UNEDITED: Mapping[str, str] = {"reconstruction": "reconstruction", "unedited": "original"}


def doing_nothing(sweep: Sweep, row: str) -> float | None:
    """PSNR to the truth, mean over the targets, of faces that nobody edited: ``row`` is reconstruction or unedited."""
    if sweep.baseline is None:
        return None
    found = [sweep.baseline.get(f"{row}_as_{target}", "psnr_truth") for target in sweep.targets()]
    values = [value for value in found if value is not None]
    return sum(values) / len(values) if values else None


def seen(sweep: Sweep, point: Point) -> bytes:
    """What the judge sees at one point: a row per wanted emotion, a column per seen one, shares in percent."""
    targets = point.targets()
    shares = [[point.get(target, f"pred_{emotion}") for emotion in EMOTIONS] for target in targets]
    figure = Figure(figsize=(5.6, 3.5), layout="constrained")
    ax = figure.subplots()
    ax.imshow([[share or 0.0 for share in row] for row in shares], cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            text = "–" if share is None else f"{100 * share:.0f}"
            own = targets[i] == EMOTIONS[j]
            colour = "white" if (share or 0) > DARK else INK
            ax.text(
                j, i, text, ha="center", va="center", color=colour, weight="bold" if own else "normal", fontsize=8.5
            )
    ax.set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(targets)), targets)
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_ylabel("wanted")
    ax.set_xlabel(f"seen by {point.judge}, %")
    ax.set_title(", ".join(map(point.setting.text, sweep.told)))
    return png(figure)


def tradeoff(sweep: Sweep) -> bytes:
    """Target accuracy against what it costs, means over the targets; the thesis' Table 4.2 as a second series.

    A stand-in for LPIPS has an axis of its own, without the thesis: two networks' distances are not one scale.
    """
    perceptual = sweep.points[0].perceptual
    figure = Figure(figsize=(10.2, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _thesis(left, "psnr")
    _own(left, sweep, "psnr")
    left.set_xlabel("PSNR to the reconstruction, dB  (right is closer)")
    left.set_ylabel("target accuracy, mean over targets")
    if perceptual == LPIPS:
        _thesis(right, LPIPS)
    _own(right, sweep, perceptual)
    right.set_xlabel(f"{perceptual_name(perceptual)}  (right is closer)")
    right.invert_xaxis()
    for ax in (left, right):
        ax.set_ylim(0, 1.04)
        ax.xaxis.set_major_locator(MaxNLocator(6))
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8.5)
    return png(figure)


def _own(ax: Axes, sweep: Sweep, column: str) -> None:
    colours = [ACCENT, "#d2492a", "#2b9a76", "#7a5bb0", "#e8a317"]
    for i, (title, points) in enumerate(sweep.panels().items()):
        pairs = [(p, p.get("mean", column), p.get("mean", "target_accuracy")) for p in points]
        known = [(p, x, y) for p, x, y in pairs if x is not None and y is not None]
        colour = colours[i % len(colours)]
        label = f"this run: {title} (judge {sweep.judge})"
        ax.plot([x for _, x, _ in known], [y for _, _, y in known], "o-", color=colour, label=label, zorder=3)
        # Several curves cross: only their ends are then named.
        named = known if len(sweep.panels()) == 1 else [known[0], known[-1]] if known else []
        for point, x, y in named:
            text = point.setting.text(sweep.axis)
            ax.annotate(text, (x, y), (5, 5), textcoords="offset points", fontsize=8, color=colour)


def _thesis(ax: Axes, column: str) -> None:
    means = thesis.means("4.2")
    for t0 in sorted({point[0] for point in means}):
        known = sorted((gamma, row) for (level, _, gamma), row in means.items() if level == t0)
        xs, ys = [row[column] for _, row in known], [row["target_accuracy"] for _, row in known]
        label = f"thesis Table 4.2, t₀ {t0} (AffectNet, judge HSEmotion)"
        ax.plot(xs, ys, "s--", color=THESIS_GREYS[t0], label=label, linewidth=1.2, markersize=3.5)
        for (gamma, _), x, y in zip(known, xs, ys, strict=True):
            if gamma in (known[0][0], known[-1][0]):
                shift = (5, -9) if gamma == known[0][0] else (-17, -10)
                ax.annotate(
                    f"γ {gamma:g}", (x, y), shift, textcoords="offset points", fontsize=7.5, color=THESIS_GREYS[t0]
                )


def png(figure: Figure) -> bytes:
    """The figure as PNG without date or program version: equal figures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
