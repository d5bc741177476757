"""Names of runs, parts that become one, and terms of use."""

from pathlib import Path

from affect_hpc.core.io import write_json
from affect_hpc.report.facts import gather, run_name, scalars, terms


def test_run_names_are_stage_and_signature_without_the_machine() -> None:
    assert run_name(Path("/x/runs/train_ldm/abc/out")) == "train_ldm/abc"
    assert run_name(Path("/x/runs/reconstruct/abc/parts/0003/out")) == "reconstruct/abc"
    assert run_name(Path("/y/packaged/faces_64")) == "faces_64"


def test_parts_of_a_run_are_one_fact_and_their_counts_add_up(tmp_path: Path) -> None:
    folders = []
    for part, count in enumerate((3, 4)):
        folder = tmp_path / f"prepare_shards/abc/parts/{part:04d}/out"
        manifest = {
            "counts": {"val/sad": count},
            "shards": [f"val/{part}"],
            "data": {"name": "x", "root": "/home/me", "terms": "CC0"},
        }
        write_json(folder / "manifest.json", manifest)
        folders.append(folder)
    (fact,) = gather({"shards": folders})
    assert fact.run == "prepare_shards/abc"
    found = dict(scalars(fact.content))
    assert found == {"counts.val/sad": "7", "shards": "val/0, val/1", "data.name": "x", "data.terms": "CC0"}
    assert terms([fact]) == ["Corpus: CC0"]
