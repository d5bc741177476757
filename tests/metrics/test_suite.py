"""States of whole evaluations: any partition merges to the same text; weights make the fingerprint."""

import json
import random

import numpy as np
import pytest
import torch

from affect_hpc.metrics.fingerprint import fingerprint
from affect_hpc.metrics.suite import Score, SuiteState, keys_digest

CLASSES = ("neutral", "happy", "sad")


def samples(rng: random.Random, count: int) -> dict[str, dict[str, Score]]:
    """Samples with scores in rows that not every sample has, and values that are undefined now and then."""
    return {
        f"k{i:03d}": {
            row: Score(
                {"psnr": rng.uniform(10, 40), "csim": None if rng.random() < 0.3 else rng.gauss(0, 1e-9)},
                rng.choice(CLASSES),
            )
            for row in ("happy", "sad", "rare")
            if row != "rare" or rng.random() < 0.2
        }
        for i in range(count)
    }


@pytest.mark.parametrize("seed", range(20))
def test_any_partition_merges_to_the_same_text(seed: int) -> None:
    rng = random.Random(seed)
    scored = samples(rng, 25)
    whole = SuiteState()
    for key, rows in scored.items():
        whole = whole.add(key, rows, CLASSES)
    parts = [SuiteState() for _ in range(rng.randrange(1, 7))]
    for key in rng.sample(sorted(scored), len(scored)):
        i = rng.randrange(len(parts))
        parts[i] = parts[i].add(key, scored[key], CLASSES)
    merged = SuiteState()
    for part in rng.sample(parts, len(parts)):
        merged = merged.merge(SuiteState.from_json(json.loads(json.dumps(part.to_json()))))
    assert merged == whole
    assert json.dumps(merged.to_json(), sort_keys=True) == json.dumps(whole.to_json(), sort_keys=True)


def test_no_sample_counts_twice() -> None:
    one = SuiteState().add("a", {"happy": Score({"psnr": 1.0}, "sad")}, CLASSES)
    with pytest.raises(ValueError, match="1 samples were judged twice, a among them"):
        one.merge(one)


def test_digest_of_keys_ignores_their_order_only() -> None:
    assert keys_digest(["b", "a"]) == keys_digest(["a", "b"])
    assert keys_digest(["a", "b"]) != keys_digest(["ab"]) != keys_digest(["a"])


class Wrapped:
    def __init__(self, network: torch.nn.Module, table: np.ndarray) -> None:
        self.network, self.table = network, table


class Opaque:
    digest = "ab" * 32


def test_fingerprint_is_of_the_weights_alone() -> None:
    torch.manual_seed(0)
    a, b = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    assert fingerprint(a) != fingerprint(b)
    b.load_state_dict(a.state_dict())
    assert fingerprint(a) == fingerprint(b)
    table = np.arange(3.0)
    assert fingerprint(Wrapped(a, table)) == fingerprint(Wrapped(b, table.copy()))
    assert fingerprint(Wrapped(a, table)) != fingerprint(Wrapped(a, table + 1))
    assert fingerprint(a) != fingerprint(a.to(torch.bfloat16))
    assert fingerprint(Opaque()) == "ab" * 32
    with pytest.raises(ValueError, match="shows no weights"):
        fingerprint(object.__new__(Wrapped))
