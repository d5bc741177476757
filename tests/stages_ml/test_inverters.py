"""Inverters in the stages: certificates travel with the faces, and say the truth about the images."""

import numpy as np
import piq
import pytest
from ml_world import Chain, edit

from affect_hpc.config.edit import Inverter
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.io import read_json
from affect_hpc.data.codec import decode_png, images_to_tensor
from affect_hpc.data.shards import ShardSet


def shards_of(chain: Chain, names: list[str]) -> ShardSet:
    return ShardSet.open([chain.out(name) for name in names])


@pytest.fixture(scope="module")
def reconstructions(chain: Chain) -> ShardSet:
    chain.run("reconstruct", "reconstruct-inverters", latents="encode_val", first_stage="train_vqgan")
    return shards_of(chain, ["reconstruct-inverters"])


@pytest.mark.parametrize("inverter", [Inverter.ddim, Inverter.direct, Inverter.fixed_point, Inverter.coupled])
def test_a_certificate_is_the_psnr_of_the_round_trip(
    chain: Chain, reconstructions: ShardSet, inverter: Inverter
) -> None:
    edited = shards_of(chain, edit(chain, f"-{inverter.name}", gamma=2, inverter=inverter))
    calls = {Inverter.ddim: 2, Inverter.direct: 3, Inverter.fixed_point: 5, Inverter.coupled: 4}[inverter]
    for index, sample in enumerate(edited):
        certificate = sample.info["certificate"]
        assert (certificate["inverter"], certificate["calls"]) == (inverter.name, 4 * calls)
        a, b = (
            (images_to_tensor([decode_png(shards.read(place, member))]) + 1) / 2
            for shards, place, member in (
                (edited, index, "round_trip.png"),
                (reconstructions, reconstructions.index_of(sample.key), "reconstruction.png"),
            )
        )
        # In another batch one pixel may round the other way, which is half a decibel where all others are equal.
        near = 1.0 if certificate["round_trip_db"] > 70 else 0.1
        assert float(piq.psnr(a.double(), b.double())) == pytest.approx(certificate["round_trip_db"], abs=near)
        if inverter in (Inverter.direct, Inverter.coupled):
            assert certificate["round_trip_db"] > 40, "exact but for rounding"


def test_an_edit_to_the_own_emotion_is_the_round_trip(chain: Chain) -> None:
    edited = shards_of(chain, edit(chain, "-own", gamma=2))
    own = [index for index, sample in enumerate(edited) if EMOTIONS[sample.label] in ("happy", "sad")]
    assert own
    for index in own:
        assert edited.read(index, f"{EMOTIONS[edited[index].label]}.png") == edited.read(index, "round_trip.png")


def test_faces_encoded_at_another_guidance_are_decoded_again(chain: Chain) -> None:
    """The certificate's way back has the guidance of encoding: it is no edit at another one."""
    names = edit(chain, "-from-one", gamma=3, encode_gamma=1)
    assert read_json(chain.out(names[0]) / "edit.json")["encode_gamma"] == 1
    edited = shards_of(chain, names)
    same = shards_of(chain, edit(chain, "-at-one", gamma=1))
    assert any(
        edited.read(index, "round_trip.png") != same.read(index, "round_trip.png") for index in range(len(edited))
    )


def test_auto_takes_for_each_face_the_cheapest_that_keeps_the_bound(chain: Chain) -> None:
    plain = shards_of(chain, edit(chain, "-plain", gamma=3))
    found = sorted(sample.info["certificate"]["round_trip_db"] for sample in plain)
    bound = (found[4] + found[5]) / 2
    names = edit(chain, "-auto", gamma=3, inverter=Inverter.auto, bound_db=bound)
    chosen = shards_of(chain, names)
    for sample in chosen:
        certificate, before = sample.info["certificate"], plain[plain.index_of(sample.key)].info["certificate"]
        assert certificate["round_trip_db"] >= bound
        assert certificate["inverter"] == ("ddim" if before["round_trip_db"] >= bound else "direct")
    described = read_json(chain.out(names[0]) / "edit.json")
    assert (described["inverter"], described["bound_db"]) == ("auto", bound)
    for index, sample in enumerate(chosen):
        if sample.info["certificate"]["inverter"] == "ddim":
            a, b = (decode_png(of.read(of.index_of(sample.key), "happy.png")) for of in (plain, chosen))
            assert np.abs(a.astype(int) - b).max() <= 1, index


def test_inverters_do_not_depend_on_the_number_of_parts(chain: Chain) -> None:
    settings = {"gamma": 2, "inverter": Inverter.auto, "bound_db": 25.0}
    whole, shares = (shards_of(chain, edit(chain, tail, parts, **settings)) for tail, parts in (("-a1", 1), ("-a3", 3)))
    for index, sample in enumerate(whole):
        assert shares[index].info == sample.info
        assert all(shares.read(index, member) == whole.read(index, member) for member in sample.members)
