"""AffectNet's lists: what is read of them, and one sentence for whatever is wrong with them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from generated_affectnet import HEADER, config, csv_row, shots, write_list

from affect_hpc.config.corpora import AffectNetLayout
from affect_hpc.core.errors import UserError
from affect_hpc.data.corpora.affectnet import AffectNetSource
from affect_hpc.data.corpora.affectnet_lists import read_pictures

SHOTS = shots(30)


@pytest.fixture
def lists_only(tmp_path: Path) -> Path:
    """A root whose two lists may be changed; its images are not there."""
    (tmp_path / "Manually_Annotated_Images").mkdir()
    for split, name in (("train", "training.csv"), ("val", "validation.csv")):
        write_list(tmp_path / name, [csv_row(shot) for shot in SHOTS if shot.split == split])
    return tmp_path


def test_an_image_that_is_listed_again_is_used_once(lists_only: Path) -> None:
    rows = [csv_row(shot) for shot in SHOTS if shot.split == "train"]
    first = next(shot for shot in SHOTS if shot.expression < 8)
    write_list(lists_only / "training.csv", [*rows, csv_row(first)])
    write_list(lists_only / "validation.csv", [csv_row(first), csv_row(SHOTS[-1])])
    corpus = AffectNetSource(config(lists_only))
    units = [unit for plan in corpus.shards() for unit in plan.units if unit.name == first.name]
    assert [unit.again for unit in units] == [False, True, True]


def test_lists_without_a_header_and_with_a_byte_order_mark_are_read(lists_only: Path) -> None:
    expected = read_pictures(lists_only, AffectNetLayout.csv)
    assert [picture.name for picture in expected["val"]] == [shot.name for shot in SHOTS if shot.split == "val"]
    for name in ("training.csv", "validation.csv"):
        path = lists_only / name
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("\ufeff" + "".join(lines))
        assert read_pictures(lists_only, AffectNetLayout.csv) == expected
        path.write_text("".join(lines[1:]))
        assert read_pictures(lists_only, AffectNetLayout.csv) == expected


def test_columns_are_found_by_their_names(lists_only: Path) -> None:
    expected = read_pictures(lists_only, AffectNetLayout.csv)["val"]
    rows = [csv_row(shot) for shot in SHOTS if shot.split == "val"]
    header = ",".join(["number", *reversed(HEADER.split(","))])
    write_list(lists_only / "validation.csv", [[i, *reversed(row)] for i, row in enumerate(rows)], header)
    assert read_pictures(lists_only, AffectNetLayout.csv)["val"] == expected


def test_valence_and_arousal_that_are_not_given_are_none(lists_only: Path) -> None:
    row = csv_row(SHOTS[-1])
    row[-2:] = ["-2", "-2.0"]
    write_list(lists_only / "validation.csv", [row])
    (picture,) = read_pictures(lists_only, AffectNetLayout.csv)["val"]
    assert picture.annotation is not None and (picture.annotation.valence, picture.annotation.arousal) == (None, None)


def changed(column: int, value: object) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        rows = [csv_row(shot) for shot in SHOTS if shot.split == "train" and shot.expression < 8]
        rows[2][column] = value
        write_list(root / "training.csv", rows)

    return change


WRONG_LISTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "class 11": (changed(6, 11), r"training.csv, row 4: the expression '11' is no class .* 0 neutral, .* 10 no-face"),
    "class as text": (changed(6, "happy"), r"training.csv, row 4: the expression 'happy' is no class of AffectNet"),
    "few landmarks": (changed(5, "1.0;2.0;3.5"), r"training.csv, row 4 has 3 numbers as landmarks, not 136"),
    "text landmark": (changed(5, "1.0;x"), r"training.csv, row 4: a landmark is no number .*'x'.*: mend or remove"),
    "infinite landmark": (changed(5, "inf;" * 136), r"training.csv, row 4 has 0 numbers as landmarks, not 136"),
    "text valence": (changed(7, "high"), r"training.csv, row 4: 'high' is no number"),
    "arousal nan": (changed(8, "nan"), r"training.csv, row 4: 'nan' is no number"),
    "box as text": (changed(1, "NULL"), r"training.csv, row 4: 'NULL' is no number"),
    "short row": (lambda root: write_list(root / "validation.csv", [["a.jpg", 1]]), r"validation.csv, row 2 has 2 col"),
    "missing column": (
        lambda root: write_list(root / "training.csv", [], "subDirectory_filePath,face_x,emotion"),
        r"training.csv has no column face_y and no column .* but subDirectory_filePath, face_x, emotion: use",
    ),
    "nothing of use": (
        lambda root: write_list(root / "validation.csv", []),
        r"validation.csv names no image of AffectNet's eight emotions",
    ),
    "not utf-8": (
        lambda root: (root / "training.csv").write_bytes(b"\xff\xfe\x00a,b"),
        r"training.csv cannot be read .*: unpack or copy it again",
    ),
    "absent list": (
        lambda root: (root / "training.csv").unlink(),
        r"lacks training.csv \(it holds Manually_Annotated_Images, validation.csv\): AffectNet of 2017 .*train_set/",
    ),
    "absent images": (
        lambda root: (root / "Manually_Annotated_Images").rmdir(),
        r"lacks Manually_Annotated_Images/ \(it holds training.csv, validation.csv\)",
    ),
    "both layouts": (
        lambda root: (root / "train_set").mkdir(),
        r"holds AffectNet in both layouts: choose one with data.layout=csv or data.layout=npy",
    ),
}


@pytest.mark.parametrize("case", WRONG_LISTS)
def test_a_wrong_list_is_one_sentence(lists_only: Path, case: str) -> None:
    AffectNetSource(config(lists_only))
    change, message = WRONG_LISTS[case]
    change(lists_only)
    with pytest.raises(UserError, match=message) as caught:
        AffectNetSource(config(lists_only))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_affectnet_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is no folder: give the folder that AffectNet was unpacked into"):
        AffectNetSource(config(tmp_path / "nowhere"))
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"shows neither layout \(it holds photos\): AffectNet of 2017 has"):
        AffectNetSource(config(tmp_path))
    (tmp_path / "train_set" / "images").mkdir(parents=True)
    with pytest.raises(UserError, match=r"lacks train_set/annotations, val_set/images, val_set/annotations \(it"):
        AffectNetSource(config(tmp_path))


def test_both_layouts_may_lie_together_where_one_is_chosen(lists_only: Path) -> None:
    for split in ("train_set", "val_set"):
        for part in ("images", "annotations"):
            (lists_only / split / part).mkdir(parents=True)
        (lists_only / split / "images" / "7.jpg").touch()
    for layout in (AffectNetLayout.csv, AffectNetLayout.npy):
        assert AffectNetSource(config(lists_only, layout=layout)).layout is layout
