"""Who signs the marks of synthetic pictures. Part of no signature: a mark changes no result."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from affect_hpc.config.fields import transient
from affect_hpc.core.errors import UserError

FOLDER = "provenance"
"""Of the signer that is generated where the user names none, below the store."""


@dataclass
class ProvenanceConfig:
    """Marks that say of a picture that it is synthetic (C2PA)."""

    mark: bool = transient(True)
    """Whether synthetic pictures, and shards of them, are marked."""
    key: str = transient("")
    """The user's own private key: PEM, on P-256, without a password. Empty: one that is generated once for the store,
    and kept in its folder provenance/."""
    certificates: str = transient("")
    """The certificates that belong to it: PEM, the signer's own first."""

    def check(self) -> None:
        """Raise UserError where only one of key and certificates is named, or one of them is no file."""
        named = {"provenance.key": self.key, "provenance.certificates": self.certificates}
        missing = [name for name, path in named.items() if not path]
        if len(missing) == 1:
            raise UserError(f"{missing[0]} is empty: name key and certificates of one signer, or neither.")
        for name, path in named.items():
            if path and not Path(path).expanduser().is_file():
                raise UserError(f"{name}={path} is no file: give the path of a PEM file.")

    def settled(self) -> Self:
        """The same with absolute paths, filled in by the plan: jobs run elsewhere than where the command is given."""
        return replace(self, key=_absolute(self.key), certificates=_absolute(self.certificates))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""
