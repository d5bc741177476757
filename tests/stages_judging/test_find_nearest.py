"""The search for training faces near to drawn ones: exact, whatever the parts, in pixels and in features."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from affect_hpc.config.drawing import FindNearestConfig
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import write_json
from affect_hpc.core.rundir import Inputs, Workplace
from affect_hpc.data.codec import DamagedMemberError, encode_png
from affect_hpc.data.shards import ShardWriter
from affect_hpc.metrics.features import FeatureSet
from affect_hpc.metrics.nearest import Neighbours
from affect_hpc.stages import find_nearest
from affect_hpc.stages.find_nearest import merged

SIZE, CANDIDATES, K = 8, 41, 5
JUDGE = {"name": "toy", "digest": "0"}
PLANTED, TWIN = "face-017", "face-030"


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def drawn(label: int, number: int) -> np.ndarray:
    return noise(1000 + 10 * label + number)


def candidate(number: int) -> np.ndarray:
    """Training faces; one is a copy of the first drawn face of label 2, another one differs from it by one level."""
    if f"face-{number:03d}" == PLANTED:
        return drawn(2, 0)
    if f"face-{number:03d}" == TWIN:
        image = drawn(2, 0).copy()
        image[3, 4, 1] ^= 1
        return image
    return noise(number)


@dataclass
class Corpus:
    root: Path

    def shards(self, size: int = SIZE) -> dict[str, tuple[Path, ...]]:
        """Drawn faces in two parts, three of each of three labels, not in the order of keys; and training faces."""
        generated = (self.root / "generated0", self.root / "generated1")
        for part, folder in enumerate(generated):
            with ShardWriter(folder, f"images-{part:05d}") as writer:
                for number in (2, 0, 1):
                    for label in ((0, 1), (2,))[part]:
                        key = f"emotion{label}-{number:06d}"
                        writer.write(key, {"png": encode_png(drawn(label, number))}, {"label": label, "identity": key})
        for shard, numbers in enumerate((range(20), range(20, CANDIDATES))):
            with ShardWriter(self.root / "real" / "train", f"shard-{shard:05d}") as writer:
                for number in numbers:
                    image = candidate(number)[:size, :size]
                    key = f"face-{number:03d}"
                    writer.write(key, {"png": encode_png(image)}, {"label": number % 8, "identity": str(number)})
        with ShardWriter(self.root / "real" / "val", "shard-00000") as writer:
            writer.write("held-out", {"png": encode_png(drawn(2, 0))}, {"label": 2, "identity": "v"})
        return {"generated": generated, "real": (self.root / "real",)}

    def features(self, judge: dict[str, str] = JUDGE) -> dict[str, tuple[Path, ...]]:
        """What a network that rounds to halves of levels would see: the pixels themselves."""
        ours = [(f"emotion{label}-{n:06d}", label, drawn(label, n)) for label in range(3) for n in range(3)]
        theirs = [(f"face-{n:03d}", n % 8, candidate(n)) for n in range(CANDIDATES)]
        for folder, samples, by in (("ours", ours, JUDGE), ("theirs", theirs, judge)):
            rows = np.stack([image.reshape(-1) / 2 for _, _, image in samples]).astype(np.float32)
            (self.root / folder).mkdir()
            keys, labels = [key for key, _, _ in samples], [label for _, label, _ in samples]
            FeatureSet.of(by, keys, labels, rows).save(self.root / folder, "features")
        return {"generated": (self.root / "ours",), "real": (self.root / "theirs",)}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def search(
    corpus: Corpus, roles: dict[str, tuple[Path, ...]], parts: int = 1, space: str = "pixel", queries: int = 2
) -> list[Path]:
    folders = []
    for part in range(parts):
        out = corpus.root / f"{space}-{parts}-{queries}-{part}"
        out.mkdir()
        place = Workplace(out, out / "keep", part, parts)
        find_nearest.run(FindNearestConfig(space, K, queries), Inputs(roles), place)
        folders.append(out)
    return folders


def brute(scale: int = 1) -> dict[str, list[list[object]]]:
    """All distances in integers, sorted."""
    best = {}
    for label in range(3):
        for number in range(2):
            gaps = [candidate(n).astype(int) - drawn(label, number) for n in range(CANDIDATES)]
            row = sorted((int((gap**2).sum()) / scale, f"face-{n:03d}") for n, gap in enumerate(gaps))
            best[f"emotion{label}-{number:06d}"] = [list(pair) for pair in row[:K]]
    return best


def text(state: Neighbours) -> str:
    return json.dumps(state.to_json(), sort_keys=True)


@pytest.mark.parametrize("space", ["pixel", "features"])
@pytest.mark.parametrize("parts", [1, 3, 50])
def test_any_number_of_parts_finds_what_brute_force_finds(
    corpus: Corpus, space: str, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find_nearest, "BLOCK", 7)
    roles = corpus.shards() if space == "pixel" else corpus.features()
    state = merged(search(corpus, roles, parts, space)[::-1])
    assert text(state) == json.dumps({"k": K, "best": brute(1 if space == "pixel" else 4)}, sort_keys=True)


def test_a_copy_is_found_first_and_the_held_out_one_is_not(corpus: Corpus) -> None:
    (folder,) = search(corpus, corpus.shards(), queries=1)
    first, second = merged([folder]).best["emotion2-000000"][:2]
    assert (first, second) == ((0.0, PLANTED), (1.0, TWIN))
    written = json.loads((folder / "neighbours.json").read_text())
    assert {key: written[key] for key in ("space", "k", "candidates", "share", "of")} == {
        **{"space": "pixel", "k": K, "candidates": CANDIDATES},
        **{"share": [0, CANDIDATES], "of": CANDIDATES},
    }


@pytest.mark.parametrize("queries", [1, 2, 3, 9])
def test_queries_are_the_first_of_each_emotion_in_the_order_of_keys(corpus: Corpus, queries: int) -> None:
    state = merged(search(corpus, corpus.shards(), queries=queries))
    assert set(state.best) == {f"emotion{label}-{n:06d}" for label in range(3) for n in range(min(queries, 3))}


def test_a_damaged_face_is_named(corpus: Corpus) -> None:
    roles = corpus.shards()
    with ShardWriter(corpus.root / "real" / "train", "shard-00001") as writer:
        good = encode_png(noise(5))
        writer.write("fine", {"png": good}, {"label": 0, "identity": "a"})
        writer.write("ruined", {"png": good[:-30] + good[-12:]}, {"label": 0, "identity": "b"})
    with pytest.raises(DamagedMemberError, match="the face ruined cannot be compared"):
        search(corpus, roles)
    tar = corpus.root / "real" / "train" / "shard-00000.tar"
    content = bytearray(tar.read_bytes())
    content[600] ^= 1
    tar.write_bytes(content)
    with pytest.raises(DamagedMemberError, match=r"face-000\.png is not what was written"):
        search(corpus, roles, queries=3)


def test_faces_of_another_size_and_features_of_another_network_have_no_distance(corpus: Corpus) -> None:
    with pytest.raises(UserError, match=r"queries of length \(192,\) have no distance to candidates of length \(48,\)"):
        search(corpus, corpus.shards(size=4))
    with pytest.raises(UserError, match="a distance is between features of one network"):
        search(corpus, corpus.features({"name": "other", "digest": "1"}), space="features")


def refused(folders: Sequence[Path], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        merged(folders)


def test_parts_that_do_not_make_up_one_search_are_refused(corpus: Corpus) -> None:
    roles = corpus.shards()
    parts, others = search(corpus, roles, 3), search(corpus, roles, 3, queries=1)
    refused([], "no parts of a search")
    refused(parts[:2], "give every part once")
    refused([parts[0], parts[1], parts[1]], "give every part once")
    refused([*parts, parts[2]], "give every part once")
    refused([parts[0], parts[1], others[2]], "parts of different searches")
    content = json.loads((parts[1] / "neighbours.json").read_text())
    for change in ({"space": "features"}, {"of": 40}):
        write_json(parts[1] / "neighbours.json", {**content, **change})
        refused(parts, "parts of different searches")
