"""The user's folder: which files, which split, which faces, and one sentence for each file that cannot be used."""

import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from affect_hpc.config import files
from affect_hpc.config.corpora import FolderDataConfig, LabelFrom
from affect_hpc.config.data import AlignConfig, OnBadFile
from affect_hpc.core.errors import UserError
from affect_hpc.data import media
from affect_hpc.data.align import CANONICAL, LEFT_EYE, MOUTH_CORNERS, RIGHT_EYE, Points
from affect_hpc.data.corpora.folder import FolderSource, chosen_frames, file_stems, held_out_files
from affect_hpc.data.corpora.source import Face, UInt8Image
from affect_hpc.data.faces import Cropper, Region
from affect_hpc.data.media import BadFileError, frame_count, read_frames, read_photo

SIDE = 32


class Squares:
    """A landmark backend that takes every bright square for a face."""

    name = "squares"

    def regions(self, image: UInt8Image) -> list[Region]:
        places = ndimage.find_objects(ndimage.label(image.min(axis=2) > 150)[0])
        found = [
            (float(x.start), float(y.start), float(x.stop), float(y.stop)) for y, x in places if x.stop - x.start > 8
        ]
        return sorted(found, key=lambda region: region[0] - region[2])

    def points(self, image: UInt8Image, region: Region) -> Points:
        left, top, right, bottom = region
        points = np.tile([(left + right) / 2, (top + bottom) / 2], (68, 1))
        points[0], points[16], points[8] = (left, top), (right, top), (right, bottom)
        size = (right - left, bottom - top)
        points[RIGHT_EYE], points[LEFT_EYE] = (left, top) + CANONICAL[0] * size, (left, top) + CANONICAL[1] * size
        points[list(MOUTH_CORNERS)] = (left, top) + CANONICAL[2:] * size
        return points


def square(x: int = 40, y: int = 30, side: int = 40, level: int = 220) -> UInt8Image:
    image = np.full((120, 160, 3), 20, np.uint8)
    image[y : y + side, x : x + side] = level
    return image


def write_photo(path: Path, image: UInt8Image | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(square() if image is None else image).save(path, quality=95)


def write_video(path: Path, count: int, frame: Callable[[int], UInt8Image] = lambda i: square(level=160 + i)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 120, "yuv420p", 4_000_000
        for i in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(i), format="rgb24")))
        container.mux(stream.encode())


def source(root: Path, **changes: object) -> FolderSource:
    values: dict[str, object] = {
        "name": "folder",
        "size": SIDE,
        "root": str(root),
        "label": LabelFrom.pseudo,
        "labeller": "py_feat",
        "frame_stride": 1,
        "max_frames": 0,
        "align": AlignConfig(landmarks="dlib"),
    }
    config = FolderDataConfig(**(values | changes))  # type: ignore[arg-type]
    return FolderSource(config, Cropper(config.align, SIDE, landmarks=Squares()))


def all_faces(folder: FolderSource) -> dict[str, list[Face]]:
    faces: dict[str, list[Face]] = {"train": [], "val": []}
    for plan in folder.shards():
        faces[plan.split] += folder.samples(plan)
    return faces


def test_photos_and_videos_become_faces_with_the_labels_of_their_folders(tmp_path: Path) -> None:
    write_photo(tmp_path / "happy" / "Ä b.JPG")
    write_photo(tmp_path / "anna" / "Fear" / "one.png")
    write_video(tmp_path / "surprise" / "deep" / "clip.mp4", 12)
    folder = source(tmp_path, label=LabelFrom.folder, frame_stride=4)
    faces = all_faces(folder)
    everything = faces["train"] + faces["val"]
    assert sorted((face.label, face.source) for face in everything) == [
        (1, "happy/Ä b.JPG"),
        (3, "surprise/deep/clip.mp4#0"),
        (3, "surprise/deep/clip.mp4#4"),
        (3, "surprise/deep/clip.mp4#8"),
        (4, "anna/Fear/one.png"),
    ]
    keys = [face.key for face in everything]
    assert len(set(keys)) == len(keys)
    assert all(key.isascii() and "." not in key and "/" not in key for key in keys)
    assert all(face.image.shape == (SIDE, SIDE, 3) and face.image.mean() > 100 for face in everything)
    assert not {face.identity for face in faces["train"]} & {face.identity for face in faces["val"]}
    assert faces["val"] and faces["train"]
    folder.verdict()
    assert folder.findings.counts() == {}


def test_a_shard_is_the_same_whatever_was_made_before_it(tmp_path: Path) -> None:
    write_video(tmp_path / "long.avi", 25, lambda i: square(x=30 + i))
    write_photo(tmp_path / "a.png")
    write_photo(tmp_path / "b.png")
    plans = source(tmp_path, samples_per_shard=10).shards()
    together = source(tmp_path, samples_per_shard=10)
    for plan in reversed(plans):
        alone = source(tmp_path, samples_per_shard=10)
        for one, other in zip(alone.samples(plan), together.samples(plan), strict=True):
            assert one.key == other.key
            np.testing.assert_array_equal(one.image, other.image)


def test_bad_files_are_all_named_together(tmp_path: Path) -> None:
    write_photo(tmp_path / "good1.png")
    write_photo(tmp_path / "good2.png")
    write_photo(tmp_path / "nobody.png", np.full((120, 160, 3), 10, np.uint8))
    write_photo(tmp_path / "cut.jpg", np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:6000])
    (tmp_path / "words.mp4").write_text("no video")
    (tmp_path / "empty.webp").write_bytes(b"")
    write_video(tmp_path / "dark.mp4", 5, lambda i: np.full((120, 160, 3), 10, np.uint8))
    folder = source(tmp_path)
    all_faces(folder)
    with pytest.raises(UserError) as caught:
        folder.verdict()
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == ["cut.jpg", "dark.mp4", "empty.webp", "nobody.png", "words.mp4"]
    assert all("remove or mend it" in line and "data.on_bad_file=skip" in line for line in lines)

    skipping = source(tmp_path, on_bad_file=OnBadFile.skip)
    faces = all_faces(skipping)
    skipping.verdict()
    assert sorted(face.source for face in faces["train"] + faces["val"]) == ["good1.png", "good2.png"]
    assert sorted(skipping.findings.left_out()) == ["cut.jpg", "dark.mp4", "empty.webp", "nobody.png", "words.mp4"]


def test_a_video_that_breaks_off_is_a_bad_file(tmp_path: Path) -> None:
    write_video(
        tmp_path / "whole.avi", 40, lambda i: np.random.default_rng(i).integers(150, 256, (120, 160, 3), dtype=np.uint8)
    )
    content = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "broken.avi").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadFileError, match=r"breaks off after|cannot be decoded after"):
        list(read_frames(tmp_path / "broken.avi", range(frame_count(tmp_path / "whole.avi"))))


def test_frames_are_the_ones_asked_for(tmp_path: Path) -> None:
    write_video(tmp_path / "levels.mp4", 30, lambda i: np.full((120, 160, 3), 8 * i, np.uint8))
    assert frame_count(tmp_path / "levels.mp4") == 30
    for number, image in read_frames(tmp_path / "levels.mp4", (0, 7, 8, 29)):
        assert image.mean() == pytest.approx(8 * number, abs=3)


def test_a_single_video_is_split_in_time(tmp_path: Path) -> None:
    write_video(tmp_path / "only.mp4", 20)
    faces = all_faces(source(tmp_path))
    assert len(faces["train"]) == 16 and len(faces["val"]) == 4
    assert max(face.key for face in faces["train"]) < min(face.key for face in faces["val"])


def test_a_single_photo_cannot_be_split(tmp_path: Path) -> None:
    write_photo(tmp_path / "only.png")
    with pytest.raises(UserError, match=r"one usable picture only .only.png.: give at least two files"):
        source(tmp_path).shards()


def test_of_several_faces_the_largest_is_taken_and_counted(tmp_path: Path) -> None:
    two = square(10, 10, 30)
    two[40:100, 80:140] = 180
    write_photo(tmp_path / "two.png", two)
    write_photo(tmp_path / "one.png")
    folder = source(tmp_path)
    faces = all_faces(folder)
    (face,) = [face for face in faces["train"] + faces["val"] if face.source == "two.png"]
    assert face.image.mean() == pytest.approx(180, abs=2)
    assert folder.findings.counts() == {"photo with several faces, the largest taken": 1}


@pytest.mark.parametrize("fixed", [True, False])
def test_a_face_that_leaves_the_fixed_box_of_its_clip_is_left_out(tmp_path: Path, fixed: bool) -> None:
    write_video(tmp_path / "walk.mp4", 12, lambda i: square(x=10 + 8 * i))
    write_photo(tmp_path / "other.png")
    folder = source(tmp_path, align=AlignConfig(landmarks="dlib", fixed_box=fixed))
    faces = all_faces(folder)
    seen = sum(face.source.startswith("walk") for face in faces["train"] + faces["val"])
    gone = folder.findings.counts().get("frame whose face left the clip's box", 0)
    assert seen + gone == 12
    assert (gone > 4) if fixed else (gone == 0)


@pytest.mark.parametrize("drop", [False, True])
def test_tiny_faces_are_listed_and_left_out_if_so_wished(tmp_path: Path, drop: bool) -> None:
    for number in range(3):
        write_photo(tmp_path / f"{number}.png")
    folder = source(tmp_path, align=AlignConfig(landmarks="dlib", tiny_px=300, drop_tiny=drop))
    faces = all_faces(folder)
    assert len(faces["train"] + faces["val"]) == (0 if drop else 3)
    assert folder.findings.counts() == {"face smaller than 300 px": 3}
    assert set(folder.findings.left_out()) == ({"0.png", "1.png", "2.png"} if drop else set())


def test_the_box_of_a_clip_comes_from_its_first_frame_with_a_face(tmp_path: Path) -> None:
    write_video(tmp_path / "late.mp4", 8, lambda i: square(level=20 if i < 3 else 200))
    write_photo(tmp_path / "other.png")
    folder = source(tmp_path)
    faces = all_faces(folder)
    numbers = [face.source for face in faces["train"] + faces["val"] if face.source.startswith("late")]
    assert numbers == [f"late.mp4#{i}" for i in range(3, 8)]
    assert folder.findings.counts() == {"frame without a face": 3}


@pytest.mark.parametrize("count", [1, 99, 100, 101, 4800])
def test_chosen_frames_are_spread_evenly(count: int) -> None:
    assert chosen_frames(count, 1, 0) == tuple(range(count))
    assert chosen_frames(count, 7, 0) == tuple(range(0, count, 7))
    few = chosen_frames(count, 3, 25)
    assert len(few) == min(25, -(-count // 3)) and few[0] == 0
    gaps = np.diff(few)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 3


def test_the_split_hangs_on_paths_and_seed_alone() -> None:
    files = [f"{i}.jpg" for i in range(50)]
    held_out = held_out_files(files, 0.2, 0)
    assert len(held_out) == 10
    assert held_out_files(files[::-1], 0.2, 0) == held_out
    assert held_out_files(files, 0.2, 1) != held_out
    # A new file moves at most one of the others.
    assert len(held_out_files([*files, "new.jpg"], 0.2, 0) - held_out) <= 1
    assert len(held_out_files(files[:2], 0.01, 0)) == len(held_out_files(files[:2], 0.9, 0)) == 1


def test_stems_are_unique_and_stable() -> None:
    names = ["a/é.jpg", "a/e.jpg", "a/e.png", "日本.mp4", "x" * 300 + ".jpg"]
    stems = file_stems(names)
    assert len(set(stems.values())) == len(names)
    assert all(stem.isascii() and len(stem) <= 47 for stem in stems.values())
    assert file_stems(["a/e.jpg"])["a/e.jpg"] == stems["a/e.jpg"]


def test_a_photo_is_turned_as_its_exif_orientation_says(tmp_path: Path) -> None:
    image = Image.fromarray(square())
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise for showing
    image.save(tmp_path / "phone.jpg", exif=exif, quality=100)
    np.testing.assert_allclose(read_photo(tmp_path / "phone.jpg").astype(int), np.rot90(square(), -1), atol=4)


def test_huge_images_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photo(tmp_path / "large.png")
    monkeypatch.setattr(media, "MAX_PIXELS", 160 * 120 - 1)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(BadFileError, match=r"160 x 120 px, larger"):
        read_photo(tmp_path / "large.png")


def test_an_absent_or_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.root=.*nowhere does not exist: give the folder"):
        files.list_files(str(tmp_path / "nowhere"))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.jpg").write_text("x")
    with pytest.raises(UserError, match=r"holds no photo and no video, only other files \(\.txt\): put files jpg"):
        files.list_files(str(tmp_path))


def test_folders_that_name_no_emotion_are_named_with_the_valid_ones(tmp_path: Path) -> None:
    write_photo(tmp_path / "hapy" / "a.png")
    write_photo(tmp_path / "sad" / "b.png")
    with pytest.raises(
        UserError, match=r"'hapy' \(1 files\): name the sub-folders neutral, happy, .*data.label=pseudo"
    ):
        source(tmp_path, label=LabelFrom.folder)


def test_the_digest_is_of_names_and_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, cache = tmp_path / "first", tmp_path / "cache.json"
    write_photo(first / "a.png")
    write_photo(first / "sub" / "b.png", square(50))
    digest = files.corpus_digest(str(first), cache)
    shutil.copytree(first, tmp_path / "copy")
    assert files.corpus_digest(str(tmp_path / "copy"), cache) == digest
    (first / "note.txt").write_text("not part of the corpus")
    with monkeypatch.context() as context:
        context.setattr(files, "sha256_file", lambda _: pytest.fail("read a file that has not changed"))
        assert files.corpus_digest(str(first), cache) == digest
    (first / "a.png").rename(first / "c.png")
    renamed = files.corpus_digest(str(first), cache)
    write_photo(first / "c.png", square(60))
    changed = files.corpus_digest(str(first), cache)
    assert len({digest, renamed, changed}) == 3
