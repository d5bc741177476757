"""The report of ways between faces: its figures mean what they say, and it is the same however the work was divided."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_world import Chain

from affect_hpc.config.drawing import BlendLabel, InterpolateConfig, ReportInterpolationConfig, Slerp
from affect_hpc.config.edit import EndLevel, Spacing, TimeInput
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import canonical
from affect_hpc.core.io import manifest_of, write_json
from affect_hpc.core.marks import manifest_without_marks
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import UInt8Image, encode_png
from affect_hpc.data.images import ImageSet
from affect_hpc.data.provenance import read_mark
from affect_hpc.data.shards import ShardSet, ShardWriter
from affect_hpc.report import interpolation
from affect_hpc.report.interpolation import AXES, FIGURES, Point, load_points, measure, remarks, strips
from affect_hpc.report.sheets import CELL, GAP, STRIP, Cell, Column
from affect_hpc.stages import interpolate, report_interpolation

SIZE, PLACES = 32, 5
USUAL = InterpolateConfig(
    **{"pairs": 3, "seed": 0, "num_points": PLACES, "t0": 500, "num_steps": 4, "gamma": 1.0, "eta": 0.0},
    **{"slerp": Slerp.proper, "label": BlendLabel.nearer, "batch_size": 1},
    **{"time_input": TimeInput.next, "spacing": Spacing.linspace, "end_level": EndLevel.clean},
)


def face(*number: int) -> UInt8Image:
    """A texture of its own in multiples of 4."""
    return np.random.default_rng(number).integers(10, 50, (SIZE, SIZE, 3)).astype(np.uint8) * np.uint8(4)


def fade(a: UInt8Image, b: UInt8Image, places: int = PLACES) -> list[UInt8Image]:
    """From one to the other in even steps; of multiples of 4 in five places without rounding."""
    return [np.round(a + (b.astype(float) - a) * step / (places - 1)).astype(np.uint8) for step in range(places)]


def distance(a: UInt8Image, b: UInt8Image) -> float:
    return float(np.sqrt(((a.astype(float) - b.astype(float)) ** 2).mean()))


class World:
    """A corpus of faces, and ways between them that no network has made."""

    def __init__(self, root: Path, faces: int = 40) -> None:
        self.root = root
        self.shards = root / "prepare_shards" / "aa" / "out"
        with ShardWriter(self.shards / "val", "shard-00000") as writer:
            for i in range(faces):
                writer.write(f"f{i:03d}", {"png": encode_png(face(i))}, {"label": i % 8, "identity": f"{i}"})

    def way(self, pair: int, cfg: InterpolateConfig) -> list[UInt8Image]:
        """Pair n leads from face 2 n to face 2 n + 1, with a jump after place n where it has as many."""
        a, b = face(2 * pair), face(2 * pair + 1)
        own = fade(a, b, cfg.num_points)
        jump = pair % (cfg.num_points - 1)
        return [*own[: jump + 1], *([b] * (cfg.num_points - 1 - jump))]

    def interpolated(self, name: str, parts: int = 1, **changes: Any) -> tuple[Path, ...]:
        """Outputs of the parts of an interpolation."""
        cfg, folders = replace(USUAL, **changes), []
        for part in range(parts):
            run = self.root / "interpolate" / name
            folder = (run if parts == 1 else run / "parts" / f"{part:04d}") / "out"
            with ShardWriter(folder, f"images-{part:05d}") as writer:
                for pair in Workplace(folder, folder, part, parts).slice(cfg.pairs):
                    self._write(writer, pair, cfg)
            write_json(folder / "interpolation.json", canonical(cfg))
            folders.append(folder)
        return tuple(folders)

    def _write(self, writer: ShardWriter, pair: int, cfg: InterpolateConfig) -> None:
        first, second = 2 * pair, 2 * pair + 1
        ends = {"first.png": encode_png(face(first) + np.uint8(5)), "second.png": encode_png(face(second))}
        names = [f"point_{place:03d}.png" for place in range(cfg.num_points)]
        places = dict(zip(names, map(encode_png, self.way(pair, cfg)), strict=True))
        emotions = [EMOTIONS[first % 8], EMOTIONS[second % 8]]
        fractions = [place / (cfg.num_points - 1) for place in range(cfg.num_points)]
        decoded = [emotions[fraction > 0.5] for fraction in fractions]
        told = {"labels": emotions, "angle": 1.5 + pair / 7, "fractions": fractions}
        told["decoded_as"] = decoded if cfg.label is BlendLabel.nearer else ["no label"] * cfg.num_points
        info = {"label": first % 8, "identity": "x", "first": f"f{first:03d}", "second": f"f{second:03d}", **told}
        writer.write(f"pair-{pair:06d}", {**ends, **places}, info)

    def report(self, ways: Sequence[Path], name: str, signer: bool = False) -> tuple[Path, Outcome]:
        """Output of the stage."""
        out = self.root / "report_interpolation" / name / "out"
        out.mkdir(parents=True)
        inputs = Inputs({"strips": tuple(ways), "shards": (self.shards,)})
        place = Workplace(out, out.parent / "keep", signer=self.root / "signer" if signer else None)
        return out, report_interpolation.run(ReportInterpolationConfig("toy <sweep>"), inputs, place)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def rows_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "table.csv").read_text().splitlines()))


def test_a_way_that_stands_still_is_even_and_no_detour() -> None:
    figures, largest = measure([face(0)] * 4, face(0), face(0))
    assert (figures["step_mean"], figures["step_max"], largest) == (0, 0, 0)
    assert (figures["unevenness"], figures["detour"]) == (1, 1)
    assert figures["psnr_first"] == pytest.approx(80)


def test_a_straight_fade_is_even_and_the_shortest_way() -> None:
    a, b = face(0), face(1)
    figures, _ = measure(fade(a, b), a, b)
    assert figures["unevenness"] == pytest.approx(1) and figures["detour"] == pytest.approx(1)
    assert figures["step_mean"] == pytest.approx(distance(a, b) / 4)
    rounded, _ = measure(fade(a, b, 12), a, b)
    assert 1 <= rounded["detour"] < 1.01, "eleven steps do not divide the differences"


@pytest.mark.parametrize("jump", range(4))
def test_a_jump_is_found_at_its_place(jump: int) -> None:
    a, b = face(0), face(1)
    figures, largest = measure([a] * (jump + 1) + [b] * (4 - jump), a, b)
    assert largest == jump
    assert figures["step_max"] == pytest.approx(distance(a, b)) and figures["unevenness"] == pytest.approx(4)
    assert figures["detour"] == pytest.approx(1), "a jump is sudden, no longer"


def test_going_back_and_forth_is_a_detour() -> None:
    a, b = face(0), face(1)
    assert measure([a, b, a, b], a, b)[0]["detour"] == pytest.approx(3)
    assert measure([a, b, a], a, a)[0]["detour"] == np.inf
    assert measure([a, b, a, b], a, b)[0]["unevenness"] == pytest.approx(1)


def test_ends_are_compared_each_with_its_own_face() -> None:
    a, b = face(0), face(1)
    figures, _ = measure(fade(a, b), a + np.uint8(5), b + np.uint8(10))
    assert figures["psnr_first"] == pytest.approx(20 * np.log10(255 / 5), abs=1e-3)
    assert figures["psnr_second"] == pytest.approx(20 * np.log10(255 / 10), abs=1e-3)


def test_the_table_has_a_row_for_each_way_in_full(world: World) -> None:
    ways = [*world.interpolated("a", pairs=3), *world.interpolated("b", pairs=4, eta=0.1)]
    out, _ = world.report(ways, "r")
    rows = rows_of(out)
    assert [(row["eta"], row["pair"]) for row in rows] == [
        *(("0", f"pair-00000{i}") for i in range(3)),
        *(("0.1", f"pair-00000{i}") for i in range(4)),
    ]
    for row in rows:
        pair = int(row["pair"][-1])
        faces = world.way(pair, USUAL)
        steps = [distance(a, b) for a, b in pairwise(faces)]
        assert (row["first"], row["second"]) == (f"f{2 * pair:03d}", f"f{2 * pair + 1:03d}")
        assert row["label_second"] == EMOTIONS[(2 * pair + 1) % 8]
        assert float(row["angle"]) == float(np.degrees(1.5 + pair / 7)), "to the bit"
        assert float(row["step_max"]) == max(steps) and float(row["step_mean"]) == float(np.mean(steps))
        assert float(row["detour"]) == sum(steps) / distance(faces[0], faces[-1])
        assert float(row["largest_step_at"]) == int(np.argmax(steps)) / 4 + 0.125
        assert float(row["psnr_first"]) == pytest.approx(20 * np.log10(255 / 5), abs=1e-3)
    assert [float(row["largest_step_at"]) for row in rows[3:]][:3] == [0.125, 0.375, 0.625], "where it was put"
    assert {name: rows[0][name] for name in ("slerp", "label", "gamma", "num_points", "end_level")} == {
        **{"slerp": "proper", "label": "nearer", "gamma": "1", "num_points": "5", "end_level": "clean"}
    }


def test_parts_in_any_order_and_a_whole_give_the_same_report(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "divided")
    reports = []
    for where, parts in ((world, 1), (other, 3)):
        ways = [*where.interpolated("a", parts), *where.interpolated("b", parts, eta=1.0)]
        reports.append(where.report(ways, "r")[0])
    reports.append(other.report(list(reversed(ways)), "s")[0])
    assert manifest_of(reports[0]) == manifest_of(reports[1]) == manifest_of(reports[2])
    assert sorted(manifest_of(reports[0])) == [
        *("index.html", "sheets/strips-eta-0.png", "sheets/strips-eta-1.png", "table.csv"),
    ]


def test_sheets_are_marked_and_nothing_else_hangs_on_the_mark(world: World) -> None:
    ways = world.interpolated("a", eta=0.5)
    plain, marked = world.report(ways, "plain")[0], world.report(ways, "marked", signer=True)[0]
    assert manifest_without_marks(marked) == manifest_of(plain) != manifest_of(marked)
    mark = read_mark((marked / "sheets" / "strips-eta-0.5.png").read_bytes(), "png")
    assert mark is not None and mark.valid and mark.facts is not None and mark.facts["edited"]
    assert mark.facts["settings"] == {"point": "η 0.5", "sweep": "toy <sweep>"}
    assert mark.facts["model"] == "interpolate/a"
    assert read_mark((plain / "sheets" / "strips-eta-0.5.png").read_bytes(), "png") is None


def test_parts_that_are_missing_or_there_twice_are_told(world: World) -> None:
    parts = world.interpolated("a", 3)
    with pytest.raises(UserError, match=r"2 of 3 pairs are there, in 2 samples of 2 parts like .*give every part once"):
        load_points(parts[1:])
    with pytest.raises(UserError, match=r"3 of 3 pairs are there, in 4 samples of 4 parts like .*give every part once"):
        load_points([*parts, parts[0]])
    with pytest.raises(UserError, match="there are no ways to report on"):
        load_points([])


def test_points_that_the_report_cannot_tell_apart_are_refused(world: World) -> None:
    one = world.interpolated("a")
    with pytest.raises(UserError, match="make one of its own for each value of any other setting"):
        load_points([*one, *world.interpolated("of-another-model")])
    with pytest.raises(UserError, match=r"two points at η 0, slerp proper, .* stand in one report"):
        load_points([*one, *world.interpolated("in-other-batches", batch_size=2)])


def test_points_stand_in_the_order_of_their_values_and_are_told_by_what_differs(world: World) -> None:
    ways = [
        *world.interpolated("a", eta=1.0, t0=90),
        *world.interpolated("b", eta=0.5, t0=500),
        *world.interpolated("c", eta=0.5, t0=90),
    ]
    points = load_points(ways)
    axes = interpolation.varied(points)
    assert axes == ["eta", "t0"]
    assert [point.told(axes) for point in points] == ["η 0.5, t₀ 90", "η 0.5, t₀ 500", "η 1, t₀ 90"]
    assert interpolation.varied(points[:1]) == ["eta"], "of one point, what the thesis varies"
    out, outcome = world.report(ways, "r")
    assert len(list((out / "sheets").iterdir())) == 3 == outcome.summary["points"]


@pytest.mark.parametrize("label", BlendLabel)
def test_each_face_of_a_strip_stands_in_its_place_above_the_label_it_was_decoded_under(
    world: World, monkeypatch: pytest.MonkeyPatch, label: BlendLabel
) -> None:
    seen: list[tuple[Sequence[Column], Sequence[str], Sequence[Sequence[Cell]]]] = []
    monkeypatch.setattr(interpolation, "contact_sheet", lambda *parts: seen.append(parts))
    (point,) = load_points(world.interpolated("a", 2, label=label))
    strips(point, ImageSet.open([world.shards / "val"]))
    ((columns, labels, rows),) = seen
    assert [column.title for column in columns] == ["original", "0.00", "0.25", "0.50", "0.75", "1.00", "original"]
    assert [column.note for column in columns[:3]] == ["first face", "first end", "mixed"]
    assert [column.note for column in columns[-2:]] == ["second end", "second face"]
    for pair, (row, told) in enumerate(zip(rows, labels, strict=True)):
        first, second = EMOTIONS[2 * pair], EMOTIONS[2 * pair + 1]
        expected = [face(2 * pair), *world.way(pair, USUAL), face(2 * pair + 1)]
        assert all(np.array_equal(cell.image, own) for cell, own in zip(row, expected, strict=True))
        mixed = [first] * 3 + [second] * 2 if label is BlendLabel.nearer else ["no label"] * 5
        assert [cell.verdict for cell in row] == [first, *mixed, second]
        assert told.splitlines()[:2] == [first, f"to {second}"]


def test_a_sheet_has_the_first_ways_and_the_page_all(world: World) -> None:
    ways = [*world.interpolated("a", pairs=14), *world.interpolated("b", pairs=2, num_points=3)]
    points = load_points(ways)
    originals = ImageSet.open([world.shards / "val"])
    heights = [strips(point, originals).height for point in points]
    rows = [len(point.ways) for point in points]
    assert rows == [2, 14], "fewer faces of a way stand first"
    assert heights[1] - heights[0] == 10 * (CELL + STRIP + GAP), "twelve strips and two"
    page = (world.report(ways, "r")[0] / "index.html").read_text()
    assert "The first 12 of 14 pairs are shown." in page
    assert "2 to 14 pairs of validation faces" in page and "mixed there at 3 to 5 places" in page
    assert page.count('<td class="text">f026</td>') == 1 and page.count(" to ") > 16
    few = (world.report(ways[1:], "s")[0] / "index.html").read_text()
    assert "pairs are shown" not in few and "2 pairs of validation faces" in few and "at one setting" in few


def point_of(**changes: Any) -> Point:
    return Point(canonical(replace(USUAL, **changes)), ShardSet([]), [])


REMARKS = {
    "nearer": "The label below a mixture is that of the nearer end.",
    "none": "No label: the whole way",
    "noise": "With fresh noise",
    "printed": "The formula as printed (Eq. 4.12) mixes unit vectors",
}


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ([{}], {"nearer"}),
        ([{"label": BlendLabel.none}], {"none"}),
        ([{"eta": 0.5}], {"nearer", "noise"}),
        ([{"slerp": Slerp.printed}], {"nearer", "printed"}),
        ([{}, {"label": BlendLabel.none, "eta": 1.0}, {"slerp": Slerp.printed}], set(REMARKS)),
    ],
)
def test_the_page_has_the_remarks_that_its_settings_need(changes: list[dict[str, Any]], needed: set[str]) -> None:
    found = "\n".join(remarks([point_of(**change) for change in changes]))
    assert {name for name, start in REMARKS.items() if start in found} == needed
    assert all(told in found for told in ("Each face is followed back", "A step is", "The same pairs"))


def test_what_the_stage_makes_is_reported_as_it_is(chain: Chain, tmp_path: Path) -> None:
    """From networks to the page: round trips have better ends than the printed formula."""
    outs = {}
    for slerp in Slerp:
        out = tmp_path / "interpolate" / slerp.name / "out"
        out.mkdir(parents=True)
        config = replace(chain.stages.interpolate, pairs=3, num_points=3, slerp=slerp)
        roles = {"latents": "encode_val", "first_stage": "train_vqgan", "ldm": "train_ldm"}
        inputs = Inputs({role: (chain.out(name),) for role, name in roles.items()})
        interpolate.run(config, inputs, Workplace(out, out.parent / "keep"))
        outs[slerp] = out
    world = World(tmp_path / "report")
    world.shards = chain.out("prepare_shards")
    out, outcome = world.report([outs[Slerp.proper], outs[Slerp.printed]], "r")
    rows = rows_of(out)
    assert list(rows[0]) == [
        *AXES,
        "pair",
        "first",
        "second",
        "label_first",
        "label_second",
        *FIGURES,
        "largest_step_at",
    ]
    ends = {
        slerp: np.mean(
            [float(row[name]) for row in rows if row["slerp"] == slerp for name in FIGURES if "psnr" in name]
        )
        for slerp in ("printed", "proper")
    }
    assert ends["proper"] > ends["printed"] + 3
    assert outcome.summary["ends_db"] == pytest.approx(ends["printed"]), "of the first point"
    page = (out / "index.html").read_text()
    assert f"{ends['printed']:.1f}<small> dB</small>" in page and REMARKS["printed"] in page
    keys = {entry.key for entry in ShardSet.open([chain.out("prepare_shards") / "val"])}
    assert {row[end] for row in rows for end in ("first", "second")} <= keys
