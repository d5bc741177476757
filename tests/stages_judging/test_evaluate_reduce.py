"""Judging and merging: hand-made faces, any number of parts, and parts that do not fit."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import piq
import pytest
import torch
from judging_world import COUNT, TARGETS, MeanDistance, PatchEmotion, PoolIdentity, World, face, label_of

from affect_hpc.config.stages import ReduceConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, write_json
from affect_hpc.core.rundir import Inputs, Workplace
from affect_hpc.metrics.paired import unit_range
from affect_hpc.metrics.suite import Faces, Judges, describe, score
from affect_hpc.stages import reduce


def reduced(world: World, folders: tuple[Path, ...], tag: str = "m") -> dict[str, Any]:
    out = world.root / f"reduce/{tag}/out"
    out.mkdir(parents=True)
    reduce.run(ReduceConfig(), Inputs({"states": folders}), Workplace(out, out.parent / "keep"))
    return read_json(out / "metrics.json")


def rows_of(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["y_target"]: row for row in metrics["rows"]}


@pytest.mark.parametrize("parts", [2, 3, 6, 9])
@pytest.mark.parametrize("gamma", [None, 2.0])
def test_any_number_of_parts_gives_the_same_bytes(world: World, parts: int, gamma: float | None) -> None:
    whole = world.evaluate(gamma, 1)
    divided = world.evaluate(gamma, parts)
    reduced(world, whole, "whole")
    reduced(world, divided, "divided")
    for name in ("metrics.json", "samples.parquet"):
        one, other = (world.root / f"reduce/{tag}/out/{name}" for tag in ("whole", "divided"))
        assert one.read_bytes() == other.read_bytes()


def test_edits_are_compared_with_the_reconstruction(world: World) -> None:
    rows = rows_of(reduced(world, world.evaluate(2.0)))
    assert list(rows)[:4] == [*TARGETS, "mean", "round_trip"]
    psnr: dict[str, list[float]] = {"": [], "_original": [], "_truth": []}
    for i in range(COUNT):
        edited = unit_range([face(i, "happy", 16.0)])
        references = {"": face(i, label_of(i), 4.0), "_original": face(i, label_of(i)), "_truth": face(i, "happy")}
        for suffix, image in references.items():
            psnr[suffix].append(float(piq.psnr(edited, unit_range([image]))))
    for suffix, values in psnr.items():
        assert rows["happy"][f"psnr{suffix}"] == pytest.approx(math.fsum(values) / COUNT, abs=1e-9)
    assert rows["happy"]["target_accuracy"] == 1.0
    assert rows["happy"]["seen"]["happy"] == 1.0
    assert rows["round_trip"]["target_accuracy"] == 1.0
    assert "psnr_truth" not in rows["round_trip"]
    assert rows["mean"]["n"] == 2 * COUNT
    mean = (rows["happy"]["psnr"] + rows["sad"]["psnr"]) / 2
    assert rows["mean"]["psnr"] == pytest.approx(mean, abs=1e-12)


def test_baseline_rows(world: World) -> None:
    rows = rows_of(reduced(world, world.evaluate(None)))
    assert {"reconstruction", "unedited", "unedited_as_happy", "reconstruction_as_angry"} <= set(rows)
    assert "psnr" not in rows["unedited"]
    assert rows["unedited"]["target_accuracy"] == 1.0
    assert rows["unedited"]["seen"] == {e: sum(label_of(i) == e for i in range(COUNT)) / COUNT for e in EMOTIONS}
    assert rows["reconstruction"]["psnr"] == rows["reconstruction"]["psnr_original"]
    # Doing nothing is right for the faces that show the target already, and only for those.
    assert rows["unedited_as_happy"]["target_accuracy"] == 2 / COUNT
    pairs = [(unit_range([face(i, label_of(i))]), unit_range([face(i, "happy")])) for i in range(COUNT)]
    nothing = [float(piq.psnr(a, b)) for a, b in pairs]
    assert rows["unedited_as_happy"]["psnr_truth"] == pytest.approx(math.fsum(nothing) / COUNT, abs=1e-9)
    labels = [rows[f"unedited_label_{e}"]["n"] for e in EMOTIONS]
    assert labels == [2, 2, 2, 1, 1, 1, 1, 1]


def test_photographs_have_no_truth(world: World) -> None:
    rows = rows_of(reduced(world, world.evaluate(None, truth=False)))
    assert not any("_as_" in name for name in rows)


def test_a_judge_without_contempt_says_nothing_of_it(world: World) -> None:
    world.judges = Judges(PatchEmotion(EMOTIONS[:7]), world.judges.identity, world.judges.perceptual)
    rows = rows_of(reduced(world, world.evaluate(None)))
    assert "contempt" not in rows["unedited"]["seen"]
    assert rows["unedited_label_contempt"]["target_accuracy"] is None
    assert rows["unedited"]["target_accuracy"] == 1.0


def test_samples_read_back_to_the_same_figures(world: World) -> None:
    (folder,) = world.evaluate(2.0)
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == COUNT * 3
    rows = rows_of(reduced(world, (folder,)))
    ssims = [line["ssim"] for line in lines if line["row"] == "sad"]
    assert math.fsum(ssims) / COUNT == rows["sad"]["ssim"]


def test_judges_are_told_by_their_weights(world: World) -> None:
    (a,) = world.evaluate(2.0)
    world.judges.emotion.levels += 1e-3  # type: ignore[attr-defined]
    (b,) = world.evaluate(2.0, tag="again")
    one, other = read_json(a / "judges.json"), read_json(b / "judges.json")
    assert one["emotion"]["digest"] != other["emotion"]["digest"]
    assert one["identity"] == other["identity"]
    with pytest.raises(UserError, match="differ in 'judges'"):
        reduce.merged_metrics([a, b])


def test_a_missing_or_doubled_part_is_refused(world: World) -> None:
    folders = world.evaluate(2.0, 3)
    with pytest.raises(UserError, match="a part is missing"):
        reduce.merged_metrics(folders[:2])
    with pytest.raises(UserError, match="judged 4 faces again, f000 among them"):
        reduce.merged_metrics([*folders, folders[0]])


def test_a_part_of_other_faces_is_refused(world: World) -> None:
    folders = world.evaluate(2.0, 2)
    other = world.root / "other"
    shutil.copytree(folders[1], other)
    content = read_json(other / "state.json")
    content["state"]["keys"][0] = "stranger"
    write_json(other / "state.json", content)
    with pytest.raises(UserError, match="a part is missing"):
        reduce.merged_metrics([folders[0], other])


def test_edits_of_too_few_faces_are_named(world: World) -> None:
    first, second = world.edits(2.0, 6)[:2]
    shutil.rmtree(first)
    shutil.copytree(second, first)
    with pytest.raises(UserError, match=r"f000.happy.png is missing \(2 of 2"):
        world.evaluate(2.0, 6)


def test_threads_are_those_of_the_config(world: World) -> None:
    torch.set_num_threads(2)
    world.evaluate(2.0)
    assert torch.get_num_threads() == 1


class Contrary(PatchEmotion):
    """Sees the emotion after the one that is shown."""

    name = "contrary"

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        return super().probabilities(images).roll(1, dims=1)


def test_a_second_judge_has_columns_of_its_own_and_says_where_it_disagrees() -> None:
    judges = Judges(PatchEmotion(), PoolIdentity(), MeanDistance(), Contrary(), PoolIdentity())
    faces = Faces([face(i, "happy", 4.0) for i in range(4)], judges)
    for one in score(faces, {"": Faces([face(i, "sad", 4.0) for i in range(4)], judges)}, ["sad"] * 4):
        assert (one.seen, one.values["target_accuracy"]) == ("happy", 0.0)
        assert (one.values["second_accuracy"], one.values["agreement"]) == (1.0, 0.0)
        assert one.values["second_csim"] == one.values["csim"]
    assert describe(judges)["second_emotion"]["name"] == "contrary"
    alone = Judges(PatchEmotion(), PoolIdentity(), MeanDistance())
    (one,) = score(Faces([face(0, "happy")], alone), {}, ["happy"])
    assert set(one.values) == {"target_accuracy"} and set(describe(alone)) == {"emotion", "identity", "perceptual"}


def test_a_judge_that_cannot_know_does_not_disagree() -> None:
    judges = Judges(PatchEmotion(), PoolIdentity(), MeanDistance(), PatchEmotion(("sad", "surprised")))
    (one,) = score(Faces([face(0, "happy")], judges), {}, ["happy"])
    assert (one.values["second_accuracy"], one.values["agreement"]) == (None, None)
