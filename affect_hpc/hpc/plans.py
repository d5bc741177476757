"""From configs to a graph: all sweep points up to the stage that is asked for."""

from collections.abc import Sequence
from pathlib import Path

from affect_hpc.config.checks import one_of
from affect_hpc.config.root import Config
from affect_hpc.core.errors import UserError
from affect_hpc.hpc.advice import check_trainings
from affect_hpc.hpc.catalog import CATALOG
from affect_hpc.hpc.graph import Graph, Node
from affect_hpc.hpc.planner import Planner
from affect_hpc.hpc.points import REPORTS, nodes_of, report


def plan(configs: Sequence[Config]) -> tuple[Graph, list[dict[str, Node]]]:
    """The graph of all sweep points, and the nodes of each point by kind.

    Raises:
        UserError: a value is out of range, the asked stage is not part of the experiment, or what it needs is not here.
    """
    for cfg in configs:
        cfg.check()
        one_of("stage", cfg.stage, CATALOG)
    first = configs[0]
    others = sorted({cfg.experiment.name for cfg in configs} - {first.experiment.name})
    if others:
        raise UserError(
            f"experiment={first.experiment.name},{','.join(others)} are several experiments in one launch, and no"
            " report shows both: launch each by itself; what they share is done once all the same."
        )
    planner = Planner(Path(first.store).absolute())
    points = [nodes_of(planner, cfg) for cfg in configs]
    last = REPORTS[first.experiment]
    if first.stage in ("report", last) and not first.data.holds_clips:
        graph = Graph([report(planner, first, points)])
    else:
        if any(first.stage not in point for point in points):
            raise UserError(_refusal(first, points[0], last))
        graph = Graph([point[first.stage] for point in points])
    check_trainings(graph, first.cluster, planner.store)
    return graph, points


def _refusal(first: Config, point: dict[str, Node], last: str) -> str:
    if first.data.holds_clips:
        return (
            f"stage={first.stage} is not part of this plan, since data={first.data.name} holds talking clips: give"
            " stage=prepare_shards or stage=precompute_audio."
        )
    return (
        f"stage={first.stage} is not part of experiment={first.experiment.name}, which runs {', '.join(point)}, {last}."
    )
