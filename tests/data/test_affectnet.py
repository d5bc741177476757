"""AffectNet in both layouts: which images become faces, where they are cut, and what is said of the others."""

import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from generated_affectnet import (
    LANDMARKS,
    Shot,
    config,
    csv_row,
    path_of,
    shots,
    write_csv_layout,
    write_list,
    write_npy_layout,
)

from affect_hpc.config.corpora import AffectNetLayout
from affect_hpc.config.data import AlignConfig, OnBadFile, OnNoFace
from affect_hpc.config.packaged import missing
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.data.align import Points, cut, edges_of, landmark_box, resize
from affect_hpc.data.corpora import affectnet, affectnet_lists
from affect_hpc.data.corpora.affectnet import PUBLISHED, AffectNetSource, squared
from affect_hpc.data.corpora.source import Face, UInt8Image
from affect_hpc.data.faces import Cropper, Region
from affect_hpc.data.media import BadFileError, read_photo

SIDE = 64
SEARCHED = 256
SHOTS = shots(30)
USED = [shot for shot in SHOTS if shot.expression < 8 and shot.is_readable]
needs_dlib = pytest.mark.skipif(bool(missing("dlib_landmarks")), reason="dlib's landmark network is not installed")


class Known:
    """A landmark backend that knows where the faces of the generated images are, and finds none in crops of them."""

    name = "known"

    def __init__(self) -> None:
        self._regions: dict[bytes, list[Region]] = {}

    def learn(self, path: Path, shot: Shot) -> None:
        image = resize(read_photo(path), SEARCHED, SEARCHED)
        regions = []
        for place in shot.faces:
            points = place.landmarks * (SEARCHED / shot.width, SEARCHED / shot.height)
            regions.append((*points.min(axis=0).tolist(), *points.max(axis=0).tolist()))
        self._regions[image.tobytes()] = regions

    def regions(self, image: UInt8Image) -> list[Region]:
        return self._regions.get(image.tobytes(), [])

    def points(self, image: UInt8Image, region: Region) -> Points:
        low, high = LANDMARKS.min(axis=0), LANDMARKS.max(axis=0)
        return (LANDMARKS - low) / (high - low) * np.subtract(region[2:], region[:2]) + region[:2]


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both layouts of the same images. Copy one to change it."""
    roots = {layout: tmp_path_factory.mktemp(layout) for layout in ("csv", "npy")}
    write_csv_layout(roots["csv"], SHOTS)
    write_npy_layout(roots["npy"], SHOTS)
    return roots


@pytest.fixture(scope="session")
def known(corpora: dict[str, Path]) -> Known:
    backend = Known()
    for shot in SHOTS:
        if shot.is_readable:
            backend.learn(corpora["csv"] / path_of(shot), shot)
    return backend


def source(root: Path, backend: Known, **changes: object) -> AffectNetSource:
    chosen = config(root, **changes)
    return AffectNetSource(chosen, Cropper(chosen.align, SIDE, chosen.compat, backend))


def all_faces(corpus: AffectNetSource) -> dict[str, list[Face]]:
    faces: dict[str, list[Face]] = {"train": [], "val": []}
    for plan in corpus.shards():
        faces[plan.split] += corpus.samples(plan)
    return faces


def by_source(corpus: AffectNetSource) -> dict[str, Face]:
    return {face.source: face for faces in all_faces(corpus).values() for face in faces}


def test_every_image_of_the_eight_emotions_becomes_a_face_with_what_the_corpus_says_of_it(
    corpora: dict[str, Path], known: Known
) -> None:
    corpus = source(corpora["csv"], known)
    faces = all_faces(corpus)
    for split, found in faces.items():
        expected = [shot for shot in USED if shot.split == split]
        assert [face.source for face in found] == [path_of(shot) for shot in expected]
        for face, shot in zip(found, expected, strict=True):
            assert face.label == shot.expression
            assert (face.more["valence"], face.more["arousal"]) == (shot.valence, shot.arousal)
            assert face.more["face_box"] == (shot.box.left, shot.box.top, shot.box.side, shot.box.side)
            np.testing.assert_allclose(face.annotations["given_landmarks"], shot.annotated.landmarks.ravel(), atol=6e-3)
            assert face.identity == face.key
    keys = [face.key for found in faces.values() for face in found]
    assert len(set(keys)) == len(keys)
    assert all(key.isascii() and "." not in key and "/" not in key for key in keys)
    counts = Counter(shot.expression for shot in SHOTS)
    findings = corpus.findings.counts()
    assert findings["expression none"] == counts[8]
    assert findings["expression uncertain"] == counts[9]
    assert findings["expression no-face"] == counts[10]
    assert findings["image with several faces, one taken"] == 1
    # Images that the corpus itself rules out are too many to be listed.
    assert len(corpus.findings.entries) == 3
    corpus.verdict()


def test_a_face_is_cut_where_it_is(corpora: dict[str, Path], known: Known) -> None:
    faces = by_source(source(corpora["csv"], known))
    for shot in USED:
        face = faces[path_of(shot)]
        if not shot.faces:
            continue
        stretch = np.array([SEARCHED / shot.width, SEARCHED / shot.height])
        box = landmark_box(shot.annotated.landmarks * stretch, 0)
        assert face.more["box"] == pytest.approx([box.left, box.top, box.side], abs=1)
        assert face.more["found_by"] == "detector" and face.more["aligned"]


@needs_dlib
def test_the_detector_finds_the_faces_where_the_generator_put_them(corpora: dict[str, Path]) -> None:
    turned = {path_of(shot): shot for shot in USED if shot.split == "val"}
    corpus = AffectNetSource(config(corpora["csv"], size=128))
    found = 0
    for plan in corpus.shards():
        for face in corpus.samples(plan) if plan.split == "val" else ():
            shot = turned[face.source]
            if face.more["found_by"] == "corpus":
                continue
            found += 1
            matrix = np.array(face.more["matrix"])
            stretch = np.array([SEARCHED / shot.width, SEARCHED / shot.height])
            true = shot.annotated.landmarks * stretch
            in_crop = true @ matrix[:, :2].T + matrix[:, 2]
            assert face.landmarks is not None
            assert np.linalg.norm(face.landmarks - in_crop, axis=1).mean() < 3
            eyes = in_crop[42:48].mean(axis=0) - in_crop[36:42].mean(axis=0)
            assert abs(np.degrees(np.arctan2(eyes[1], eyes[0]))) < 4
    # HOG misses heads that are turned far.
    assert found >= len(turned) - 2


def test_both_layouts_give_the_same_faces(corpora: dict[str, Path], known: Known) -> None:
    one, other = (all_faces(source(corpora[layout], known)) for layout in ("csv", "npy"))
    numbers = {path_of(shot): f"{shot.split}_set/images/{shot.number}.jpg" for shot in USED}
    for split, found in one.items():
        twins = {face.source: face for face in other[split]}
        assert len(twins) == len(found)
        for face in found:
            twin = twins[numbers[face.source]]
            assert twin.label == face.label
            assert (twin.more["valence"], twin.more["arousal"]) == (face.more["valence"], face.more["arousal"])
            np.testing.assert_allclose(
                twin.annotations["given_landmarks"], face.annotations["given_landmarks"], atol=6e-3
            )
            if face.more["found_by"] == "detector":
                np.testing.assert_array_equal(twin.image, face.image)


@pytest.mark.parametrize("layout", ["csv", "npy"])
def test_the_faces_are_the_same_however_they_are_cut_into_shards(
    corpora: dict[str, Path], known: Known, layout: str
) -> None:
    whole = source(corpora[layout], known, samples_per_shard=1000)
    expected = all_faces(whole)
    for size in (1, 7):
        pieces = source(corpora[layout], known, samples_per_shard=size)
        plans = pieces.shards()
        assert all(0 < plan.weight <= size for plan in plans)
        faces: dict[str, list[Face]] = {"train": [], "val": []}
        for plan in reversed(plans):
            faces[plan.split][:0] = list(pieces.samples(plan))
        assert pieces.findings.counts() == whole.findings.counts()
        for split, found in faces.items():
            assert [face.key for face in found] == [face.key for face in expected[split]]
            for one, other in zip(found, expected[split], strict=True):
                np.testing.assert_array_equal(one.image, other.image)


def test_keys_do_not_hang_on_other_images_nor_on_where_images_lie(corpora: dict[str, Path], tmp_path: Path) -> None:
    def keys(root: Path) -> set[str]:
        return set(AffectNetSource(config(root))._keys.values())

    root = shutil.copytree(corpora["csv"], tmp_path / "copy")
    everything = keys(root)
    write_list(root / "Manually_Annotated_file_lists" / "training.csv", [csv_row(shot) for shot in SHOTS[:5]])
    assert keys(root) < everything
    (root / "Manually_Annotated").mkdir()
    (root / "Manually_Annotated_Images").rename(root / "Manually_Annotated" / "Manually_Annotated_Images")
    assert keys(root) < everything


@pytest.mark.parametrize("layout", ["csv", "npy"])
def test_planning_opens_no_image(corpora: dict[str, Path], layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affectnet, "read_photo", lambda _: pytest.fail("an image was read"))
    monkeypatch.setattr(affectnet_lists.np, "load", lambda *_: pytest.fail("an annotation was read"))
    plans = AffectNetSource(config(corpora[layout], samples_per_shard=10)).shards()
    assert sum(plan.weight for plan in plans) == sum(shot.expression < 8 for shot in SHOTS)


def test_only_the_first_images_of_each_split_are_used(corpora: dict[str, Path], known: Known) -> None:
    faces = all_faces(source(corpora["csv"], known, max_samples=5))
    wanted = [[shot for shot in SHOTS if shot.split == split and shot.expression < 8][:5] for split in faces]
    assert [face.source for found in faces.values() for face in found] == [
        path_of(shot) for chosen in wanted for shot in chosen if shot.is_readable
    ]


def test_an_image_without_a_face_is_cut_at_its_annotated_box(corpora: dict[str, Path], known: Known) -> None:
    (nobody,) = [shot for shot in USED if not shot.faces]
    face = by_source(source(corpora["csv"], known))[path_of(nobody)]
    original = read_photo(corpora["csv"] / path_of(nobody))
    expected = resize(cut(original, edges_of(nobody.box), 224), SIDE, SIDE)
    np.testing.assert_array_equal(face.image, expected)
    assert face.landmarks is None and not face.more["aligned"] and face.more["found_by"] == "corpus"
    # The later layout has no boxes: the whole image.
    face = by_source(source(corpora["npy"], known))[f"train_set/images/{nobody.number}.jpg"]
    assert face.more["box"][2] == max(original.shape)


@pytest.mark.parametrize("box", [(10, 20, 30, 30), (10, 20, 41, 30), (-5, 7, 1, 100)])
def test_an_annotated_box_is_widened_to_the_square_around_it(box: tuple[int, int, int, int]) -> None:
    left, top, width, height = box
    square = squared(box)
    assert square.side == max(width, height)
    before, after = left - square.left, square.left + square.side - left - width
    above, below = top - square.top, square.top + square.side - top - height
    assert min(before, after, above, below) >= 0 and abs(before - after) <= 1 and abs(above - below) <= 1


def test_an_empty_annotated_box_is_no_place_to_cut() -> None:
    with pytest.raises(BadFileError, match=r"shows no face that the detector finds, .* box is 0 x 12 px"):
        squared((5, 5, 0, 12))


def test_an_image_without_a_face_may_be_left_out(corpora: dict[str, Path], known: Known) -> None:
    (nobody,) = [shot for shot in USED if not shot.faces]
    corpus = source(corpora["csv"], known, on_no_face=OnNoFace.leave_out)
    assert len(by_source(corpus)) == len(USED) - 1
    assert corpus.findings.left_out()[path_of(nobody)] == "image in which no face is found"


@pytest.mark.parametrize("drop", [True, False])
def test_tiny_faces_are_counted_and_may_be_left_out(corpora: dict[str, Path], known: Known, drop: bool) -> None:
    align = AlignConfig(landmarks="dlib", resize=[SEARCHED, SEARCHED], tiny_px=90, drop_tiny=drop)
    sides = [face.more["box"][2] for face in by_source(source(corpora["csv"], known)).values()]
    tiny = sum(side < 90 for side in sides)
    corpus = source(corpora["csv"], known, align=align)
    assert 0 < tiny < len(sides)
    assert len(by_source(corpus)) == len(sides) - drop * tiny
    assert corpus.findings.counts()["face smaller than 90 px"] == tiny


def test_files_that_cannot_be_used_are_listed_or_stop_the_run(
    corpora: dict[str, Path], known: Known, tmp_path: Path
) -> None:
    root = shutil.copytree(corpora["csv"], tmp_path / "copy")
    gone, (damaged,) = USED[-1], [shot for shot in SHOTS if not shot.is_readable]
    (root / path_of(gone)).unlink()
    corpus = source(root, known)
    assert len(by_source(corpus)) == len(USED) - 1
    corpus.verdict()
    left_out = corpus.findings.left_out()
    assert left_out[path_of(gone)] == "is listed but not there"
    assert left_out[path_of(damaged)].startswith("cannot be read")
    strict = source(root, known, on_bad_file=OnBadFile.fail)
    all_faces(strict)
    with pytest.raises(UserError) as caught:
        strict.verdict()
    assert sorted(line.split()[0] for line in str(caught.value).splitlines()) == sorted(map(path_of, (gone, damaged)))


def test_counts_are_held_against_the_published_ones(
    corpora: dict[str, Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.WARNING):
        facts = AffectNetSource(config(corpora["csv"])).facts()
    counts = Counter(f"{shot.split}/{EMOTIONS[shot.expression]}" for shot in SHOTS if shot.expression < 8)
    assert facts["images"] == counts
    assert sum(PUBLISHED[AffectNetLayout.csv].values()) == 287_651 + 4_000
    assert f"train/happy: {counts['train/happy']} images instead of 134,415" in facts["differences"]
    assert len(facts["differences"]) == 16
    assert [record.message for record in caplog.records if "train/happy" in record.message]
    assert AffectNetSource(config(corpora["npy"])).facts()["images"] == {
        split: sum(shot.split == split and shot.expression < 8 for shot in SHOTS) for split in ("train", "val")
    }
    caplog.clear()
    monkeypatch.setattr(affectnet, "PUBLISHED", {AffectNetLayout.csv: dict(counts)})
    assert AffectNetSource(config(corpora["csv"])).facts()["differences"] == [] and not caplog.records


def test_wrong_annotation_files_are_named(corpora: dict[str, Path], known: Known, tmp_path: Path) -> None:
    root = shutil.copytree(corpora["npy"], tmp_path / "copy")
    shot = USED[-1]
    stem, image = root / "val_set" / "annotations" / str(shot.number), f"val_set/images/{shot.number}.jpg"

    np.save(f"{stem}_exp.npy", np.array({"expression": 3}))
    corpus = source(root, known)
    all_faces(corpus)
    assert f"no usable annotation {shot.number}_exp.npy" in corpus.findings.left_out()[image]

    np.save(f"{stem}_exp.npy", np.array("8"))
    corpus = source(root, known)
    all_faces(corpus)
    assert corpus.findings.counts()["expression none"] == 1

    for number, (name, value, message) in enumerate(
        [
            ("exp", np.array("11"), r"_exp.npy: the expression '11' is no class of AffectNet"),
            ("lnd", np.zeros(10), r"_lnd.npy has 10 numbers as landmarks, not 136"),
            ("aro", np.array("calm"), r"_aro.npy: 'calm' is no number"),
        ]
    ):
        wrong = shutil.copytree(corpora["npy"], tmp_path / f"wrong{number}")
        np.save(wrong / "val_set" / "annotations" / f"{shot.number}_{name}.npy", value)
        with pytest.raises(UserError, match=message):
            all_faces(source(wrong, known))

    for name in ("exp", "val", "aro", "lnd"):
        Path(f"{stem}_{name}.npy").unlink()
    with pytest.raises(BadFileError, match=r"no usable annotation .*_exp.npy \(No such file"):
        affectnet_lists.annotation_of(root, affectnet_lists.Picture(image, image, None))
