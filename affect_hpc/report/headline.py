"""The few figures that stand on top of a report."""

from affect_hpc.report.furniture import card
from affect_hpc.report.plots import doing_nothing
from affect_hpc.report.tables import Sweep, best_point


def cards(sweep: Sweep) -> str:
    """The headline figures that this sweep has, as HTML."""
    best = best_point(sweep)
    where = sweep.where(best)
    shown: list[str] = []

    def add(name: str, value: float | None, scale: float, digits: int, unit: str, note: str) -> None:
        if value is not None:
            figure = f"{value * scale:.{digits}f}<small> {unit}</small>"
            shown.append(card(name, figure, note))

    base = sweep.baseline
    note = f"best of the sweep, at {where}; mean over targets"
    add("Target accuracy", best.get("mean", "target_accuracy"), 100, 1, "%", note)
    add("PSNR to the reconstruction", best.get("mean", "psnr"), 1, 1, "dB", f"at {where}: what the edit changed")
    add("Same person", best.get("mean", "csim"), 1, 3, "cosine", f"identity to the reconstruction, at {where}")
    truth = max(sweep.points, key=lambda point: point.get("mean", "psnr_truth") or 0.0)
    nothing = doing_nothing(sweep, "reconstruction")
    original = doing_nothing(sweep, "unedited")
    note = f"best at {sweep.where(truth)}"
    if nothing is not None and original is not None:
        note += f"; doing nothing: {nothing:.1f} dB (reconstruction), {original:.1f} dB (original)"
    add("PSNR to the true target face", truth.get("mean", "psnr_truth"), 1, 1, "dB", note)
    if base is not None:
        add("First stage", base.get("reconstruction", "psnr"), 1, 1, "dB", "reconstruction to original: the ceiling")
        seen = base.get("unedited", "target_accuracy")
        note = "true label seen in reconstructions" + ("" if seen is None else f"; in originals {100 * seen:.1f} %")
        add("Judge", base.get("reconstruction", "target_accuracy"), 100, 1, "%", note)
    trips = [point for point in sweep.points if point.get("round_trip", "psnr") is not None]
    if trips:
        gentle = min(trips, key=lambda point: point.setting)
        note = f"decoded under the true label at {sweep.where(gentle)}"
        add("Round trip", gentle.get("round_trip", "psnr"), 1, 1, "dB", note)
    return "".join(shown)
