"""What is kept of every image reads back to the bit, and intervals are those of faces, however the work was divided."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.metrics.intervals import Interval, interval
from affect_hpc.metrics.paired import psnr, unit_range
from affect_hpc.metrics.samples import PLAIN, intervals, read_samples, read_settings, write_samples
from affect_hpc.metrics.suite import RowState, Score, Shares

TARGETS = list(EMOTIONS[1:7])
EXTREME = [5e-324, -0.0, 0.1, 1 / 3, 1.7976931348623157e308, -2.2250738585072014e-308, 2.0**60 + 1, None]
SEED, DRAWS = 11, 400

Line = dict[str, Any]


def line(key: str, row: str, **metrics: float | None) -> Line:
    return {"key": key, "label": EMOTIONS[int(key[1:]) % 8], "row": row, "seen": "sad", **metrics}


def some_lines(count: int = 40) -> list[Line]:
    """Six targets of each face; ``agreement`` is undefined for every third face, ``psnr_truth`` known of one row."""
    numbers = np.random.default_rng(3)
    lines = []
    for i in range(count):
        for row in TARGETS:
            one = line(f"k{i:03d}", row, psnr=float(numbers.normal(20, 4)))
            one["agreement"] = None if i % 3 == 0 else float(numbers.integers(2))
            lines.append(one | ({"psnr_truth": float(numbers.normal())} if row == "sad" else {}))
    return lines


def shuffled(lines: list[Line], seed: int) -> list[Line]:
    """The lines in another order, and the values of each as well."""
    turn = random.Random(seed)
    return [dict(turn.sample(sorted(one.items()), len(one))) for one in turn.sample(lines, len(lines))]


def groups() -> dict[str, list[str]]:
    return {row: [row] for row in TARGETS} | {"mean": TARGETS}


def width(ends: Interval) -> float:
    return ends.high - ends.low


def bits(value: float | None) -> str | None:
    return None if value is None else value.hex()


def test_lines_read_back_to_the_bit_in_the_order_of_row_and_key(tmp_path: Path) -> None:
    lines = [line(f"k{i}", "sad", psnr=value, ssim=1.0) for i, value in enumerate(EXTREME)]
    lines.append(line("k0", "happy", lpips=0.25))
    write_samples(tmp_path / "s.parquet", shuffled(lines, 1), {})
    found = read_samples(tmp_path / "s.parquet")
    assert [(one["row"], one["key"]) for one in found] == [("happy", "k0"), *(("sad", f"k{i}") for i in range(8))]
    assert [bits(one["psnr"]) for one in found] == [None, *map(bits, EXTREME)]
    assert found[0] == {**line("k0", "happy", lpips=0.25), "psnr": None, "ssim": None}, "what is not known is empty"
    assert [one["lpips"] for one in found[1:]] == [None] * 8


def test_what_samples_jsonl_tells_comes_through_unchanged(tmp_path: Path) -> None:
    """The lines go through text between evaluate and reduce."""
    lines = some_lines(5)
    write_samples(tmp_path / "a.parquet", lines, {})
    write_samples(tmp_path / "b.parquet", [json.loads(json.dumps(one)) for one in lines], {})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_no_order_of_lines_nor_of_values_nor_of_settings_changes_a_byte(tmp_path: Path) -> None:
    lines = some_lines()
    write_samples(tmp_path / "a.parquet", lines, {"b": 1, "a": 2})
    for seed in range(3):
        write_samples(tmp_path / "b.parquet", iter(shuffled(lines, seed)), {"a": 2, "b": 1})
        assert (tmp_path / "b.parquet").read_bytes() == (tmp_path / "a.parquet").read_bytes()


def test_columns_can_be_chosen_and_are_the_same_ones(tmp_path: Path) -> None:
    write_samples(tmp_path / "s.parquet", some_lines(4), {})
    names = pq.read_schema(tmp_path / "s.parquet").names
    assert names == [*PLAIN, "agreement", "psnr", "psnr_truth"]
    whole = read_samples(tmp_path / "s.parquet")
    chosen = read_samples(tmp_path / "s.parquet", ["row", "agreement"])
    assert chosen == [{"row": one["row"], "agreement": one["agreement"]} for one in whole]


def test_settings_come_back_with_their_types_and_depths(tmp_path: Path) -> None:
    settings = {"point": {"gamma": 0.1, "baseline": False, "ö": None}, "judges": {"emotion": {"classes": ["sad", "x"]}}}
    write_samples(tmp_path / "s.parquet", some_lines(2), settings)
    assert read_settings(tmp_path / "s.parquet") == settings
    assert type(read_settings(tmp_path / "s.parquet")["point"]["baseline"]) is bool


def test_a_plain_row_has_the_interval_of_its_values() -> None:
    lines = some_lines()
    found = intervals(lines, groups(), SEED, DRAWS)
    for row in TARGETS:
        for metric in ("psnr", "agreement"):
            own = {one["key"]: one[metric] for one in lines if one["row"] == row}
            assert found[row][metric] == interval(own, SEED, draws=DRAWS)
    assert "psnr_truth" in found["sad"] and "psnr_truth" not in found["happy"]
    assert found["mean"]["psnr_truth"] == found["sad"]["psnr_truth"], "the only row that knows it"


def test_no_division_and_no_order_changes_an_interval() -> None:
    lines = some_lines()
    expected = intervals(lines, groups(), SEED, DRAWS)
    for seed in range(3):
        turned = shuffled(lines, seed)
        cut = random.Random(seed).randrange(len(turned))
        assert intervals(iter(turned[cut:] + turned[:cut]), groups(), SEED, DRAWS) == expected
    assert intervals(lines, groups(), SEED + 1, DRAWS) != expected


def test_images_of_one_face_that_say_the_same_make_a_mean_no_surer() -> None:
    """Six times the same verdict on each face is one verdict, not six."""
    numbers = np.random.default_rng(0)
    faces = {f"k{i:03d}": float(numbers.integers(1000)) / 8 for i in range(60)}  # sums and sixths of these are exact
    lines = [line(key, row, psnr=value) for key, value in faces.items() for row in TARGETS]
    found = intervals(lines, groups(), SEED, DRAWS)
    assert found["mean"]["psnr"] == found["happy"]["psnr"] == interval(faces, SEED, draws=DRAWS)
    images = {f"{one['key']}-{one['row']}": one["psnr"] for one in lines}
    naive = interval(images, SEED, draws=DRAWS)
    assert naive and width(found["mean"]["psnr"]) > 2 * width(naive), "sqrt(6) = 2.4 times as wide as if independent"


def test_images_of_one_face_that_do_not_hang_together_narrow_the_mean() -> None:
    numbers = np.random.default_rng(1)
    lines = [line(f"k{i:03d}", row, psnr=float(numbers.normal())) for i in range(200) for row in TARGETS]
    found = intervals(lines, groups(), SEED, 2000)
    rows = np.mean([width(found[row]["psnr"]) for row in TARGETS])
    assert rows / width(found["mean"]["psnr"]) == pytest.approx(math.sqrt(6), rel=0.15)


def test_opposite_images_of_a_face_leave_nothing_to_scatter() -> None:
    """Only drawing a face with all of its images sees it: happy is high wherever sad is low."""
    numbers = np.random.default_rng(2)
    lines = []
    for i in range(30):
        value = float(numbers.integers(1, 64))
        lines += [line(f"k{i:03d}", "happy", psnr=value), line(f"k{i:03d}", "sad", psnr=-value)]
    found = intervals(lines, {"happy": ["happy"], "mean": ["happy", "sad"]}, SEED, DRAWS)
    assert found["mean"]["psnr"] == (0, 0) and width(found["happy"]["psnr"]) > 5


def test_undefined_values_do_not_count_and_one_value_has_no_interval() -> None:
    lines = [line(f"k{i:03d}", "sad", psnr=float(i), csim=float(i) if i < 2 else None) for i in range(9)]
    lines += [line(f"k{i:03d}", "happy", psnr=float(i), csim=0.5 if i == 0 else None, lpips=None) for i in range(9)]
    found = intervals(lines, {"sad": ["sad"], "happy": ["happy"], "neutral": ["neutral"]}, SEED, DRAWS)
    assert found["sad"]["csim"] == interval({"a": 0.0, "b": 1.0}, SEED, draws=DRAWS)
    assert found["happy"].keys() == {"psnr"}, "one value of csim, none of lpips"
    assert "neutral" not in found, "nobody judged it"
    twice = [line("k000", row, psnr=float(i)) for i, row in enumerate(TARGETS)]
    assert intervals(twice, {"mean": TARGETS}, SEED, DRAWS) == {}, "six images of one face are one sample"


def test_equal_pictures_and_refused_values_keep_infinity_out() -> None:
    """What a table could not average never gets as far as an interval."""
    picture = unit_range([np.full((16, 16, 3), 7, np.uint8)])
    (most,) = psnr(picture, picture)
    assert most == pytest.approx(80)
    with pytest.raises(ValueError, match="a judge gave a value that is not a finite number"):
        RowState(Shares.over(EMOTIONS)).add(Score({"psnr": math.inf}, "sad"))


def test_the_interval_of_a_joined_row_is_of_the_mean_over_images() -> None:
    """A face with one known value weighs a sixth of one with six, as it does in the mean that the table shows."""
    targets = [f"target {number}" for number in range(6)]
    found = [
        {
            **{"key": f"{face:03d}", "label": "sad", "row": target, "seen": "sad"},
            "agreement": 1.0 if face % 2 else (0.0 if number == 0 else None),
        }
        for face in range(40)
        for number, target in enumerate(targets)
    ]
    known = [line["agreement"] for line in found if line["agreement"] is not None]
    low, high = intervals(found, {"mean": targets}, seed=0, draws=1000)["mean"]["agreement"]
    assert low < sum(known) / len(known) < high
    assert low > 0.65, "the mean over faces, 0.5, has no place in it"
