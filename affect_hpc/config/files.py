"""Corpora as files: which of a user's files count, and a digest of what they hold. Stdlib only."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json_if_there, sha256_file, write_json

PHOTOS: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
VIDEOS: tuple[str, ...] = (".mp4", ".avi", ".mov", ".mkv", ".webm")
UNREADABLE = "unreadable"
OTHER_NAMES: Mapping[str, str] = {
    "happiness": "happy",
    "sadness": "sad",
    "surprise": "surprised",
    "fear": "scared",
    "fearful": "scared",
    "disgust": "disgusted",
    "anger": "angry",
}
"""Folder names that stand for an emotion besides the emotion's own name."""


def shown(path: str | Path) -> str:
    """A path as text that any terminal and file can hold, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def list_files(root: str) -> list[str]:
    """Photos and videos below ``root`` at any depth, as sorted relative paths with slashes.

    Hidden files and folders and links to folders are passed over.

    Raises:
        UserError: ``root`` is no folder, or holds neither photo nor video.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        state = "is no folder" if folder.exists() else "does not exist"
        raise UserError(f"data.root={shown(folder)} {state}: give the folder that holds your photos and videos.")
    found: list[str] = []
    others: set[str] = set()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in names:
            if name.startswith("."):
                continue
            suffix = Path(name).suffix.lower()
            if suffix in PHOTOS + VIDEOS:
                found.append((Path(place) / name).relative_to(folder).as_posix())
            else:
                others.add(suffix or "no suffix")
    if not found:
        instead = f", only other files ({shown(', '.join(sorted(others)[:8]))})" if others else ""
        raise UserError(
            f"data.root={shown(folder)} holds no photo and no video{instead}: put files"
            f" {' '.join(suffix[1:] for suffix in PHOTOS + VIDEOS)} into it."
        )
    return sorted(found, key=os.fsencode)


def corpus_digest(root: str, cache_path: Path) -> str:
    """SHA-256 over relative path and content of all photos and videos below ``root``.

    Args:
        root: as for ``list_files``.
        cache_path: JSON file that remembers contents by path, size and time of change, so that asking again is
            quick. It may be deleted at any time.

    Returns:
        64 hexadecimal digits; the same for the same files, wherever the folder lies.
    """
    folder = Path(root).expanduser().resolve()
    files = list_files(root)
    cached = read_json_if_there(cache_path)
    old = cached if isinstance(cached, dict) else {}
    new = dict(old)
    whole = hashlib.sha256()
    for relative in files:
        content = _content(folder / relative, old, new)
        name = os.fsencode(relative)
        whole.update(len(name).to_bytes(8, "big") + name + content.encode())
    if new != old:
        write_json(cache_path, new)
    return whole.hexdigest()


def _content(path: Path, old: dict[str, list[int | str]], new: dict[str, list[int | str]]) -> str:
    key = shown(path)
    try:
        state = path.stat()
        stamp: list[int | str] = [state.st_size, state.st_mtime_ns]
        known = old.get(key)
        if known is None or known[:2] != stamp:
            known = [*stamp, sha256_file(path)]
    except OSError:
        # A file that cannot be read is reported with all others, by the stage that reads them.
        new.pop(key, None)
        return UNREADABLE
    new[key] = known
    return str(known[2])


def emotion_of(relative: str) -> str | None:
    """The emotion that a folder on the way to the file is named after, the nearest one first; None where none is."""
    for folder in reversed(PurePosixPath(relative).parts[:-1]):
        name = folder.strip().lower()
        emotion = OTHER_NAMES.get(name, name)
        if emotion in EMOTIONS:
            return emotion
    return None


def folder_labels(files: Sequence[str]) -> list[int]:
    """Emotion ids 0..7 of files, by the names of their folders.

    Raises:
        UserError: files lie in no folder that is named after an emotion.
    """
    emotions = [emotion_of(relative) for relative in files]
    known = dict(zip(files, emotions, strict=True))
    lost = Counter(str(PurePosixPath(name).parent) for name in files if known[name] is None)
    if lost:
        places = ", ".join(f"{shown(folder)!r} ({count} files)" for folder, count in list(lost.items())[:8])
        more = f" and {len(lost) - 8} more folders" if len(lost) > 8 else ""
        raise UserError(
            f"data.label=folder finds no emotion in the folder names of {places}{more}: name the sub-folders"
            f" {', '.join(EMOTIONS)} (or {', '.join(OTHER_NAMES)}), or let a judge label with data.label=pseudo."
        )
    return [EMOTIONS.index(emotion) for emotion in emotions if emotion is not None]


def file_digest(key: str, path: str) -> str:
    """SHA-256 of the file that the config value ``key`` names, in hexadecimal; UserError where it cannot be read."""
    try:
        return sha256_file(Path(path).expanduser())
    except OSError as error:
        raise UserError(
            f"{key}={shown(path)} cannot be read ({error.strerror}): give a file that exists and that you may read."
        ) from None


def tree_digest(root: str, cache_path: Path, contents: Sequence[str] = ()) -> str:
    """SHA-256 over relative path and size of all files below ``root``, for corpora too large to be read each time.

    A file whose content changes and whose size does not goes unnoticed, unless its suffix is in ``contents``. Hidden
    files and folders and links to folders are passed over.

    Args:
        root: folder of the corpus (data.root).
        cache_path: as for ``corpus_digest``. While the times of all folders, and of the files that count by content,
            are as remembered, no other file is looked at: one that was overwritten in place goes unnoticed then.
        contents: suffixes, with their dot and in lower case, of files that count by content.

    Returns:
        64 hexadecimal digits; the same for the same files, wherever the folder lies.

    Raises:
        UserError: ``root`` is no folder, is empty, or cannot be listed.
    """
    folder = Path(root).expanduser().resolve()
    if not folder.is_dir():
        state = "is no folder" if folder.exists() else "does not exist"
        raise UserError(f"data.root={shown(folder)} {state}: give the folder that holds the corpus.")
    cached = read_json_if_there(cache_path)
    cache = cached if isinstance(cached, dict) else {}
    key = f"{shown(folder)}/ {' '.join(contents)}"
    known = cache.get(key)
    try:
        if known is not None and _stamps(folder, list(known["stamps"])) == known["stamps"]:
            return str(known["digest"])
        # Folders are stamped before they are listed: what comes in between is found out next time.
        stamps: dict[str, list[int]] = {}
        sizes = dict(_sizes(folder, "", contents, stamps))
        if not sizes:
            raise UserError(f"data.root={shown(folder)} holds no file: give the folder that holds the corpus.")
        whole = hashlib.sha256()
        for relative in sorted(sizes, key=os.fsencode):
            name = os.fsencode(relative)
            whole.update(len(name).to_bytes(8, "big") + name + sizes[relative].to_bytes(8, "big"))
            if relative in stamps:
                whole.update(sha256_file(folder / relative).encode())
    except OSError as error:
        raise UserError(
            f"{shown(error.filename or folder)} below data.root cannot be read ({error.strerror}): make it readable."
        ) from None
    digest = whole.hexdigest()
    write_json(cache_path, {**cache, key: {"stamps": stamps, "digest": digest}})
    return digest


def _sizes(root: Path, inside: str, contents: Sequence[str], stamps: dict[str, list[int]]) -> Iterator[tuple[str, int]]:
    """Relative path and size of every file below a folder; enters what ``_stamps`` compares into ``stamps``."""
    stamps[inside] = _stamp(root / inside)
    with os.scandir(root / inside) as entries:
        listed = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    for entry in listed:
        relative = f"{inside}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _sizes(root, f"{relative}/", contents, stamps)
        elif entry.is_file():
            if os.path.splitext(relative)[1].lower() in contents:
                stamps[relative] = _stamp(root / relative)
            yield relative, entry.stat().st_size


def _stamps(root: Path, places: Sequence[str]) -> dict[str, list[int]]:
    try:
        return {place: _stamp(root / place) for place in places}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _stamp(path: Path) -> list[int]:
    """When it was changed, and for a file its size. A folder changes when a name in it comes or goes."""
    state = path.stat()
    return [state.st_mtime_ns] if stat.S_ISDIR(state.st_mode) else [state.st_mtime_ns, state.st_size]
