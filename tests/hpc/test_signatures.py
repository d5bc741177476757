"""Golden signatures: a default cannot change unseen, because old results would silently be made anew, or reused.

Where a change is meant, renew the table and commit it::

    AFFECT_HPC_RENEW=1 python -m pytest tests/hpc/test_signatures.py
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from affect_hpc.config.compose import collect
from affect_hpc.core.hashing import canonical, digest
from affect_hpc.core.io import read_json, write_json
from affect_hpc.hpc.catalog import CATALOG
from affect_hpc.hpc.plans import plan

TABLE = Path(__file__).with_name("golden_signatures.json")
RENEW = "AFFECT_HPC_RENEW"
ADVICE = f"""
If it was not meant: take the change back.
If it is a new field: declare it with absent_if(default), then old results stay valid.
If a stage now computes something else for the same config: raise its version in affect_hpc/hpc/catalog.py.
Then renew the table and commit it: {RENEW}=1 python -m pytest tests/hpc/test_signatures.py"""


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one of dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {key: leaf for name, one in value.items() for key, leaf in flat(one, f"{prefix}.{name}".strip(".")).items()}


def signatures_of_defaults(store: Path) -> dict[str, dict[str, Any]]:
    """Name of a node -> its signature, version and config, for the default point of each experiment."""
    (clips,) = collect(["data=demo_clips", "data.voice=tones", "stage=precompute_audio", f"store={store}"])
    common = ["data=demo", "use.first_stage=train", "use.ldm=train", f"store={store}"]
    experiments = {
        "report": [],
        "report_generation": ["experiment=generation", "generation.classifier_scale=1"],
        "report_interpolation": ["experiment=interpolation"],
    }
    named = {"precompute_audio": plan([clips])[1][0]["precompute_audio"]}
    for last, words in experiments.items():
        graph, (nodes,) = plan(collect([*common, *words]))
        named |= {**nodes, last: graph.targets[0]}
    return {
        name: {
            "signature": node.signature,
            "version": CATALOG[node.kind].version,
            "config": flat(canonical(node.config)),
        }
        for name, node in sorted(named.items())
    }


def differences(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> list[str]:
    """One line for each reason why a signature is another; what only inherits a change is named last."""
    found, inherited = [], []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            found.append(f"{name} is {'new' if before is None else 'gone'}")
            continue
        keys = sorted({*before["config"], *after["config"]})
        own = [
            f"{name}: {key} was {json.dumps(before['config'].get(key))}, is {json.dumps(after['config'].get(key))}"
            for key in keys
            if before["config"].get(key) != after["config"].get(key)
            or (key in before["config"]) != (key in after["config"])
        ]
        if before["version"] != after["version"]:
            own.append(f"{name}: version was {before['version']}, is {after['version']}")
        found += own
        if before["signature"] != after["signature"] and not own:
            inherited.append(name)
    return found + ([f"changed by a parent or by the hashing: {', '.join(inherited)}"] if inherited else [])


def test_signatures_of_the_defaults_are_those_of_the_table(tmp_path: Path) -> None:
    now = signatures_of_defaults(tmp_path)
    if os.environ.get(RENEW):
        write_json(TABLE, now)
        pytest.skip(f"{TABLE.name} is renewed: look at its difference and commit it")
    found = differences(read_json(TABLE), now)
    assert not found, "\n".join(["signatures of the defaults have changed:", *found, ADVICE])


def test_every_kind_of_the_catalog_is_in_the_table() -> None:
    assert set(read_json(TABLE)) - {"baseline", "reduce_baseline", "encode_val", "features_real"} == set(CATALOG)


def test_the_table_is_told_apart_by_reason() -> None:
    old = {
        "a": {"signature": "1", "version": 1, "config": {"x": 1}},
        "b": {"signature": "2", "version": 1, "config": {}},
    }
    new = {"a": {"signature": "3", "version": 2, "config": {"x": 2, "y": None}}, "b": {**old["b"], "signature": "4"}}
    assert differences(old, old) == []
    assert differences(old, new) == [
        "a: x was 1, is 2",
        "a: y was null, is null",
        "a: version was 1, is 2",
        "changed by a parent or by the hashing: b",
    ]
    assert differences(old, {"a": old["a"]}) == ["b is gone"]


def test_the_digest_itself_never_changes() -> None:
    """SHA-256 of the canonical JSON text, worked out apart from the program."""
    # printf '{"a":[1,0.5,null,true],"b":"x"}' | sha256sum
    assert digest({"b": "x", "a": [1.0, 0.5, None, True]}) == (
        "b811aacdee7d7e011860fad0ee06fa6475a3a1196aeeb5b8f1be341589410553"
    )
