"""The user's folder of photos and videos as files: which count, and a digest of what they hold. Stdlib only."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
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
