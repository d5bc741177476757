"""Edited faces in shards are marked: validly, by the store's key or the user's, and without a trace in the results."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ml_world import Chain, edit

from affect_hpc.config.provenance import ProvenanceConfig
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import manifest_of
from affect_hpc.core.marks import manifest_without_marks
from affect_hpc.core.rundir import Inputs, Workplace
from affect_hpc.data.provenance import CERTIFICATES_FILE, KEY_FILE, Signer, shard_mark, verify_shard
from affect_hpc.stages import manipulate

Edited = Callable[[str, ProvenanceConfig], Path]


@pytest.fixture(scope="module")
def plain(chain: Chain) -> Path:
    """Edits as a stage makes them outside of a store."""
    (name,) = edit(chain, "-marks", gamma=2)
    return chain.out(name)


@pytest.fixture
def edited(chain: Chain, plain: Path, tmp_path: Path) -> Edited:
    """The same edits again, in a store whose folder of the signer is given."""

    def run(signer: str, config: ProvenanceConfig) -> Path:
        out = tmp_path / f"out-{signer}-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        latents, networks = chain.out("invert-marks-0"), {"first_stage": "train_vqgan", "ldm": "train_ldm"}
        roles = {"latents": (latents,), **{role: (chain.out(name),) for role, name in networks.items()}}
        place = Workplace(out, tmp_path / "keep", signer=tmp_path / signer)
        manipulate.run(replace(chain.stages.manipulate, gamma=2, provenance=config), Inputs(roles), place)
        return out

    return run


def test_each_shard_has_a_valid_mark_of_the_store_and_results_stay(
    edited: Edited, plain: Path, chain: Chain, tmp_path: Path
) -> None:
    one, other = edited("one", ProvenanceConfig()), edited("other", ProvenanceConfig())
    (tar,) = one.glob("*.tar")
    found = verify_shard(tar)
    assert found is not None and found.valid and not found.trusted and found.facts is not None
    assert found.facts["edited"] and found.facts["model"] == f"{chain.root.name}/train_ldm"
    assert found.facts["settings"]["targets"] == "happy, sad" and found.facts["settings"]["gamma"] == 2
    trusted = verify_shard(tar, Signer.kept_in(tmp_path / "one").certificates)
    assert trusted is not None and trusted.trusted
    assert shard_mark(tar).read_bytes() != shard_mark(other / tar.name).read_bytes(), "each store has its own key"
    assert manifest_without_marks(one) == manifest_without_marks(other) == manifest_of(plain)


def test_the_users_own_key_signs(edited: Edited, tmp_path: Path) -> None:
    own = tmp_path / "mine"
    signer = Signer.kept_in(own)
    config = ProvenanceConfig(key=str(own / KEY_FILE), certificates=str(own / CERTIFICATES_FILE))
    (tar,) = edited("store", config).glob("*.tar")
    found = verify_shard(tar, signer.certificates)
    assert found is not None and found.valid and found.trusted
    assert not (tmp_path / "store").exists(), "none is generated then"


def test_without_marks_there_is_neither_mark_nor_key(edited: Edited, plain: Path, tmp_path: Path) -> None:
    out = edited("store", ProvenanceConfig(mark=False))
    assert manifest_of(out) == manifest_of(plain) and not (tmp_path / "store").exists()


def test_a_key_that_does_not_fit_ends_the_work_before_it_begins(edited: Edited, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Signer.kept_in(tmp_path / name)
    config = ProvenanceConfig(key=str(tmp_path / "a" / KEY_FILE), certificates=str(tmp_path / "b" / CERTIFICATES_FILE))
    with pytest.raises(UserError, match="does not begin with a certificate of"):
        edited("store", config)
    assert not [file for out in tmp_path.glob("out-*") for file in out.iterdir()]
