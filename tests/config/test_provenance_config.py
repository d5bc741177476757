"""Keys of the user: named in pairs, found from everywhere, and no part of any signature."""

import re
from pathlib import Path

import pytest

from affect_hpc.config.compose import collect
from affect_hpc.config.provenance import ProvenanceConfig
from affect_hpc.core.errors import UserError
from affect_hpc.hpc.plans import plan

WORDS = ["model=smoke", "data=demo", "use.first_stage=train"]


def test_a_key_is_named_with_its_certificates_and_both_are_files(tmp_path: Path) -> None:
    key, other = tmp_path / "key.pem", tmp_path / "other.pem"
    key.touch()
    ProvenanceConfig().check()
    with pytest.raises(UserError, match=r"provenance\.certificates is empty: name key and certificates of one signer"):
        ProvenanceConfig(key=str(key)).check()
    with pytest.raises(UserError, match=r"provenance\.key is empty"):
        ProvenanceConfig(certificates=str(key)).check()
    with pytest.raises(UserError, match=re.escape(f"provenance.certificates={other} is no file")):
        ProvenanceConfig(key=str(key), certificates=str(other)).check()


def test_the_plan_hands_absolute_paths_to_the_stages_and_no_signature_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("key.pem", "certificates.pem"):
        (tmp_path / name).touch()
    own = ["provenance.key=key.pem", "provenance.certificates=certificates.pem"]
    points = [plan(collect([*WORDS, *words, f"store={tmp_path}"]))[0] for words in ([], own, ["provenance.mark=false"])]
    names = [[node.name for node in graph.nodes] for graph in points]
    assert names[0] == names[1] == names[2]
    signed = {node.kind: node.config.provenance for node in points[1].nodes if hasattr(node.config, "provenance")}
    settled = ProvenanceConfig(key=str(tmp_path / "key.pem"), certificates=str(tmp_path / "certificates.pem"))
    assert signed == {"manipulate": settled, "report": settled}
    assert not any(node.config.provenance.mark for node in points[2].nodes if hasattr(node.config, "provenance"))
