"""Digests of corpora that are too large to be read, and of single files."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from affect_hpc.config import files
from affect_hpc.config.files import file_digest, tree_digest
from affect_hpc.core.errors import UserError


def write(path: Path, content: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    write(root / "list.csv", "one,two")
    write(root / "images" / "1" / "a.jpg", "aaa")
    write(root / "images" / "2" / "b.jpg", "bb")
    return root


def test_the_digest_is_of_names_and_sizes_wherever_the_folder_lies(tree: Path, tmp_path: Path) -> None:
    digest = tree_digest(str(tree), tmp_path / "cache.json")
    moved = shutil.copytree(tree, tmp_path / "elsewhere")
    write(moved / "images" / "1" / "a.jpg", "AAA")
    assert tree_digest(str(moved), tmp_path / "cache.json") == digest
    seen = {digest}
    for number, change in enumerate(
        [
            lambda root: write(root / "images" / "1" / "a.jpg", "aaaa"),
            lambda root: (root / "images" / "1" / "a.jpg").rename(root / "images" / "1" / "c.jpg"),
            lambda root: (root / "images" / "2" / "b.jpg").unlink(),
            lambda root: write(root / "images" / "3" / "new.jpg"),
            lambda root: (root / "images" / "1").rename(root / "images" / "11"),
        ]
    ):
        root = shutil.copytree(tree, tmp_path / f"copy{number}")
        change(root)
        seen.add(tree_digest(str(root), tmp_path / "cache.json"))
    assert len(seen) == 6


def test_some_files_count_by_content(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    digest = tree_digest(str(tree), cache, (".csv",))
    assert digest != tree_digest(str(tree), cache)
    before = (tree / "list.csv").stat()
    # The same size, overwritten in place: the folder's own time stays.
    write(tree / "list.csv", "two,one")
    os.utime(tree / "list.csv", ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    assert tree_digest(str(tree), cache, (".csv",)) != digest


def test_asking_again_looks_at_folders_alone(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache.json"
    first = tree_digest(str(tree), cache, (".csv",))
    with monkeypatch.context() as context:
        context.setattr(files.os, "scandir", lambda _: pytest.fail("listed a folder that has not changed"))
        context.setattr(files, "sha256_file", lambda _: pytest.fail("read a file that has not changed"))
        assert tree_digest(f"{tree}/../corpus", cache, (".csv",)) == first
    write(tree / "images" / "2" / "late.jpg")
    later = (tree / "images" / "2").stat().st_mtime_ns + 1_000_000
    os.utime(tree / "images" / "2", ns=(later, later))
    assert tree_digest(str(tree), cache, (".csv",)) != first
    shutil.rmtree(tree / "images" / "1")
    write(tree / "images" / "1")
    assert tree_digest(str(tree), cache, (".csv",)) != first


def test_the_cache_is_shared_with_digests_by_content(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    one, other = tree_digest(str(tree), cache), files.corpus_digest(str(tree), cache)
    assert (tree_digest(str(tree), cache), files.corpus_digest(str(tree), cache)) == (one, other)
    cache.unlink()
    assert tree_digest(str(tree), cache) == one


def test_hidden_files_and_links_to_folders_are_passed_over(tree: Path, tmp_path: Path) -> None:
    digest = tree_digest(str(tree), tmp_path / "cache.json")
    write(tree / ".hidden")
    write(tree / ".folder" / "file")
    (tree / "images" / "again").symlink_to(tree / "images")
    (tree / "images" / "broken").symlink_to(tree / "nowhere")
    assert tree_digest(str(tree), tmp_path / "other.json") == digest


def test_a_folder_without_files_is_one_sentence(tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    with pytest.raises(UserError, match=r"data.root=.*nowhere does not exist: give the folder that holds the corpus"):
        tree_digest(str(tmp_path / "nowhere"), cache)
    write(tmp_path / "file")
    with pytest.raises(UserError, match=r"data.root=.*file is no folder"):
        tree_digest(str(tmp_path / "file"), cache)
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    with pytest.raises(UserError, match=r"data.root=.*empty holds no file"):
        tree_digest(str(tmp_path / "empty"), cache)


def test_a_folder_that_cannot_be_listed_is_one_sentence(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(place: Path) -> None:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(files.os, "scandir", refuse)
    with pytest.raises(UserError, match=r"corpus below data.root cannot be read \(Permission denied\): make it read"):
        tree_digest(str(tree), tmp_path / "cache.json")


def test_the_digest_of_a_file(tmp_path: Path) -> None:
    write(tmp_path / "words.csv", "clip,text")
    assert file_digest("data.transcripts", str(tmp_path / "words.csv")) == hashlib.sha256(b"clip,text").hexdigest()
    with pytest.raises(UserError, match=r"data.transcripts=.*gone.csv cannot be read \(No such file.*\): give a file"):
        file_digest("data.transcripts", str(tmp_path / "gone.csv"))
    with pytest.raises(UserError, match=r"data.transcripts=.* cannot be read \(Is a directory\)"):
        file_digest("data.transcripts", str(tmp_path))
