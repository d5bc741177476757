"""The command that edits photos: what it writes, what stays to the bit, and what it says of photos it cannot edit."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photo_world import FACE, FIRST_STAGE, SIZE, Judge, World, loaded, picture, saved
from PIL import Image

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.hashing import folder_digest
from affect_hpc.core.io import read_json, sha256_file
from affect_hpc.data.provenance import Signer, read_mark
from affect_hpc.photos import call


def changed(world: World, photo: Path, name: str) -> np.ndarray:
    """Which px of a photo an edit changed."""
    return (loaded(world.out / name) != loaded(photo)).any(axis=2)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_an_edit_is_the_photo_its_crop_and_a_certificate(world: World) -> None:
    photo = world.photo("me.png")
    assert world.call(photo) == 0
    assert world.names() == ["me.json", "me_happy.png", "me_happy_crop.png"]
    told = read_json(world.out / "me.json")
    assert told["photo"] == {"file": "me.png", "sha256": sha256_file(photo), "height": 260, "width": 300}
    assert told["model"]["name"] == "random" and told["model"]["ldm"] == folder_digest(world.ldm)
    assert told["model"]["first_stage"] == folder_digest(FIRST_STAGE)
    settings = {name: told["edit"][name] for name in ("gamma", "encode_gamma", "t0", "num_steps", "inverter", "paste")}
    assert settings == {
        **{"gamma": 2, "encode_gamma": 2, "t0": 500, "num_steps": 3},
        **{"inverter": "ddim", "paste": "difference"},
    }
    (face,) = told["faces"]
    assert (face["label"], face["label_said_by"], face["label_probability"]) == ("neutral", "user", None)
    assert (face["inverter"], face["calls"], face["residual"]) == ("ddim", 6, 0)
    assert 5 < face["round_trip_db"] < 80 and f"round trip {face['round_trip_db']:.1f} dB" in world.said
    assert told["results"]["happy"]["files"] == {name: sha256_file(world.out / name) for name in world.names()[1:]}
    assert told["terms"] == {} and told["marked"] and told["crop_size"] == SIZE
    assert loaded(world.out / "me_happy_crop.png").shape == (SIZE, SIZE, 3)


def test_outside_of_the_face_the_photo_stays_to_the_bit(world: World) -> None:
    photo = world.photo("me.png")
    world.call(photo)
    left, top, right, bottom = box_of(changed(world, photo, "me_happy.png"))
    x, y, side = FACE
    margin = 0.12 * side
    assert x - margin <= left < right <= x + side + margin and y - margin <= top < bottom <= y + side + margin
    assert right - left > side / 2 and bottom - top > side / 2
    outside = read_json(world.out / "me.json")["results"]["happy"]["outside_of_mask"]
    assert outside["identical"] and outside["psnr_db"] is None
    assert 300 * 260 - (side + 2 * margin) ** 2 <= outside["pixels"] < 300 * 260 - (right - left) * (bottom - top) / 2


def test_the_marks_read_back_as_valid_with_a_signer_whom_nobody_knows(world: World) -> None:
    world.call(world.photo("me.png"))
    for name in ("me_happy.png", "me_happy_crop.png"):
        found = read_mark((world.out / name).read_bytes(), "png")
        assert found is not None and found.valid and not found.trusted and found.problems == ()
        assert found.facts is not None and found.facts["edited"] and found.facts["model"] == "random"
        assert found.facts["settings"] == {
            **{"target": "happy", "gamma": 2.0, "encode_gamma": 2.0, "t0": 500, "steps": 3, "inverter": "ddim"},
            "weights": folder_digest(world.ldm),
        }
    anchors = Signer.kept_in(call.own_signer()).certificates
    trusted = read_mark((world.out / "me_happy.png").read_bytes(), "png", anchors)
    assert trusted is not None and trusted.trusted, "the signer is generated once, and kept for the next call"


def test_marks_can_be_switched_off_which_is_said_and_changes_no_pixel(world: World) -> None:
    photo = world.photo("me.png")
    world.call(photo)
    marked = loaded(world.out / "me_happy.png")
    assert "--no-mark" not in world.warned
    world.call(photo, "--no-mark")
    assert "nothing in these pictures will say that they are synthetic" in world.warned
    assert read_mark((world.out / "me_happy.png").read_bytes(), "png") is None
    np.testing.assert_array_equal(loaded(world.out / "me_happy.png"), marked)
    assert not read_json(world.out / "me.json")["marked"]


def test_the_users_own_key_signs(world: World) -> None:
    own = Signer.kept_in(world.root / "mine")
    pems = ("--key", world.root / "mine/key.pem", "--certificates", world.root / "mine/certificates.pem")
    assert world.call(world.photo("me.png"), *pems) == 0
    found = read_mark((world.out / "me_happy.png").read_bytes(), "png", own.certificates)
    assert found is not None and found.trusted and not call.own_signer().exists()


def test_a_key_that_does_not_fit_is_refused_before_anything_is_written(world: World) -> None:
    Signer.kept_in(world.root / "mine")
    photo, key = world.photo("me.png"), world.root / "mine/key.pem"
    assert world.call(photo, "--key", key) == 2 and "--key is given without --certificates" in world.warned
    assert world.call(photo, "--key", photo, "--certificates", photo) == 2 and "is no key that can sign" in world.warned
    assert world.call(photo, "--key", key, "--certificates", key) == 2
    assert f"{key} does not begin with a certificate of {key}" in world.warned
    assert world.call(photo, "--key", world.root / "none", "--certificates", key) == 2
    assert "none cannot be read" in world.warned
    assert world.names() == []


def test_photos_that_cannot_be_edited_are_named_and_the_others_go_on(world: World) -> None:
    nobody = saved(world.root / "photos/nobody.png", picture())
    small = world.photo("small.png", (60, 50, 40))
    broken = world.root / "photos/broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no picture")
    assert world.call(nobody, world.photo("me.png"), small, broken) == 1
    assert f"{nobody} shows no face that the detector finds." in world.warned
    assert f"{small} shows a face of 47 x 47 px, less than the model's 64 x 64: give a larger picture." in world.warned
    assert f"{broken} is no image in one of the formats" in world.warned
    assert world.names() == ["me.json", "me_happy.png", "me_happy_crop.png"]
    assert world.call(nobody) == 1


def test_a_photo_that_changes_meanwhile_is_not_edited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = world.photo("me.png")
    look = call.Call._look

    def meddled(self: call.Call) -> object:
        faces = look(self)
        world.photo("me.png", seed=1)
        return faces

    monkeypatch.setattr(call.Call, "_look", meddled)
    assert world.call(photo) == 1 and f"{photo} has changed while it was edited: edit it again." in world.warned
    assert world.names() == []


def test_a_judge_says_what_a_face_shows_where_the_user_does_not(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "load_emotion", lambda name, folder, referee: Judge())
    photo = world.photo("me.png")
    assert world.call(photo, label="") == 0
    (face,) = read_json(world.out / "me.json")["faces"]
    assert (face["label"], face["label_said_by"]) == ("surprised", "brightness")
    assert face["label_probability"] == pytest.approx(0.7) and f"{photo}: surprised (brightness: 70%)" in world.said
    judged = loaded(world.out / "me_happy_crop.png")
    world.call(photo, label="surprised")
    np.testing.assert_array_equal(loaded(world.out / "me_happy_crop.png"), judged)
    world.call(photo, label="angry")
    assert (loaded(world.out / "me_happy_crop.png") != judged).any(), "a face is followed back under its own label"


def test_several_targets_share_one_certificate(world: World) -> None:
    photo = world.photo("me.png")
    assert world.call(photo, target="happy, sad") == 0
    assert world.names() == ["me.json", *(f"me_{name}.png" for name in ("happy", "happy_crop", "sad", "sad_crop"))]
    assert (loaded(world.out / "me_happy.png") != loaded(world.out / "me_sad.png")).any()
    assert list(read_json(world.out / "me.json")["results"]) == ["happy", "sad"]
    assert world.call(photo, target="all") == 0
    assert list(read_json(world.out / "me.json")["results"]) == sorted(EMOTIONS)


def test_the_edit_to_what_a_face_shows_gives_the_photo_back(world: World) -> None:
    photo = world.photo("me.png")
    world.call(photo, target="neutral")
    assert not changed(world, photo, "me_neutral.png").any()
    assert f"{photo} shows neutral already" in world.warned
    world.call(photo, "--paste", "whole", target="neutral")
    assert changed(world, photo, "me_neutral.png").any(), "the crop itself shows what the model lost"


def test_the_largest_face_is_edited_or_all_that_are_large_enough(world: World) -> None:
    second, tiny = (200, 150, 90), (10, 220, 30)
    photo = world.photo("group.png", second, FACE, tiny)
    world.call(photo)
    alone = changed(world, photo, "group_happy.png")
    assert alone[:, :195].any() and not alone[:, 195:].any()
    world.call(photo, "--all-faces")
    both = changed(world, photo, "group_happy.png")
    assert both[60:160, 80:160].any() and both[160:230, 210:280].any() and not both[235:, :40].any()
    assert f"{photo}: 1 more, smaller than 64 x 64 px, stay as they are." in world.warned
    assert "group_happy_crop_2.png" in world.names() and len(read_json(world.out / "group.json")["faces"]) == 2
    assert read_json(world.out / "group.json")["results"]["happy"]["outside_of_mask"]["identical"]


def test_orientation_and_colour_profile_are_those_of_the_photo(world: World) -> None:
    upright = picture(FACE)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise to stand upright
    turned = saved(world.root / "photos/turned.png", np.rot90(upright), exif=exif, icc_profile=b"a profile")
    world.call(turned, saved(world.root / "photos/upright.png", upright), "--batch-size", 1)
    np.testing.assert_array_equal(loaded(world.out / "turned_happy.png"), loaded(world.out / "upright_happy.png"))
    with Image.open(world.out / "turned_happy.png") as edited:
        assert edited.info["icc_profile"] == b"a profile" and not edited.getexif()


def test_a_jpeg_is_edited_as_one_where_that_is_asked(world: World) -> None:
    photo = saved(world.root / "photos/me.jpg", picture(FACE), quality=95)
    world.call(photo)
    assert (
        "me_happy.png" in world.names()
        and read_json(world.out / "me.json")["results"]["happy"]["outside_of_mask"]["identical"]
    )
    world.call(photo, world.photo("other.png"), "--format", "jpg")
    content = (world.out / "me_happy.jpg").read_bytes()
    assert Image.open(io.BytesIO(content)).format == "JPEG" and "other_happy.png" in world.names()
    found = read_mark(content, "jpeg")
    assert found is not None and found.valid and not found.trusted
    told = read_json(world.out / "me.json")["results"]["happy"]
    assert told["files"]["me_happy.jpg"] == hashlib.sha256(content).hexdigest()
    assert not told["outside_of_mask"]["identical"] and 30 < told["outside_of_mask"]["psnr_db"] < 60


def test_photos_of_a_folder_each_once_and_under_names_of_their_own(world: World) -> None:
    one, other = world.photo("a/me.png"), world.photo("b/me.png", seed=1)
    world.photo("a/.hidden/me.png")
    (world.root / "photos/notes.txt").write_text("no photo")
    world.out.parent.joinpath("photos/a/edited").mkdir()
    assert world.call(world.root / "photos", one, "--out", world.root / "photos/a/edited") == 0
    folder = world.root / "photos/a/edited"
    assert len(list(folder.glob("me-*.json"))) == 2
    sources = {read_json(path)["photo"]["sha256"] for path in folder.glob("*.json")}
    assert sources == {sha256_file(one), sha256_file(other)}
    before = sorted(folder.iterdir())
    world.call(world.root / "photos", "--out", folder)
    assert sorted(folder.iterdir()) == before, "edits are no photos"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--target", "joyful"], "edit.targets='joyful' is unknown: the valid values are neutral, happy"),
        (["--label", "joyful"], "--label='joyful' is unknown: the valid values are neutral, happy"),
        (["--gamma", "0.5"], "edit.gamma=0.5 is out of range: give a value from 1 to 100."),
        (["--t0", "1000"], "edit.t0=1000 is out of range: give a value from 2 to 999."),
        (["--steps", "600"], "edit.num_steps=600 is out of range: give a value from 2 to 500."),
        (["--encode-gamma", "0"], "edit.encode_gamma=0 is out of range"),
        (["--target", "sad,sad"], "names an emotion twice"),
        (["--first-stage", "package:none"], "--first-stage=package:none holds no first_stage/config.json"),
        (["nowhere.png"], "nowhere.png does not exist: give photos, or folders that hold them."),
    ],
)
def test_a_wrong_word_is_answered_in_one_sentence(world: World, words: list[str], told: str) -> None:
    assert world.call(world.photo("me.png"), *words) == 2
    assert told in world.warned and world.warned.count("\n") == 1
    assert world.names() == []


def test_no_photo_is_replaced(world: World) -> None:
    photo = world.photo("me.png")
    other = world.photo("me_happy.png")
    assert world.call(photo, other, "--out", photo.parent) == 2
    assert f"the edit of {photo} would replace {other}: give another folder." in world.warned
    assert world.call(photo.parent, "--out", photo.parent) == 2 and "is the folder of the photos" in world.warned
    (world.root / "empty").mkdir()
    assert world.call(world.root / "empty") == 2 and "holds no photo" in world.warned


def test_help_is_answered_before_anything_heavy_is_loaded() -> None:
    program = (
        "import sys\nfrom affect_hpc.edit import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "python -m affect_hpc.edit" in done.stdout and "--no-mark" in done.stdout
