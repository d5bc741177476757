"""From raw corpora to verified shards by one command, once their owners' terms are accepted."""

from pathlib import Path

import pytest
from raw_corpora import accept, inspect, prepare, write_affectnet, write_mead

from affect_hpc.config.packaged import missing
from affect_hpc.core.io import read_json

pytestmark = pytest.mark.skipif(bool(missing("dlib_landmarks")), reason="dlib's landmark network is not installed")


@pytest.mark.parametrize("corpus", ["affectnet csv", "affectnet npy", "mead"])
def test_a_gated_corpus_becomes_shards_after_its_terms_are_accepted(tmp_path: Path, corpus: str) -> None:
    name, _, layout = corpus.partition(" ")
    root, store = tmp_path / "raw", tmp_path / "store"
    if name == "mead":
        write_mead(root)
    else:
        write_affectnet(root, layout)
    refused = prepare(name, root, store)
    assert refused.code == 2
    assert f"python -m affect_hpc.data accept {name} --store {store}" in refused.out + refused.err
    assert not list((store / "runs").glob("prepare_shards/*"))

    assert accept(name, store).code == 0
    said = prepare(name, root, store)
    assert said.code == 0, said.out + said.err
    seen = inspect(store)
    assert seen.code == 0, seen.out + seen.err
    for part in store.glob("runs/prepare_shards/*/parts/*/out"):
        assert read_json(part / "terms.json").keys() == {name}
        assert read_json(part / "manifest.json")["terms"].keys() == {name}
    assert prepare(name, root, store).counts["submitted"] == 0
