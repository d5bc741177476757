"""A cell of a report's table tells how it came about, or the sentence what there is."""

import json
import re
from pathlib import Path

import pytest
from commands import run

from affect_hpc.core.io import read_json

pytestmark = pytest.mark.xdist_group("local_sweep")


def test_a_cell_tells_everything_behind_it(smoke_store: Path) -> None:
    told = run("explain", "smoke/gamma=2/mean/psnr", "--store", smoke_store, "--json")
    assert told.code == 0, told.err
    content = json.loads(told.out)
    (view,) = (smoke_store / "views/smoke").glob("edit.gamma=2*")
    reduced = read_json(view / "reduce/out/metrics.json")
    (row,) = (row for row in reduced["rows"] if row["y_target"] == "mean")
    assert content["cell"]["value"] == row["psnr"] and content["cell"]["interval"] == row["interval"]["psnr"]
    assert content["cell"]["address"] == f"smoke/{view.name}/mean/psnr"
    runs = {one["kind"]: one for one in content["runs"]}
    assert runs.keys() == {
        *("prepare_shards", "encode_latents", "train_ldm", "train_referee", "invert_latents", "manipulate"),
        *("train_vqgan", "reconstruct", "evaluate", "reduce"),
    }
    # Parents stand before what hangs on them, and what another point needs stands not here.
    names = [one["run"] for one in content["runs"]]
    assert names.index(runs["train_ldm"]["run"]) < names.index(runs["manipulate"]["run"])
    assert sum(name.startswith("manipulate/") for name in names) == 1
    trained = read_json(smoke_store / "runs" / runs["train_ldm"]["run"] / "DONE")
    assert runs["train_ldm"]["code"] == (trained["code"] or "outside of git")
    assert runs["train_ldm"]["device"] == trained["device"] and trained["gpus"] == 0
    assert trained["spent"] >= trained["seconds"] > 0
    file = "unet/diffusion_pytorch_model.safetensors"
    assert content["weights"][f"{runs['train_ldm']['run']}/{file}"] == trained["outputs"][file]["sha256"]
    assert content["judges"]["emotion"]["digest"] == reduced["judges"]["emotion"]["digest"]
    assert content["seeds"][f"{runs['train_ldm']['run']} train.seed"] == 0
    assert {"torch", "diffusers", "python"} <= content["versions"].keys()
    assert content["gpu_hours"] == 0 and content["cpu_hours"] > 0
    assert set(content["thesis"]["differs_in"]) >= {"judge", "data"}


def test_a_cell_is_explained_to_people(smoke_store: Path) -> None:
    told = run("explain", "smoke/gamma=2/happy/target_accuracy", "--store", smoke_store)
    assert told.code == 0, told.err
    first = told.out.splitlines()[0]
    assert first.startswith("smoke/") and "/happy/target_accuracy = " in first and "95 %" in first
    for word in ("judges", "code", "devices", "seeds", "weights (sha256)", "CPU-hours", "licence", "train.seed"):
        assert word in told.out, word


def test_the_cell_that_a_page_gives_as_an_example_is_one(smoke_store: Path) -> None:
    page = (smoke_store / "views/smoke/report/index.html").read_text()
    (cell,) = re.findall(r"affect_hpc\.explain ([^<\s]+)", page)
    told = run("explain", cell, "--store", smoke_store)
    assert told.code == 0, told.err


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("nowhere/gamma=2/mean/psnr", ("'nowhere/gamma=2/mean/psnr'", "smoke", "--store")),
        ("smoke", ("edit.gamma=1", "edit.gamma=2", "SWEEP/POINT/ROW/FIGURE")),
        ("smoke/gamma=7/mean/psnr", ("'gamma=7'", "no point", "edit.gamma=1")),
        ("smoke/num_steps=4/mean/psnr", ("'num_steps=4'", "point")),
        ("smoke/gamma=2/men/psnr", ("'men'", "mean", "unedited")),
        ("smoke/gamma=2/mean/psn", ("'psn'", "psnr", "target_accuracy")),
    ],
)
def test_a_wrong_address_is_answered_by_the_right_ones(smoke_store: Path, cell: str, words: tuple[str, ...]) -> None:
    told = run("explain", cell, "--store", smoke_store)
    assert told.code == 2 and told.err.count("\n") == 1
    assert all(word in told.err for word in words), told.err
