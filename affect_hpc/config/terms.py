"""The terms of corpora that their owners give out on conditions, and the record of who has accepted them.

The record is a JSON file for each corpus below ``<store>/licences``. It stands beside the owners' own agreement, never
in its place.
"""

import json
import shlex
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import digest
from affect_hpc.core.io import read_json_if_there, write_json

FOLDER = "licences"
"""Of the records, below the store."""
FILE = "terms.json"
"""Beside everything that was made from a gated corpus: corpus -> its ``summary``."""


@dataclass(frozen=True)
class Terms:
    """Under which conditions a corpus may be used, in short and in our words."""

    name: str
    owner: str
    url: str
    """Where the corpus and the full terms are to be had."""
    version: str
    """Which text the points sum up."""
    points: tuple[str, ...]
    citation: str


TERMS: Mapping[str, Terms] = {
    "affectnet": Terms(
        name="AffectNet",
        owner="University of Denver (M. H. Mahoor)",
        url="https://mohammadmahoor.com/pages/databases/affectnet/",
        version="Academic Use License v2.1, 10 May 2024",
        points=(
            "Academic research only, nothing commercial.",
            "The head of the lab has signed the owners' agreement; students work under that signature.",
            "Neither images nor annotations nor crops of them go to third parties, as a whole or in part.",
            "Copies stay on computers of the institution that has signed.",
            "The images come from the web; their rights remain with others.",
            "Every publication that uses or shows the images cites the paper.",
        ),
        citation="A. Mollahosseini, B. Hasani, M. H. Mahoor: AffectNet, a database for facial expression, valence, and"
        " arousal computing in the wild. IEEE Transactions on Affective Computing, 2017.",
    ),
    "mead": Terms(
        name="MEAD",
        owner="K. Wang, Q. Wu, L. Song and co-authors",
        url="https://wywu.github.io/projects/MEAD/MEAD.html",
        version="as stated on the project's page",
        points=(
            "Research only, nothing commercial.",
            "Neither videos nor sound nor crops of them go to third parties, as a whole or in part.",
            "Every publication that uses or shows the clips cites the paper.",
        ),
        citation="K. Wang et al.: MEAD, a large-scale audio-visual dataset for emotional talking-face generation."
        " European Conference on Computer Vision, 2020.",
    ),
}
"""By the name of the corpus (data.name)."""


def terms_of(corpus: str) -> Terms:
    """The terms of a corpus; UserError where it is unknown or has none."""
    if corpus not in TERMS:
        raise UserError(f"{corpus!r} is no corpus with terms to accept: the valid ones are {', '.join(TERMS)}.")
    return TERMS[corpus]


def record_path(corpus: str, folder: Path) -> Path:
    """Where the record of acceptance stands."""
    return folder / f"{corpus}.json"


def require_accepted(corpus: str, folder: Path) -> None:
    """Raise UserError where nobody has accepted the terms of a corpus as they are today.

    Args:
        folder: that of the records, ``<store>/licences``.
    """
    terms = terms_of(corpus)
    way_out = f"read them and run: {_command(corpus, folder)}"
    record = read_record(corpus, folder)
    if record is None:
        raise UserError(f"data={corpus}: nobody has accepted the terms of {terms.name} in {folder} yet; {way_out}")
    if record["terms"] != digest(terms):
        raise UserError(
            f"data={corpus}: {record['who']} accepted other terms of {terms.name} than today's ({terms.version}), on"
            f" {record['when']}; {way_out}"
        )


def read_record(corpus: str, folder: Path) -> dict[str, str] | None:
    """Who accepted the terms of a corpus, and when; None where nobody has.

    Raises:
        UserError: the record cannot be read, or is none.
    """
    path = record_path(corpus, folder)
    try:
        record = read_json_if_there(path)
    except (OSError, ValueError) as error:
        raise UserError(_damaged(path, corpus, str(error).splitlines()[0])) from None
    if record is None:
        return None
    names = ("corpus", "terms", "who", "when", "host")
    if not isinstance(record, dict) or any(not isinstance(record.get(name), str) for name in names):
        raise UserError(_damaged(path, corpus, f"it must hold {', '.join(names)}"))
    return record


def _damaged(path: Path, corpus: str, reason: str) -> str:
    return f"{path} is no record of acceptance ({reason}): remove it and run: {_command(corpus, path.parent)}"


def _command(corpus: str, folder: Path) -> str:
    return f"python -m affect_hpc.data accept {corpus} --store {shlex.quote(str(folder.parent))}"


def accept(corpus: str, folder: Path, who: str, clock: Callable[[], float] = time.time) -> dict[str, str]:
    """Record that ``who`` accepts the terms of a corpus, and return the record.

    Args:
        folder: that of the records, ``<store>/licences``.
        clock: seconds since 1970.

    Raises:
        UserError: the corpus is unknown, or ``who`` is no name.
    """
    terms = terms_of(corpus)
    if not who.strip():
        raise UserError(f"the terms of {terms.name} are accepted by somebody: give a name, --by 'NAME'.")
    record = {
        "corpus": corpus,
        "terms": digest(terms),
        "who": who.strip(),
        "when": datetime.fromtimestamp(clock(), UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
    }
    write_json(record_path(corpus, folder), record)
    return record


def summary(corpus: str) -> dict[str, Any]:
    """The terms as JSON data, to stand beside all that is made from the corpus."""
    terms = terms_of(corpus)
    return {**json.loads(json.dumps(asdict(terms))), "digest": digest(terms)}
