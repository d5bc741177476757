"""What the plan says of its estimates: in words, with GPU hours; what is refused, and what is pointless."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from affect_hpc.config.cluster import ClusterConfig
from affect_hpc.config.train import EngineName
from affect_hpc.core.errors import UserError
from affect_hpc.hpc.estimates import estimate, ranks_of, resources_of, training_memory, trainings
from affect_hpc.hpc.graph import Graph, Node

GB = 1e9
SMALL_GB = 8.0
"""Weights, gradients and moments below this are no burden: a tenth of a large GPU's memory."""
SHOWN_GB = 0.05
"""Smaller shares of the memory are not named."""
SHOWN_HOURS = 0.1


def described(nodes: Sequence[Node], cluster: ClusterConfig) -> list[str]:
    """Two lines on the runs of a kind, parameters with arithmetic and memory; none for kinds without networks of ours.

    Hours are the arithmetic of all runs divided by the stated share of the stated peak; they are left out where the
    cluster states no peak, and with the sum where only the prepared corpus can tell the number of faces.
    """
    asked = resources_of(nodes[0], cluster)
    found = [one for node in nodes if (one := estimate(node, asked)) is not None]
    if len(found) < len(nodes) or not found:
        return []
    largest = max(found, key=lambda one: one.total_memory)
    work = f"{amount(largest.parameters)} parameters, {_spread([one.flops for one in found])}FLOP"
    work += " a sample forward" if largest.trains else f" a {largest.sample}"
    total = sum(one.flops_run for one in found)
    if all(one.flops_run for one in found):
        work += f", {amount(total)}FLOP in all"
        peak = cluster.peak_tflops.get(largest.precision.name, 0.0)
        if peak:
            work += f": {_gpu_hours(total, peak, cluster.utilisation)} of {peak:g} TFLOP/s ({largest.precision.name})"
    held = [
        f"{name} {size / GB:.1f}"
        for name, size in largest.memory.items()
        if size >= SHOWN_GB * GB and name != "activations"
    ]
    held.append(f"activations {largest.memory['activations'] / GB:.1f}")
    batch = f"{'micro batch' if largest.trains else 'batch'} {largest.batch}"
    memory = f"{largest.total_memory / GB:.1f} GB a {'rank' if largest.trains else 'job'} at {batch}: {', '.join(held)}"
    return [work, memory]


def amount(value: float) -> str:
    """Three digits and a prefix, such as ``157 M``."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if value < 999.5:
            return f"{value:.3g} {prefix}"
        value /= 1000
    return f"{value:.3g} E"


def _spread(values: Sequence[float]) -> str:
    low, high = amount(min(values)), amount(max(values))
    if low == high:
        return low
    same = low.split()[-1] == high.split()[-1]
    return f"{low.split()[0] if same else low.strip()}-{high}"


def _gpu_hours(flops: float, peak: float, utilisation: Sequence[float]) -> str:
    low, high = utilisation
    fast, slow = (flops / (peak * 1e12 * share) / 3600 for share in (high, low))
    hours = f"{_digits(fast)}-{_digits(slow)}" if slow >= SHOWN_HOURS else f"under {SHOWN_HOURS:g}"
    return f"{hours} GPU hours at {low * 100:g}-{high * 100:g} %"


def _digits(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def warnings(node: Node, cluster: ClusterConfig) -> Iterator[str]:
    """What of a run's settings is pointless or will not fit; none of it is refused."""
    asked = resources_of(node, cluster)
    ranks, on_gpu = ranks_of(asked), asked.gpus_per_node > 0
    found = estimate(node, asked)
    if found is None:
        return
    for name, config in trainings(node).items():
        stage = config.zero_stage
        if config.engine is not EngineName.deepspeed or stage == 0:
            continue
        key = f"stages.{node.kind}.{name}.zero_stage={stage}"
        if ranks == 1:
            yield f"{key} is pointless here: one rank has nobody to share with; take zero=0, or more ranks."
            continue
        divided, whole = (
            sum(training_memory(found.parameters, one, ranks, on_gpu).values())
            for one in (config, replace(config, zero_stage=0))
        )
        if whole < SMALL_GB * GB:
            saved = (whole - divided) / GB
            effect = f"saves {saved:.1f} of {whole / GB:.1f} GB" if saved > 0 else f"takes {-saved:.1f} GB more"
            cost = " and sends all weights twice a step" if stage == 3 else ""
            yield (
                f"{key} is pointless here: for {amount(found.parameters)} parameters on {ranks} ranks it {effect} a"
                f" rank{cost}; take zero=0."
            )
    needed = found.total_memory * asked.tasks_per_node
    if not on_gpu and needed > asked.mem_gb * 2**30:
        yield (
            f"{node.kind} needs about {needed / 2**30:.1f} GB a node and asks for {asked.mem_gb:g}: give more"
            f" (cluster.resources.{node.stage}) or a smaller batch."
        )


def check_trainings(graph: Graph, cluster: ClusterConfig, store: Path) -> None:
    """Refuse at once what the engine of a training would refuse after waiting for its turn.

    Raises:
        UserError: the batch cannot be divided among the ranks, or the engine cannot do what is asked.
    """
    for node in graph.nodes:
        configs = trainings(node)
        # A finished training needs nothing any more; without resources the plan is only looked at.
        if not configs or not cluster.resources or node.run_dir(store).is_done():
            continue
        ranks = ranks_of(resources_of(node, cluster))
        for name, config in configs.items():
            key, batch, micro = f"stages.{node.kind}.{name}", config.global_batch_size, config.micro_batch(ranks)
            if node.kind == "train_vqgan" and config.zero_stage > 2:
                raise UserError(
                    f"{key}.zero_stage={config.zero_stage} is too high: the adaptive weight of the adversarial loss"
                    " needs the whole last layer on each rank, so the first stage takes 0, 1 or 2."
                )
            if config.engine is EngineName.plain and ranks > 1:
                raise UserError(
                    f"{key}.engine=plain runs on one process, cluster.resources asks for {ranks}: use"
                    f" {key}.engine=deepspeed or tasks_per_node=1 on one node."
                )
            if micro < 1 or batch % (micro * ranks):
                raise UserError(
                    f"{key}.global_batch_size={batch} is no multiple of micro_batch_size={micro} times {ranks} ranks:"
                    f" choose a micro batch that divides {batch / ranks:g}, or another number of ranks."
                )
