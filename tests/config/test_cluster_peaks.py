"""What a cluster states of its devices is checked."""

import pytest

from affect_hpc.config.cluster import ClusterConfig
from affect_hpc.core.errors import UserError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peak_tflops": {"fp8": 1.0}}, "cluster.peak_tflops='fp8' is unknown"),
        ({"peak_tflops": {"bf16": -1.0}}, r"cluster\.peak_tflops\.bf16=-1 TFLOP/s is out of range"),
        ({"utilisation": [0.5]}, r"cluster\.utilisation=\[0\.5\] is no range"),
        ({"utilisation": [0.5, 0.2]}, "is no range"),
    ],
)
def test_peaks_and_shares_are_checked(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ClusterConfig(name="any", **values).check()  # type: ignore[arg-type]
