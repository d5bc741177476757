"""A sweep on this machine, as a user meets it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import commands
import numpy as np
import pytest
from commands import EVALUATION, copy_of, metrics, run, start
from PIL import Image

pytestmark = pytest.mark.xdist_group("local_sweep")


def attempts(store: Path, stage: str) -> dict[str, int]:
    """Element -> how often a job has begun with it."""
    files = (store / "runs" / stage).rglob("attempts.json")
    return {str(path.parent.relative_to(store / "runs")): json.loads(path.read_text())["count"] for path in files}


def test_asking_again_submits_nothing_and_the_report_stands(smoke_store: Path) -> None:
    said = run("launch", "-m", "sweep=smoke", f"store={smoke_store}", "cluster.parts=2")
    assert said.code == 0
    assert said.counts["submitted"] == 0
    page = (smoke_store / "views/smoke/report/index.html").read_text()
    assert "<img" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_narrower_sweep_makes_only_its_report_and_a_wider_one_only_its_point(
    smoke_store: Path, tmp_path: Path
) -> None:
    store = copy_of(smoke_store, tmp_path / "store")
    # In one process: where a job runs is no part of what is asked here.
    words = ("-m", "sweep=smoke", f"store={store}", "cluster=inline", "cluster.parts=2")
    narrow = run("launch", *words, "edit.gamma=1")
    assert narrow.code == 0
    assert narrow.counts["submitted"] == 1
    before = {stage: attempts(store, stage) for stage in ("prepare_shards", "train_ldm", "manipulate", "evaluate")}
    wide = run("launch", *words, "edit.gamma=1,2,3")
    # Two parts each of inverting, decoding and judging, one reduce, one report.
    assert wide.counts["submitted"] == 8
    for stage, counts in before.items():
        after = attempts(store, stage)
        assert {name: after[name] for name in counts} == counts
    assert len(attempts(store, "manipulate")) == len(before["manipulate"]) + 2


def test_a_deleted_part_and_what_hangs_on_it_run_again_and_nothing_else(smoke_store: Path, tmp_path: Path) -> None:
    store = copy_of(smoke_store, tmp_path / "store")
    (view,) = (store / "views/smoke").glob("edit.gamma=2*")
    evaluation = (view / "evaluate").resolve()
    wanted = metrics(store)
    shutil.rmtree(evaluation / "parts/0001/out")
    before = attempts(store, "evaluate")
    said = run("rerun", "smoke", "--store", store)
    assert said.code == 0, said.out + said.err
    # That element, the reduce of its point, the report.
    assert said.counts["submitted"] == 3
    after = attempts(store, "evaluate")
    again = {name for name in before if after[name] != before[name] or name.endswith(f"{evaluation.name}/parts/0001")}
    assert again == {f"evaluate/{evaluation.name}/parts/0001"}
    assert metrics(store) == wanted


def test_metrics_are_the_same_bits_for_another_number_of_parts(smoke_store: Path, tmp_path: Path) -> None:
    store = copy_of(smoke_store, tmp_path / "store", *EVALUATION)
    said = run("launch", "-m", "sweep=smoke", f"store={store}", "cluster=inline", "cluster.parts=3")
    assert said.code == 0, said.out + said.err
    assert metrics(store) == metrics(smoke_store)


def test_two_launches_at_once_start_each_job_once(smoke_store: Path, tmp_path: Path) -> None:
    store = copy_of(smoke_store, tmp_path / "store", "evaluate", "reduce", "report")
    both = [start("launch", "-m", "sweep=smoke", f"store={store}", "cluster.parts=2") for _ in range(2)]
    said = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    started = [commands.Said(0, out, err).counts["submitted"] for out, err in said]
    counts = {
        name: count for stage in ("evaluate", "reduce", "report") for name, count in attempts(store, stage).items()
    }
    assert set(counts.values()) == {1}
    assert sum(started) == len(counts)
    assert metrics(store) == metrics(smoke_store)


def face_folder(root: Path) -> Path:
    """A folder with one good picture, drawn by the demo."""
    from affect_hpc.data.corpora.demo import render

    (root / "happy").mkdir(parents=True)
    Image.fromarray(render(3, "happy", 256)).save(root / "happy" / "drawn.png")
    return root


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["edit.gama=2"], "edit.gamma"),
        (["sweep=cfg_gama"], "cfg_gamma"),
        (["edit.t0=1200"], "from 2 to 999"),
        (["data=folder", "data.root=/nowhere/at/all"], "/nowhere/at/all does not exist"),
    ],
)
def test_wrong_words_are_one_sentence_and_leave_nothing(words: list[str], sentence: str, tmp_path: Path) -> None:
    said = run("launch", *words, f"store={tmp_path / 'store'}")
    assert said.code == 2
    assert sentence in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("spec.json"))


def test_an_unreadable_picture_is_named_and_after_mending_the_launch_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    from skimage import data

    root = face_folder(tmp_path / "faces")
    (root / "happy" / "drawn.png").unlink()
    for i in range(2):
        Image.fromarray(data.astronaut()).save(root / "happy" / f"good{i}.png")
    (root / "happy" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    blank = np.full((128, 128, 3), 90, np.uint8)
    Image.fromarray(blank).save(root / "happy" / "wall.png")
    words = ["stage=prepare_shards", "data=folder", f"data.root={root}", f"store={tmp_path / 'store'}"]
    words += ["data.align.landmarks=dlib", "experts.emotion=face_api", "cluster.parts=1"]
    said = run("launch", *words)
    if "install_experts" in said.err:
        pytest.skip("the packaged networks are not installed (make experts)")
    assert said.code == 1, said.out + said.err
    text = said.out + said.err
    assert "broken.jpg" in text
    assert "wall.png" in text
    assert not list((tmp_path / "store").rglob("DONE"))
    assert not list((tmp_path / "store").rglob("*.tar"))
    for name in ("broken.jpg", "wall.png"):
        (root / "happy" / name).unlink()
    mended = run("launch", *words)
    assert mended.code == 0, mended.out + mended.err
    assert list((tmp_path / "store").rglob("val/*.tar"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_one_sentence_and_leaves_no_half_shard(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(store)], check=False).returncode:
        pytest.skip("this machine does not let us mount a small file system")
    words = [
        "stage=prepare_shards",
        "data.train_samples=600",
        "data.val_samples=8",
        f"store={store}",
        "cluster.parts=1",
    ]
    try:
        said = run("launch", *words)
        assert said.code == 1
        assert "is full" in said.out
        assert not list(store.rglob("*.tar"))
        assert not list(store.rglob("DONE"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(store)], check=True)
        assert run("launch", *words).code == 0
    finally:
        subprocess.run(["umount", "-l", str(store)], check=True)
