"""Faces from noise: what a face hangs on, how its class and the guidance reach it, and how sets of faces are judged."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ml_world import Chain

from affect_hpc.config.drawing import ExtractFeaturesConfig, FindNearestConfig, GenerateConfig, JudgeGenerationConfig
from affect_hpc.config.sampling import Sampler, SamplerConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json
from affect_hpc.core.rundir import Inputs, Workplace
from affect_hpc.data.codec import decode_png, encode_png
from affect_hpc.data.provenance import verify_shard
from affect_hpc.data.shards import ShardSet, ShardWriter
from affect_hpc.metrics.distribution import fid, kid, precision_recall
from affect_hpc.metrics.features import FeatureSet
from affect_hpc.models.ldm import Ldm
from affect_hpc.stages import extract_features, find_nearest, generate, judge_generation

SETTINGS = GenerateConfig(SamplerConfig(num_steps=4), per_class=3, seed=5, classifier_scale=0.0, batch_size=4)
SEEN = ExtractFeaturesConfig("efficientnet_lite0", "efficientnet_lite0", batch_size=8)


def drawn(chain: Chain, out: Path, config: GenerateConfig = SETTINGS, part: int = 0, parts: int = 1) -> Path:
    """Output of generate, in a folder of its own."""
    out.mkdir(parents=True)
    inputs = Inputs({"first_stage": (chain.out("train_vqgan"),), "ldm": (chain.out("train_ldm"),)})
    generate.run(config, inputs, Workplace(out, out.parent / "keep", part, parts, signer=out.parent / "signer"))
    return out


def looked_at(images: list[Path], out: Path, split: str = "", part: int = 0, parts: int = 1) -> Path:
    """Output of extract_features, in a folder of its own."""
    out.mkdir(parents=True)
    config = replace(SEEN, split=split)
    extract_features.run(config, Inputs({"images": tuple(images)}), Workplace(out, out.parent / "keep", part, parts))
    return out


def faces(*folders: Path) -> dict[str, Any]:
    shards = ShardSet.open(folders)
    return {sample.key: decode_png(shards.read(i, "png")) for i, sample in enumerate(shards)}


@pytest.fixture(scope="module")
def plain(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(chain, tmp_path_factory.mktemp("plain") / "out")


def test_every_emotion_has_its_faces_and_every_shard_its_mark(plain: Path) -> None:
    shards = ShardSet.open([plain])
    names = [f"{emotion}-{number:06d}" for number in range(3) for emotion in EMOTIONS]
    assert [sample.key for sample in shards] == names
    assert all(EMOTIONS[sample.label] == sample.key.partition("-")[0] for sample in shards)
    (tar,) = plain.glob("*.tar")
    mark = verify_shard(tar)
    assert mark is not None and mark.valid and mark.facts is not None
    assert not mark.facts["edited"] and mark.facts["settings"]["seed"] == 5


def test_no_division_of_the_work_and_no_number_of_faces_changes_a_face(
    chain: Chain, plain: Path, tmp_path: Path
) -> None:
    parts = [drawn(chain, tmp_path / f"{part}", part=part, parts=3) for part in range(3)]
    many = drawn(chain, tmp_path / "many", replace(SETTINGS, per_class=5))
    whole, divided, more = faces(plain), faces(*parts), faces(many)
    assert divided.keys() == whole.keys() < more.keys()
    for key, face in whole.items():
        assert np.array_equal(divided[key], face) and np.array_equal(more[key], face), key


def test_other_batches_round_otherwise_but_draw_the_same_faces(chain: Chain, plain: Path, tmp_path: Path) -> None:
    others = faces(drawn(chain, tmp_path / "out", replace(SETTINGS, batch_size=24)))
    for key, face in faces(plain).items():
        apart = np.abs(others[key].astype(int) - face)
        # A latent on the border between two codes may fall to the other side.
        assert (apart > 2).mean() < 0.05, key


def test_a_seed_is_its_own_faces(chain: Chain, plain: Path, tmp_path: Path) -> None:
    others = faces(drawn(chain, tmp_path / "out", replace(SETTINGS, seed=6)))
    assert not any(np.array_equal(others[key], face) for key, face in faces(plain).items())


@pytest.mark.parametrize("name", [Sampler.ddpm, Sampler.ddim, Sampler.plms, Sampler.dpm_solver])
def test_without_guidance_no_label_is_heard(chain: Chain, tmp_path: Path, name: Sampler) -> None:
    """Guidance 0 is the unconditional model: the noise of a face under another label gives the same face."""
    for gamma, same in ((0.0, True), (1.0, False)):
        how = SamplerConfig(name, num_steps=4, gamma=gamma)
        config = replace(SETTINGS, sampler=how, per_class=2, batch_size=16)
        ldm = Ldm.load(chain.out("train_ldm"), torch.device("cpu"))
        drawing = generate.Drawing(config, ldm, None, torch.device("cpu"))
        with torch.inference_mode():
            before = drawing.latents(range(16))
            with pytest.MonkeyPatch.context() as changed:
                changed.setattr(generate, "name_and_label", lambda index, _: ("", 3))
                after = drawing.latents(range(16))
        assert bool((before == after).all()) is same


def test_a_whole_set_of_features_knows_no_parts_and_is_judged_as_by_hand(
    chain: Chain, plain: Path, tmp_path: Path
) -> None:
    real, ours = looked_at([chain.out("prepare_shards")], tmp_path / "real", "train"), [plain]
    whole = [looked_at(ours, tmp_path / "whole")]
    parts = [looked_at(ours, tmp_path / f"part-{part}", part=part, parts=3) for part in range(3)]
    texts = []
    for number, generated in enumerate((whole, parts)):
        out = tmp_path / f"judged-{number}"
        out.mkdir()
        config = JudgeGenerationConfig(real_per_class=2, kid_subset=2, kid_subsets=7, k=2)
        inputs = Inputs({"generated": tuple(generated), "real": (real,)})
        judge_generation.run(config, inputs, Workplace(out, out / "keep"))
        texts.append((out / "metrics.json").read_text())
    assert texts[0] == texts[1], "to the bit"
    rows = {row["name"]: row for row in read_json(tmp_path / "judged-0" / "metrics.json")["rows"]}
    assert list(rows) == [*EMOTIONS, "mean", "overall"]
    a, b = FeatureSet.load(parts, "features"), FeatureSet.load([real], "features")
    happy = EMOTIONS.index("happy")
    own, theirs = a.of_label(happy), b.of_label(happy)
    assert rows["happy"]["fid"] == fid(own, theirs)
    assert rows["happy"]["kid"] == kid(own, theirs, 2020, 7, 2).mean
    assert (rows["happy"]["precision"], rows["happy"]["recall"]) == precision_recall(own, theirs, 2)
    assert rows["overall"]["fid"] == fid(a, b.first(2)) and rows["overall"]["n_real"] == 16
    assert rows["mean"]["fid"] == pytest.approx(np.mean([rows[emotion]["fid"] for emotion in EMOTIONS]))


def test_rare_emotions_are_left_out_by_name_and_none_at_all_is_refused(plain: Path, chain: Chain) -> None:
    judge = {"name": "n", "digest": "d"}
    ours = FeatureSet.of(judge, ["a", "b", "c"], [0, 1, 1], np.eye(3, 4, dtype=np.float32))
    theirs = FeatureSet.of(judge, ["d", "e", "f"], [0, 1, 1], np.eye(3, 4, dtype=np.float32))
    assert judge_generation.comparable(ours, theirs, 2) == ({1: "happy"}, {"neutral": 1})
    with pytest.raises(UserError, match="no emotion has 3 faces in the train split"):
        judge_generation.comparable(ours, theirs, 3)


def test_a_damaged_face_is_named(plain: Path, tmp_path: Path) -> None:
    entry = ShardSet.open([plain])[5]
    (tar,) = plain.glob("*.tar")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in plain.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    content = bytearray((copy / tar.name).read_bytes())
    content[entry.members["png"].offset + 50] ^= 1
    (copy / tar.name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{entry.key}\.png is not what was written"):
        looked_at([copy], tmp_path / "out")


@pytest.mark.parametrize("space", ["pixel", "features"])
def test_a_copy_in_the_corpus_is_found_first_by_any_number_of_parts(
    chain: Chain, plain: Path, tmp_path: Path, space: str
) -> None:
    corpus = tmp_path / "corpus"
    original = faces(plain)
    with ShardWriter(corpus / "train", "copies") as writer:
        for number, key in enumerate(["sad-000001", "happy-000000", "angry-000000"]):
            info = {"label": 0, "identity": f"{number}"}
            writer.write(f"copy-{key}", {"png": encode_png(original[key])}, info)
    both = [corpus, chain.out("prepare_shards")]
    roles = {"generated": [plain], "real": both}
    if space == "features":
        roles = {
            "generated": [looked_at([plain], tmp_path / "a")],
            "real": [looked_at(both, tmp_path / "b", "train")],
        }
    config = FindNearestConfig(space, k=4, queries_per_class=1)
    states = []
    for parts in (1, 3):
        folders = []
        for part in range(parts):
            out = tmp_path / f"near-{parts}-{part}"
            out.mkdir()
            inputs = Inputs({role: tuple(given) for role, given in roles.items()})
            find_nearest.run(config, inputs, Workplace(out, out / "keep", part, parts))
            folders.append(out)
        states.append(find_nearest.merged(folders))
        if parts > 1:
            with pytest.raises(UserError, match="give every part once"):
                find_nearest.merged(folders[1:])
    assert states[0] == states[1]
    assert set(states[0].best) == {f"{emotion}-000000" for emotion in EMOTIONS}
    assert states[0].best["happy-000000"][0] == (0, "copy-happy-000000")
    assert all(len(ranking) == 4 for ranking in states[0].best.values())
