"""Elements to arrays: few sbatch calls, indices that pair parents with children, exact dependencies."""

import json
from pathlib import Path

import pytest
from toy_graph import chain, elements, finish, give_job, lives, node

from affect_hpc.config.cluster import ClusterConfig
from affect_hpc.core.io import write_json
from affect_hpc.hpc.graph import Edge, Element, Graph, Node
from affect_hpc.hpc.slurm import dependency_text, planned
from affect_hpc.hpc.submit import Array, arrays, chain_indices, decide

LARGE = 1001


def grouped(graph: Graph, store: Path, max_array_size: int = LARGE) -> list[Array]:
    cluster = ClusterConfig(max_array_size=max_array_size)
    return planned(graph, decide(graph, store, lives, True, 3), store, cluster)


def of_kind(found: list[Array], kind: str) -> list[Array]:
    return [array for array in found if array.kind == kind]


def attach(element: Element, store: Path, number: str, index: int) -> None:
    """A job of an earlier launch that still is in the queue."""
    give_job(element, store, {"lives": True, "array": f"old-{number}", "index": index})
    write_json(store / "runs" / "_arrays" / f"old-{number}.id.json", {"job_id": number, "cluster": "toy"})


def check_laws(graph: Graph, found: list[Array], store: Path, max_array_size: int = LARGE) -> None:
    """Every dependency of every element is honoured by its array, and by nothing that comes later."""
    where: dict[Element, tuple[str, int]] = {}
    for array in found:
        assert len({element.node.kind for element in array.elements.values()}) == 1
        assert all(0 <= index < max_array_size for index in array.elements)
        before = {name for name, _ in where.values()}
        assert {*array.corr, *array.after} <= before, "only arrays that are submitted already"
        for index, element in array.elements.items():
            for parent in element.parents():
                if parent in where:
                    name, parent_index = where[parent]
                    assert name in array.after or (name in array.corr and parent_index == index)
                elif not parent.folder(store).is_done():
                    job = parent.folder(store).job()
                    assert job is not None
                    number = job["array"].removeprefix("old-")
                    paired = number in array.corr_jobs and job["index"] == index
                    assert paired or f"{number}_{job['index']}" in array.after_jobs
        where |= {element: (array.name, index) for index, element in array.elements.items()}
    assert len({array.name for array in found}) == len(found)


def test_a_sweep_is_one_array_per_stage(tmp_path: Path) -> None:
    graph, _ = chain(["a", "b", "c"], parts=4)
    found = grouped(graph, tmp_path)
    check_laws(graph, found, tmp_path)
    assert [array.kind for array in found] == [
        *("train_ldm", "invert_latents", "manipulate", "evaluate", "reduce", "report")
    ]
    assert [len(array.elements) for array in found] == [1, 12, 12, 12, 3, 1]
    train, invert, edit, judge, reduce, report = found
    assert [array.is_root for array in found] == [True, False, False, False, False, False]
    assert (invert.after, invert.corr) == ((train.name,), ())
    assert (edit.corr, edit.after) == ((invert.name,), (train.name,))
    assert (judge.corr, judge.after) == ((edit.name,), ())
    assert (reduce.corr, reduce.after) == ((), (judge.name,)), "fan-in waits for all"
    assert report.after == (reduce.name,)
    ids = {array.name: str(number) for number, array in enumerate(found, 10)}
    assert [dependency_text(array, ids) for array in found] == [
        *("", "afterok:10", "aftercorr:11,afterok:10", "aftercorr:12", "afterok:13", "afterok:14")
    ]


def test_an_element_keeps_its_index_along_its_chain(tmp_path: Path) -> None:
    graph, nodes = chain(["a", "b"], parts=3)
    places = chain_indices(graph)
    for tag, first in (("a", 0), ("b", 3)):
        for name in ("invert", "edit", "judge"):
            found = [places[element] for element in elements(nodes[f"{name}_{tag}"])]
            assert found == [("invert_latents", first + part) for part in range(3)]


def test_indices_do_not_move_when_work_is_done(tmp_path: Path) -> None:
    graph, nodes = chain(["a", "b"], parts=3)
    before = {str(element): index for array in grouped(graph, tmp_path) for index, element in array.elements.items()}
    finish(Element(nodes["ldm"], 0), tmp_path)
    for element in [*elements(nodes["invert_a"]), Element(nodes["invert_b"], 1), Element(nodes["edit_b"], 1)]:
        finish(element, tmp_path)
    found = grouped(graph, tmp_path)
    check_laws(graph, found, tmp_path)
    after = {str(element): index for array in found for index, element in array.elements.items()}
    assert after.items() <= before.items()
    (invert,) = of_kind(found, "invert_latents")
    assert sorted(invert.elements) == [3, 5], "sparse: only what is missing"


def test_mixed_parents_are_each_waited_for_in_their_way(tmp_path: Path) -> None:
    graph, nodes = chain(["a"], parts=3)
    finish(Element(nodes["ldm"], 0), tmp_path)
    finish(Element(nodes["invert_a"], 0), tmp_path)
    attach(Element(nodes["invert_a"], 1), tmp_path, "77", 1)
    found = grouped(graph, tmp_path)
    check_laws(graph, found, tmp_path)
    edits = {min(array.elements): array for array in of_kind(found, "manipulate")}
    (invert,) = of_kind(found, "invert_latents")
    assert edits[0].is_root, "its parent is done"
    assert edits[1].corr_jobs == ("77",) and not edits[1].corr
    assert edits[2].corr == (invert.name,) and not edits[2].corr_jobs
    text = dependency_text(edits[1], {})
    assert text == "aftercorr:77"


def test_children_of_many_live_jobs_are_still_one_array(tmp_path: Path) -> None:
    graph, nodes = chain(["a"], parts=40)
    finish(Element(nodes["ldm"], 0), tmp_path)
    for element in elements(nodes["invert_a"]):
        attach(element, tmp_path, "77", element.part)
    found = grouped(graph, tmp_path)
    check_laws(graph, found, tmp_path)
    assert len(found) == 4


def test_live_jobs_under_other_indices_are_named_one_by_one(tmp_path: Path) -> None:
    graph, nodes = chain(["a"], parts=2)
    finish(Element(nodes["ldm"], 0), tmp_path)
    for element in elements(nodes["invert_a"]):
        attach(element, tmp_path, "77", element.part + 5)
    found = grouped(graph, tmp_path)
    check_laws(graph, found, tmp_path)
    assert [array.after_jobs for array in of_kind(found, "manipulate")] == [("77_5",), ("77_6",)]


def test_fan_in_names_the_live_elements_only(tmp_path: Path) -> None:
    graph, nodes = chain(["a"], parts=3)
    for element in [Element(nodes["ldm"], 0), *elements(nodes["invert_a"]), *elements(nodes["edit_a"])]:
        finish(element, tmp_path)
    finish(Element(nodes["judge_a"], 0), tmp_path)
    attach(Element(nodes["judge_a"], 1), tmp_path, "8", 1)
    found = grouped(graph, tmp_path)
    (judge,) = of_kind(found, "evaluate")
    (reduce,) = of_kind(found, "reduce")
    assert sorted(judge.elements) == [2] and judge.is_root
    assert dependency_text(reduce, {judge.name: "9"}) == "afterok:9:8_1"


@pytest.mark.parametrize("parts", [3, 7, 20])
def test_large_arrays_are_split_and_still_pair_up(tmp_path: Path, parts: int) -> None:
    graph, _ = chain(["a", "b", "c"], parts=parts)
    found = grouped(graph, tmp_path, max_array_size=8)
    check_laws(graph, found, tmp_path, max_array_size=8)
    chunks = -(-3 * parts // 8)
    for kind in ("invert_latents", "manipulate", "evaluate"):
        assert len(of_kind(found, kind)) == chunks
    assert sum(len(array.elements) for array in found) == len(graph.elements())


def test_a_parent_of_another_division_is_waited_for_as_a_whole(tmp_path: Path) -> None:
    parent: Node = node("invert_latents", "x", parts=2)
    child = node("manipulate", "x", {"latents": [Edge(parent, each=True)]}, parts=3)
    graph = Graph([child])
    assert list(Element(child, 1).parents()) == elements(parent)
    found = grouped(graph, tmp_path)
    check_laws(graph, found, tmp_path)
    assert found[1].corr == () and found[1].after == (found[0].name,)


def test_the_same_launch_gives_the_same_arrays(tmp_path: Path) -> None:
    def names() -> str:
        return json.dumps([array.name for array in grouped(chain(["a", "b"])[0], tmp_path)])

    assert names() == names()


def test_live_ids_are_asked_for_attached_elements_only(tmp_path: Path) -> None:
    graph, nodes = chain(["a"], parts=2)
    attach(Element(nodes["ldm"], 0), tmp_path, "5", 0)
    asked: list[Element] = []

    def live_job(element: Element) -> str:
        asked.append(element)
        return "5_0"

    arrays(graph, decide(graph, tmp_path, lives, True, 3), live_job, LARGE)
    assert set(asked) == {Element(nodes["ldm"], 0)}


def test_a_second_chain_with_other_indices_is_waited_for_as_a_whole(tmp_path: Path) -> None:
    first, second = node("invert_latents", "x", parts=2), node("invert_latents", "y", parts=2)
    edges = {"latents": [Edge(first, each=True)], "others": [Edge(second, each=True)]}
    found = grouped(Graph([node("manipulate", "xy", edges, parts=2)]), tmp_path)
    check_laws(Graph([]), found, tmp_path)
    invert, edit = found
    assert sorted(invert.elements) == [0, 1, 2, 3] and sorted(edit.elements) == [0, 1]
    assert (edit.corr, edit.after) == ((invert.name,), (invert.name,))
