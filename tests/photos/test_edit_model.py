"""Which model edits: runs, stores and folders are understood, and what belongs to a run is found by itself."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from photo_world import FIRST_STAGE, World

from affect_hpc.config.compose import collect
from affect_hpc.config.corpora import AffectNetDataConfig, DemoDataConfig
from affect_hpc.config.data import AlignConfig, AlignMode, CompatConfig
from affect_hpc.config.stages import EncodeLatentsConfig, PrepareShardsConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import folder_digest
from affect_hpc.core.io import read_json, write_json
from affect_hpc.hpc.graph import Edge, External, Node
from affect_hpc.hpc.submit import write_run
from affect_hpc.photos import model
from affect_hpc.photos.model import Model

CUT = AlignConfig(AlignMode.similarity, landmarks="dlib", resize=[256, 256], margin=0.2)
Trained = Callable[..., Path]


@pytest.fixture
def trained(ldm: Path, tmp_path: Path) -> Trained:
    """Makes the folder of a train_ldm run in the store tmp_path; returns it."""

    def make(first_stage: Edge | External, data: object = None, seed: int = 0, done: bool = True) -> Path:
        corpus = Node(
            "prepare_shards", PrepareShardsConfig(data=data or DemoDataConfig("demo", 64, 8, 8, 8, seed=seed))
        )
        latents = Node("encode_latents", EncodeLatentsConfig(), {"shards": (Edge(corpus),)})
        config = collect(["model=smoke", "data=demo"])[0].stages.train_ldm
        node = Node("train_ldm", config, {"first_stage": (first_stage,), "latents": (Edge(latents),)})
        for one in (corpus, latents, node):
            write_run(one, tmp_path)
        run = node.run_dir(tmp_path).path
        if done:
            shutil.copytree(ldm, run / "out")
            write_json(run / "DONE", {"outputs": {}})
        return run

    return make


@pytest.fixture
def packaged() -> External:
    return External(FIRST_STAGE, folder_digest(FIRST_STAGE))


def test_a_run_its_output_and_its_store_are_the_same_model(
    trained: Trained, packaged: External, tmp_path: Path
) -> None:
    run = trained(packaged)
    found = [Model.find(str(where)) for where in (run, run / "out", tmp_path)]
    assert found[0] == found[1] == found[2] == Model(run / "out", FIRST_STAGE)
    assert found[0].name == f"train_ldm/{run.name}" and found[0].size == 64
    assert found[0].emotions == EMOTIONS and found[0].num_timesteps == 1000


def test_a_store_with_several_models_or_an_unfinished_one_is_not_enough(
    trained: Trained, packaged: External, tmp_path: Path
) -> None:
    unfinished = trained(packaged, seed=1, done=False)
    for where in (tmp_path, unfinished):
        with pytest.raises(UserError, match=re.escape(f"--model={where} is not finished: train it first")):
            Model.find(str(where))
    runs = sorted([trained(packaged), trained(packaged, seed=2)])
    with pytest.raises(
        UserError, match=re.escape(f"holds 2 finished train_ldm runs: give one of {runs[0]}, {runs[1]}")
    ):
        Model.find(str(tmp_path))
    with pytest.raises(UserError, match=r"holds neither ldm\.json with unet/config\.json nor runs/train_ldm"):
        Model.find(str(FIRST_STAGE))
    with pytest.raises(UserError, match=r"nowhere does not exist: give a train_ldm run"):
        Model.find(str(tmp_path / "nowhere"))


def test_a_given_first_stage_is_told_by_its_content(trained: Trained, packaged: External, tmp_path: Path) -> None:
    moved = trained(replace(packaged, path=tmp_path / "elsewhere"))
    assert Model.find(str(moved)).first_stage == FIRST_STAGE
    changed = trained(External(FIRST_STAGE, "0" * 64))
    with pytest.raises(UserError, match=f"{changed} was trained with is gone or has changed: give --first-stage"):
        Model.find(str(changed))
    assert Model.find(str(changed), "package:demo_64").first_stage == FIRST_STAGE
    assert Model.find(str(changed), str(FIRST_STAGE)).first_stage == FIRST_STAGE


def test_a_trained_first_stage_is_that_of_its_run(trained: Trained, tmp_path: Path) -> None:
    config = collect(["model=smoke", "data=demo", "use.first_stage=train"])[0].stages.train_vqgan
    node = Node("train_vqgan", config)
    write_run(node, tmp_path)
    output = node.run_dir(tmp_path).path / "out"
    run = trained(Edge(node))
    with pytest.raises(UserError, match="give --first-stage"):
        Model.find(str(run))
    shutil.copytree(FIRST_STAGE, output)
    assert Model.find(str(run)).first_stage == output


def test_an_imported_model_brings_its_own(ldm: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not say which first stage it was trained with: give --first-stage"):
        Model.find(str(ldm))
    whole = tmp_path / "imported"
    shutil.copytree(ldm, whole)
    shutil.copytree(FIRST_STAGE / "first_stage", whole / "first_stage")
    write_json(whole / "terms.json", {"mead": {"name": "MEAD", "version": "1"}})
    found = Model.find(str(whole))
    assert found == Model(whole, whole) and found.name == "imported" and found.terms["mead"]["name"] == "MEAD"


def test_a_first_stage_that_does_not_fit_is_refused(ldm: Path, tmp_path: Path) -> None:
    shutil.copytree(FIRST_STAGE / "first_stage", tmp_path / "other/first_stage")
    config = tmp_path / "other/first_stage/config.json"
    write_json(config, {**read_json(config), "vq_embed_dim": 4})
    with pytest.raises(UserError, match=f"other has latents of 4 channels, {ldm} of 3: give --first-stage"):
        Model.find(str(ldm), str(tmp_path / "other"))


def test_photos_are_cut_as_the_corpus_was(
    trained: Trained, packaged: External, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(model, "settle_landmarks", lambda name: asked.append(name) or "dlib")
    compat = CompatConfig(first_face=True, cut_at_border=True)
    corpus = AffectNetDataConfig("affectnet", 64, root="x", align=CUT, compat=compat)
    align, quirks = Model.find(str(trained(packaged, corpus))).alignment()
    assert (align.mode, align.margin, asked) == (AlignMode.similarity, 0.2, ["dlib"])
    assert align.resize == [], "a photo is searched as it is"
    assert quirks == CompatConfig(cut_at_border=True), "of several faces the largest counts"
    assert len(align.landmarks_digest) == 64
    drawn, _ = Model.find(str(trained(packaged))).alignment("fan")
    usual = collect(["data=folder", "data.root=."])[0].data.align
    assert (drawn.mode, drawn.margin, asked[1:]) == (usual.mode, usual.margin, ["fan"])


def test_terms_of_the_corpus_bind_its_edits(world: World) -> None:
    folder = world.root / "bound"
    shutil.copytree(world.ldm, folder)
    write_json(folder / "terms.json", {"mead": {"name": "MEAD", "version": "as stated"}})
    assert world.call(world.photo("me.png"), "--model", folder) == 0
    assert "the terms of MEAD (as stated) bind these pictures too." in world.warned
    assert read_json(world.out / "me.json")["terms"]["mead"]["name"] == "MEAD"
