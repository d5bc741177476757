"""An estimate that must be there."""

from affect_hpc.config.cluster import Resources
from affect_hpc.hpc.estimates import Estimate, estimate
from affect_hpc.hpc.graph import Node

GPU = Resources(gpus_per_node=1)
CPU = Resources()


def estimated(node: Node, asked: Resources = GPU) -> Estimate:
    """Of one run."""
    found = estimate(node, asked)
    assert found is not None
    return found
