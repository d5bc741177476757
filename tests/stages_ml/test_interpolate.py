"""Ways between two faces: which pairs, what stands at their ends, and that no division of the work changes a bit."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ml_world import Chain, edit
from torch import Tensor

from affect_hpc.config.drawing import BlendLabel, InterpolateConfig, Slerp
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import manifest_of, read_json
from affect_hpc.core.marks import manifest_without_marks
from affect_hpc.core.rundir import Inputs, Workplace
from affect_hpc.data.codec import decode_npy, decode_png, tensor_to_images
from affect_hpc.data.provenance import verify_shard
from affect_hpc.data.shards import ShardSet
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import Ldm
from affect_hpc.stages import interpolate
from affect_hpc.stages.interpolate import Ways, choose_pairs, point_name

POINTS = 5


def settings(chain: Chain, **changes: object) -> InterpolateConfig:
    usual = {"pairs": 5, "num_points": POINTS, "num_steps": 4, "batch_size": 2}
    return replace(chain.stages.interpolate, **{**usual, **changes})  # type: ignore[arg-type]


def made(chain: Chain, out: Path, part: int = 0, parts: int = 1, **changes: object) -> Path:
    """Output of the stage, in a folder of its own."""
    out.mkdir(parents=True)
    names = {"latents": "encode_val", "first_stage": "train_vqgan", "ldm": "train_ldm"}
    inputs = Inputs({role: (chain.out(name),) for role, name in names.items()})
    place = Workplace(out, out.parent / "keep", part, parts, signer=out.parent / "signer")
    interpolate.run(settings(chain, **changes), inputs, place)
    return out


def contents(*folders: Path) -> dict[str, bytes]:
    shards = ShardSet.open(folders)
    return {f"{sample.key}.{name}": shards.read(i, name) for i, sample in enumerate(shards) for name in sample.members}


@pytest.fixture(scope="module")
def plain(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(chain, tmp_path_factory.mktemp("plain") / "out")


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_any_number_of_parts_gives_the_same_bits(chain: Chain, tmp_path: Path, eta: float) -> None:
    whole = made(chain, tmp_path / "whole", eta=eta)
    shares = [made(chain, tmp_path / f"part-{part}", part, 2, eta=eta) for part in range(2)]
    assert contents(*shares) == contents(whole)
    assert [len(ShardSet.open([share])) for share in shares] == [2, 3]
    assert read_json(shares[1] / "interpolation.json") == read_json(whole / "interpolation.json")


def test_a_way_says_whose_it_is(chain: Chain, plain: Path) -> None:
    faces, ways = ShardSet.open([chain.out("encode_val")]), ShardSet.open([plain])
    assert len(ways) == 5
    named = [ways[i].info[end] for i in range(5) for end in ("first", "second")]
    assert len(set(named)) == 10 and set(named) == {face.key for face in faces}
    for sample in ways:
        first, second = (faces[faces.index_of(sample.info[end])] for end in ("first", "second"))
        assert first.label != second.label and sample.label == first.label
        assert sample.info["fractions"] == [0, 0.25, 0.5, 0.75, 1]
        assert 0 < sample.info["angle"] < np.pi
        assert set(sample.members) == {"first.png", "second.png", *(f"{point_name(i)}.png" for i in range(POINTS))}


def test_without_fresh_noise_the_ends_are_the_round_trips_of_inversion(chain: Chain, plain: Path) -> None:
    edit(chain, "-strip")
    inverted, ways = ShardSet.open([chain.out("invert-strip-0")]), ShardSet.open([plain])
    clean = ShardSet.open([chain.out("encode_val")])
    model = first_stage.load(chain.out("train_vqgan"))
    norm = Ldm.load(chain.out("train_ldm"), torch.device("cpu")).norm
    for i, sample in enumerate(ways):
        for end, place in (("first", 0), ("second", POINTS - 1)):
            own, z = (
                torch.from_numpy(decode_npy(shards.read(shards.index_of(sample.info[end]), member)))[None]
                for shards, member in ((inverted, "own.npy"), (clean, "npy"))
            )
            with torch.no_grad():
                expected = tensor_to_images(first_stage.decode(model, torch.cat([norm.restore(own), z])))
            found = [decode_png(ways.read(i, f"{name}.png")) for name in (point_name(place), end)]
            for one, other in zip(found, expected, strict=True):
                assert np.abs(one.astype(int) - other).max() <= 1


def test_fresh_noise_changes_every_place_and_not_the_pairs(chain: Chain, plain: Path, tmp_path: Path) -> None:
    noisy = made(chain, tmp_path / "noisy", eta=1.0)
    one, other = ShardSet.open([plain]), ShardSet.open([noisy])
    for i in range(5):
        assert one[i].info == other[i].info
        assert one.read(i, "first.png") == other.read(i, "first.png")
        assert all(one.read(i, f"{point_name(p)}.png") != other.read(i, f"{point_name(p)}.png") for p in range(POINTS))


def test_more_pairs_and_another_number_of_points_leave_the_first_ones(
    chain: Chain, plain: Path, tmp_path: Path
) -> None:
    fewer = ShardSet.open([made(chain, tmp_path / "fewer", pairs=2, num_points=3)])
    many = ShardSet.open([plain])
    for i in range(2):
        assert (fewer[i].key, fewer[i].info["first"]) == (many[i].key, many[i].info["first"])
        for name, same in (("point_001", "point_002"), ("point_002", "point_004")):
            a, b = decode_png(fewer.read(i, f"{name}.png")), decode_png(many.read(i, f"{same}.png"))
            assert np.abs(a.astype(int) - b).max() <= 1


def test_the_printed_form_has_no_way_back_to_the_faces(chain: Chain, plain: Path, tmp_path: Path) -> None:
    broken = ShardSet.open([made(chain, tmp_path / "printed", slerp=Slerp.printed)])
    proper = ShardSet.open([plain])
    for i in range(5):
        source, end, lost = (
            decode_png(shards.read(i, name)).astype(int)
            for shards, name in ((proper, "first.png"), (proper, "point_000.png"), (broken, "point_000.png"))
        )
        assert np.abs(end - source).mean() < np.abs(lost - source).mean() / 2


@pytest.mark.parametrize(
    ("label", "points", "expected"),
    [
        (BlendLabel.nearer, 5, [3, 3, 3, 6, 6]),
        (BlendLabel.nearer, 4, [3, 3, 6, 6]),
        (BlendLabel.none, 3, [8, 8, 8]),
    ],
)
def test_labels_of_mixtures(chain: Chain, label: BlendLabel, points: int, expected: list[int]) -> None:
    ldm = Ldm.load(chain.out("train_ldm"), torch.device("cpu"))
    ways = Ways(settings(chain, label=label, num_points=points), ldm)
    asked: list[list[int]] = []

    def predict(z: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        asked.append(labels.tolist())
        return torch.zeros_like(z)

    ways.predict = predict
    z = torch.randn(1, 2, *ldm.denoiser.latent_shape, generator=torch.Generator().manual_seed(0))
    ways.between(z, torch.tensor([[3, 6]]), [0])
    assert asked == [[3, 6]] * 4 + [expected] * 4, "each end is followed back under its own label"


def test_shards_are_marked_and_marks_are_no_result(chain: Chain, plain: Path, tmp_path: Path) -> None:
    again = made(chain, tmp_path / "again")
    (tar,) = plain.glob("*.tar")
    found = verify_shard(tar)
    assert (
        found is not None and found.valid and found.facts is not None and found.facts["settings"]["slerp"] == "proper"
    )
    assert manifest_without_marks(again) == manifest_without_marks(plain) != manifest_of(plain)


def labels_of(text: str) -> list[int]:
    return [int(digit) for digit in text]


def pairs_of(text: str, count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of keys, of faces whose labels are the digits of ``text``."""
    labels = labels_of(text)
    keys = [f"face{i:03d}" for i in range(len(labels))]
    return [(keys[a], keys[b]) for a, b in choose_pairs(keys, labels, count, seed)]


@pytest.mark.parametrize(
    ("labels", "most"),
    [("01234567" * 4, 16), ("0000001122", 4), ("00000001", 1), ("0011223", 3), ("000111222", 4), ("0123012", 3)],
)
@pytest.mark.parametrize("seed", range(6))
def test_as_many_pairs_of_two_emotions_as_there_are_use_no_face_twice(labels: str, most: int, seed: int) -> None:
    found = pairs_of(labels, most + 3, seed)
    assert all(labels[int(a[4:])] != labels[int(b[4:])] for a, b in found), "another emotion even when faces come again"
    assert max(Counter(key for pair in found[:most] for key in pair).values()) == 1
    assert max(Counter(key for pair in found for key in pair).values()) > 1
    assert found[:2] == pairs_of(labels, 2, seed)


def test_one_emotion_alone_is_paired_with_itself() -> None:
    found = pairs_of("33333", 2)
    assert len({key for pair in found for key in pair}) == 4


def test_pairs_are_random_and_hang_on_seed_and_keys_alone() -> None:
    labels = "01234567" * 3
    seen = {tuple(pairs_of(labels, 4, seed)) for seed in range(20)}
    assert len(seen) == 20
    keys = [f"face{i:03d}" for i in range(24)]
    order = np.random.default_rng(1).permutation(24)
    turned = choose_pairs([keys[i] for i in order], [int(labels[i]) for i in order], 8, 5)
    assert [(keys[order[a]], keys[order[b]]) for a, b in turned] == pairs_of(labels, 8, 5)


def test_one_face_makes_no_pair() -> None:
    with pytest.raises(UserError, match="1 validation faces make no pair"):
        pairs_of("1", 1)
