"""The shipped thesis tables agree with themselves and with Table 4.5."""

import pytest

from affect_hpc.core.emotions import TARGETS
from affect_hpc.report import thesis


@pytest.mark.parametrize(("name", "rows"), [("4.2", 89), ("4.3", 53)])
def test_every_row_adds_up(name: str, rows: int) -> None:
    table = thesis.table(name)
    assert len(table) == rows
    for row in table:
        shares = [value for column, value in row.figures.items() if column.startswith("pred_")]
        assert sum(shares) == pytest.approx(1.0, abs=0.0051)
        assert row.figures["target_accuracy"] == row.figures[f"pred_{row.target}"]


def test_doubtful_rows_are_left_out_and_so_are_their_means() -> None:
    assert not [row for row in thesis.table("4.2") if (row.target, row.t0, row.gamma) == ("surprised", 600, 2.0)]
    assert not [row for row in thesis.table("4.3") if (row.target, row.t0, row.num_steps) == ("surprised", 400, 20)]
    assert len(thesis.means("4.2")) == 14
    assert thesis.mean_at(600, 40, 2.0) is None


def test_mean_is_that_of_table_4_5() -> None:
    mean = thesis.mean_at(500, 40, 5.0)
    assert mean is not None
    assert mean["target_accuracy"] == pytest.approx(0.742, abs=5e-4)
    assert mean["psnr"] == pytest.approx(25.5167, abs=5e-5)
    assert mean["ssim"] == pytest.approx(0.836, abs=5e-4)
    assert mean["lpips"] == pytest.approx(0.096, abs=5e-4)


def test_both_tables_hold_the_same_40_step_rows() -> None:
    other = {(row.target, row.t0): row.figures for row in thesis.table("4.2") if row.gamma == 3.0}
    own = {(row.target, row.t0): row.figures for row in thesis.table("4.3") if row.num_steps == 40}
    assert own == other
    assert {target for target, _ in own} == set(TARGETS)
