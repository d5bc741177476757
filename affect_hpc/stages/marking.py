"""How stages mark the synthetic pictures that they write. DONE tells results without their marks (core/marks.py)."""

from pathlib import Path

from affect_hpc.config.provenance import ProvenanceConfig
from affect_hpc.core.rundir import Workplace
from affect_hpc.data.provenance import Signer, SyntheticFacts, mark, mark_shards


class Marker:
    """Signs marks, or lets everything be where marking is switched off.

    Made before the work, so that a key that does not fit costs no hours.
    """

    def __init__(self, signer: Signer | None) -> None:
        self.signer = signer

    @classmethod
    def of(cls, config: ProvenanceConfig, place: Workplace) -> "Marker":
        """With the user's own key, else with the store's. Outside of a store, without a key, nothing is marked.

        Raises:
            UserError: the key does not fit, or cannot be read or made.
        """
        if not config.mark:
            return cls(None)
        if config.key:
            return cls(Signer.of_files(Path(config.key), Path(config.certificates)))
        return cls(Signer.kept_in(place.signer) if place.signer is not None else None)

    def shards(self, folder: Path, facts: SyntheticFacts) -> None:
        """Mark all shards in ``folder``: ``name.synthetic.json`` beside each ``name.tar``."""
        if self.signer is not None:
            mark_shards(folder, facts, self.signer)

    def png(self, content: bytes, facts: SyntheticFacts) -> bytes:
        """A PNG with a mark in it, its pixels as they were."""
        return mark(content, "png", facts, self.signer) if self.signer is not None else content


def name_of(output: Path) -> str:
    """Who made an output, for people: ``<stage>/<signature>`` of a run, else the folder's own name."""
    run = output.parent.parent.parent if output.parent.parent.name == "parts" else output.parent
    return f"{run.parent.name}/{run.name}" if output.name == "out" else output.name
