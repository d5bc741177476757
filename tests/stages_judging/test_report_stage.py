"""The report of a small sweep: exact columns, exact figures, equal bytes, nothing from outside."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from judging_world import COUNT, GAMMAS, TARGETS, MeanDistance, World, face, label_of, new_world, reported, tables_of
from PIL import Image

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json
from affect_hpc.metrics.suite import Judges
from affect_hpc.report import sheets
from affect_hpc.report.tables import load_points, markdown
from affect_hpc.stages.report import EVERY_TARGET

HEAD = (
    "judge,y_target,t0,ddim_steps,gamma,psnr,ssim,lpips,csim,target_accuracy,pred_neutral,pred_happy,pred_sad,"
    "pred_surprised,pred_scared,pred_disgusted,pred_angry,pred_contempt,n"
)


@dataclass(frozen=True)
class Reported:
    """One report that several tests look at."""

    root: Path
    tables: tuple[Path, ...]
    out: Path


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reported]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = new_world(tmp_path_factory.mktemp("toy"), monkeypatch)
        tables = tables_of(world)
        yield Reported(world.root, tables, reported(world, tables))


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_table_has_the_fixed_columns_and_every_digit(toy: Reported) -> None:
    tables, out = toy.tables, toy.out
    assert (out / "table.csv").read_text().startswith(HEAD + ",psnr_original,")
    rows = {(row["gamma"], row["y_target"]): row for row in rows_of(out)}
    assert len(rows) == len(rows_of(out))
    metrics = {row["y_target"]: row for row in read_json(tables[2] / "metrics.json")["rows"]}
    row = rows["2.0", "sad"]
    assert float(row["psnr"]) == metrics["sad"]["psnr"]
    assert float(row["psnr_truth"]) == metrics["sad"]["psnr_truth"]
    assert (row["judge"], row["t0"], row["ddim_steps"], row["n"]) == ("patch", "500", "40", str(COUNT))
    assert {name for gamma, name in rows if gamma == "1.0"} == {*TARGETS, "mean", "round_trip"}
    assert rows["", "unedited"]["psnr"] == ""
    assert float(rows["", "unedited"]["target_accuracy"]) == 1.0
    assert rows["", "reconstruction"]["psnr"] == rows["", "reconstruction"]["psnr_original"] != ""


def test_a_stand_in_never_fills_the_lpips_column(toy: Reported) -> None:
    rows = rows_of(toy.out)
    assert {row["lpips"] for row in rows} == {""}
    assert {row["perceptual_judge"] for row in rows} == {"efficientnet_lite0"}
    assert all(row["efficientnet_lite0"] for row in rows if row["y_target"] in TARGETS)


def test_lpips_fills_its_column_alone(world: World) -> None:
    world.judges = Judges(world.judges.emotion, world.judges.identity, MeanDistance("lpips"))
    rows = rows_of(reported(world, tables_of(world)))
    assert all(row["lpips"] and row["lpips_original"] for row in rows if row["y_target"] in TARGETS)
    assert "efficientnet_lite0" not in rows[0]


def test_equal_inputs_give_equal_bytes(world: World) -> None:
    tables = tables_of(world)
    one, other = reported(world, tables, "a"), reported(world, tables[::-1], "b")
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    plots = ("accuracy", "csim", "perceptual", "psnr", "psnr_truth", "seen", "tradeoff")
    assert {f"plots/{stem}.png" for stem in plots} <= {name.as_posix() for name in names}
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_page_needs_nothing_from_outside_and_shows_no_machine(toy: Reported) -> None:
    text = (toy.out / "index.html").read_text()
    assert "<script" not in text
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', text)
    assert all(source.startswith(("data:image/", "#", "plots/", "sheets/", "table.csv")) for source in sources)
    assert "url(" not in text
    assert str(toy.root) not in text
    assert "toy &lt;sweep&gt;" in text
    assert "Corpus: free" in text


class Balance(HTMLParser):
    """Every element that opens closes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)
        if tag == "tr":
            self.cells.append(0)
        if tag in ("td", "th"):
            self.cells[-1] += int(dict(attrs).get("colspan") or 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_its_tables_are_full(toy: Reported) -> None:
    page = Balance()
    text = (toy.out / "index.html").read_text()
    page.feed(text)
    assert page.open == []
    assert text.count("<table>") == 4
    rows = len(rows_of(toy.out))
    assert len(set(page.cells)) == 4  # one width per table: no cell is missing
    assert max(page.cells.count(width) for width in page.cells) == rows + 1


def test_sheet_shows_original_reconstruction_edits_and_truth(toy: Reported) -> None:
    with Image.open(toy.out / "sheets/sad.png") as opened:
        sheet = opened.convert("RGB")
    assert sheet.width == 2 * sheets.MARGIN + sheets.LABEL + (2 + len(GAMMAS) + 1) * (128 + sheets.GAP) - sheets.GAP
    left, top = sheets.MARGIN + sheets.LABEL, sheets.MARGIN + sheets.HEAD
    # The first row is the first neutral face: its corner tells the emotion, in the middle of that corner.
    assert label_of(0) == "neutral"
    expected = [face(0, "neutral"), face(0, "neutral", 4.0), face(0, "sad", 8.0), face(0, "sad", 16.0), face(0, "sad")]
    for j, image in enumerate(expected):
        place = (left + j * (128 + sheets.GAP) + 4, top + 4)
        assert sheet.getpixel(place) == tuple(int(level) for level in image[1, 1])


def test_a_sheet_shows_every_target_where_accuracy_is_highest(toy: Reported) -> None:
    rows = [row for row in rows_of(toy.out) if row["y_target"] == "mean"]
    means = {float(row["gamma"]): float(row["target_accuracy"]) for row in rows}
    best = max(means, key=lambda gamma: (means[gamma], -gamma))
    told = f"every target at γ {best:g}, t₀ 500, 40 steps, where accuracy is highest"
    assert told in (toy.out / "index.html").read_text()
    with Image.open(toy.out / f"sheets/{EVERY_TARGET}.png") as opened:
        sheet = opened.convert("RGB")
    assert sheet.width == 2 * sheets.MARGIN + sheets.LABEL + (2 + len(TARGETS)) * (128 + sheets.GAP) - sheets.GAP
    left, top = sheets.MARGIN + sheets.LABEL, sheets.MARGIN + sheets.HEAD
    for j, target in enumerate(TARGETS):
        place = (left + (2 + j) * (128 + sheets.GAP) + 4, top + 4)
        assert sheet.getpixel(place) == tuple(int(level) for level in face(0, target, 8.0 * best)[1, 1])


def test_photographs_get_no_truth_column(world: World) -> None:
    out = reported(world, tables_of(world, truth=False), truth=False)
    assert not (out / "plots/psnr_truth.png").exists()
    with Image.open(out / "sheets/sad.png") as sheet:
        assert sheet.width == 2 * sheets.MARGIN + sheets.LABEL + (2 + len(GAMMAS)) * (128 + sheets.GAP) - sheets.GAP
    assert all(row["psnr_truth"] == "" for row in rows_of(out))


def test_a_report_needs_an_edit(world: World) -> None:
    with pytest.raises(UserError, match="at least one evaluated point"):
        reported(world, tables_of(world)[:1])


def test_points_that_cannot_be_told_apart_are_refused(toy: Reported) -> None:
    with pytest.raises(
        UserError,
        match=r"same point \(γ 1, t₀ 500, 40 steps, ddim, encoded at γ 1, judge patch\)",
    ):
        load_points([*toy.tables, toy.tables[1]])


def test_markdown_is_rounded_for_people(toy: Reported) -> None:
    text = (toy.out / "table.md").read_text()
    assert text.splitlines()[0].startswith("| judge | y_target | t0 | steps | gamma | target_accuracy | psnr |")
    assert not re.search(r"\d\.\d{4}", text)
    assert len(EMOTIONS) == 8


def test_what_tells_points_apart_stands_in_every_table(toy: Reported) -> None:
    baseline, one, *_ = load_points(toy.tables)
    other = replace(
        one, setting=replace(one.setting, inverter="coupled"), settings={**one.settings, "inverter": "coupled"}
    )
    lines = [line.split(" | ") for line in markdown([baseline, one, other]).splitlines()]
    place = lines[0].index("inverter")
    assert {line[place] for line in lines[2:]} == {"–", "ddim", "coupled"}
    assert len({tuple(line[:6]) for line in lines[2:]}) == len(lines) - 2, "no two rows have one name"
