"""Photos are edited by what the stages run, in blocks that are as independent as is said."""

from pathlib import Path

import numpy as np
import photo_world
import pytest
from photo_world import FACE, FIRST_STAGE, World, loaded, picture, saved

from affect_hpc.config.data import AlignConfig
from affect_hpc.config.edit import EditConfig, Inverter
from affect_hpc.config.packaged import missing
from affect_hpc.config.stages import EncodeLatentsConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.io import read_json
from affect_hpc.core.rundir import Inputs, Workplace
from affect_hpc.data.codec import decode_png, encode_png
from affect_hpc.data.faces import Cropper
from affect_hpc.data.provenance import read_mark
from affect_hpc.data.shards import ShardSet, ShardWriter
from affect_hpc.photos.editing import decoding_config, inversion_config
from affect_hpc.stages import manipulate, precompute_latents


@pytest.mark.parametrize("inverter", ["ddim", "direct", "fixed_point", "coupled", "auto"])
def test_a_photo_is_edited_to_the_bit_as_the_stages_edit_its_crop(world: World, inverter: str) -> None:
    words = ["--inverter", inverter, "--encode-gamma", 1, "--bound-db", 60]
    assert world.call(world.photo("me.png"), *words, target="happy,sad") == 0
    cropper = Cropper(AlignConfig(landmarks="dlib", margin=0.09), 64, landmarks=photo_world.Squares())
    image = picture(FACE)
    face, _ = cropper.find(image)
    assert face is not None
    crop = cropper.crop(image, face, cropper.box_of(face, video=False)).image
    with ShardWriter(world.root / "shards/val", "faces") as writer:
        writer.write("me", {"png": encode_png(crop)}, {"label": EMOTIONS.index("neutral"), "identity": "me"})
    edit = EditConfig(
        gamma=2, encode_gamma=1.0, num_steps=3, targets=["happy", "sad"], inverter=Inverter[inverter], bound_db=60
    )
    networks = {"first_stage": (FIRST_STAGE,), "ldm": (world.ldm,)}
    folders = {}
    for name, stage, config, inputs in (
        ("clean", precompute_latents, EncodeLatentsConfig(split="val", full_precision=True), "shards"),
        ("inverted", precompute_latents, inversion_config(edit), "clean"),
        ("edited", manipulate, decoding_config(edit), "inverted"),
    ):
        folders[name] = world.root / name
        folders[name].mkdir(exist_ok=True)
        role = "shards" if inputs == "shards" else "latents"
        place = Workplace(folders[name] if name != "edited" else world.root / "stage", world.root)
        place.out.mkdir(exist_ok=True)
        stage.run(config, Inputs({role: (world.root / inputs,), **networks}), place)
    made = ShardSet.open([world.root / "stage"])
    for target in ("happy", "sad"):
        crop_file = world.out / f"me_{target}_crop.png"
        np.testing.assert_array_equal(loaded(crop_file), decode_png(made.read(0, f"{target}.png")))
    (told,) = read_json(world.out / "me.json")["faces"]
    assert {name: told[name] for name in made[0].info["certificate"]} == made[0].info["certificate"]
    assert inverter in ("auto", told["inverter"])


def crops(world: World, names: list[str]) -> list[np.ndarray]:
    return [loaded(world.out / f"{name}_happy_crop.png") for name in names]


def test_in_blocks_of_one_an_edit_hangs_on_no_other_photo(world: World) -> None:
    names = ["a", "b", "c"]
    photos = [world.photo(f"{name}.png", seed=seed) for seed, name in enumerate(names)]
    world.call(*photos, "--batch-size", 1)
    together = crops(world, names)
    for photo in photos:
        world.call(photo)
    for one, other in zip(together, crops(world, names), strict=True):
        np.testing.assert_array_equal(one, other)


def test_equal_blocks_give_equal_bits_and_others_nearly(world: World) -> None:
    names = ["a", "b", "c"]
    photos = [world.photo(f"{name}.png", seed=seed) for seed, name in enumerate(names)]
    world.call(*photos, "--batch-size", 2)
    three = crops(world, names)
    world.call(*photos[:2], "--batch-size", 2)
    two = crops(world, names)
    np.testing.assert_array_equal(three[0], two[0])
    np.testing.assert_array_equal(three[1], two[1])
    world.call(*photos)
    assert max(np.abs(one.astype(int) - other).max() for one, other in zip(three, crops(world, names), strict=True)) < 9


def test_faces_of_a_photo_may_lie_in_several_blocks(world: World) -> None:
    faces = [(10, 10, 90), (160, 20, 95), (100, 140, 100)]
    group, single = world.photo("group.png", *faces), world.photo("single.png")
    world.call(group, single, "--all-faces", "--batch-size", 2)
    assert len(read_json(world.out / "group.json")["faces"]) == 3
    assert len(read_json(world.out / "single.json")["faces"]) == 1
    off = (loaded(world.out / "group_happy.png") != loaded(group)).any(axis=2)
    assert all(off[top : top + side, left : left + side].mean() > 0.3 for left, top, side in faces)


@pytest.mark.skipif(bool(missing("dlib_landmarks")), reason="dlib's landmark network is not installed")
@pytest.mark.skipif(bool(missing("face_api")), reason="the judge face_api is not installed")
def test_a_real_photo_is_found_judged_edited_and_marked(
    ldm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the test face")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    world = World(tmp_path, ldm, capsys)
    photo = saved(tmp_path / "photos/astronaut.png", data.astronaut())
    assert world.call(photo, "--landmarks", "dlib", target="sad", label="") == 0
    (face,) = read_json(world.out / "astronaut.json")["faces"]
    assert (face["label"], face["label_said_by"]) == ("happy", "face_api") and face["label_probability"] > 0.5
    off = (loaded(world.out / "astronaut_sad.png") != data.astronaut()).any(axis=2)
    rows, columns = np.nonzero(off)
    # Her face fills about 100 px of the upper middle.
    assert off[90:180, 190:260].mean() > 0.5
    assert rows.min() > 50 and rows.max() < 230 and columns.min() > 130 and columns.max() < 320
    found = read_mark((world.out / "astronaut_sad.png").read_bytes(), "png")
    assert found is not None and found.valid and not found.trusted
