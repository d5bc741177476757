"""Exported sheets of edited faces say that they are synthetic; everything else of a report stays to the byte."""

from pathlib import Path

import pytest
from judging_world import GAMMAS, TARGETS, World, reported, tables_of

from affect_hpc.config.provenance import ProvenanceConfig
from affect_hpc.core.io import manifest_of
from affect_hpc.core.marks import manifest_without_marks
from affect_hpc.data.provenance import read_mark
from affect_hpc.stages.report import EVERY_TARGET


@pytest.fixture
def tables(world: World) -> tuple[Path, ...]:
    return tables_of(world)


def test_sheets_of_edits_are_marked_and_those_of_real_faces_are_not(world: World, tables: tuple[Path, ...]) -> None:
    plain, marked = reported(world, tables, "plain"), reported(world, tables, "marked", signer=world.root / "key")
    assert manifest_without_marks(marked) == manifest_of(plain), "marks apart, equal inputs give equal bytes"
    for sheet in sorted((marked / "sheets").iterdir()):
        found = read_mark(sheet.read_bytes(), "png")
        if sheet.stem == "sources":
            assert found is None
            continue
        assert found is not None and found.valid and not found.trusted and found.facts is not None
        target = ", ".join(TARGETS) if sheet.stem == EVERY_TARGET else sheet.stem
        assert found.facts["edited"] and found.facts["settings"] == {"target": target, "sweep": "toy <sweep>"}
        assert found.facts["model"].count("manipulate/") == len(GAMMAS)
    assert all(read_mark(plot.read_bytes(), "png") is None for plot in (marked / "plots").iterdir())


def test_marking_can_be_switched_off(world: World, tables: tuple[Path, ...]) -> None:
    off = reported(world, tables, "off", signer=world.root / "key", provenance=ProvenanceConfig(mark=False))
    assert manifest_of(off) == manifest_without_marks(off)
    assert not (world.root / "key").exists()
