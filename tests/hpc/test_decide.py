"""The state machine between a plan and its jobs, over real folders."""

from pathlib import Path

import pytest
from toy_graph import chain, elements, fail, finish, give_job, lives, node

from affect_hpc.core.io import write_text
from affect_hpc.hpc.graph import Edge, Element, Graph
from affect_hpc.hpc.submit import WITHOUT_A_WORD, Action, Decision, Decisions, decide, write_run


def decisions(graph: Graph, store: Path, retry: bool = True, given_up: tuple[Element, ...] = ()) -> Decisions:
    return decide(graph, store, lives, retry, 3, given_up)


def of(graph: Graph, store: Path, element: Element, retry: bool = True) -> Decision:
    return decisions(graph, store, retry).of[element]


def lone() -> tuple[Graph, Element]:
    one = node("reduce", "lone")
    return Graph([one]), Element(one, 0)


@pytest.mark.parametrize("retry", [True, False])
def test_nothing_there_is_run(tmp_path: Path, retry: bool) -> None:
    graph, element = lone()
    assert of(graph, tmp_path, element, retry) == Decision(Action.run)
    write_run(element.node, tmp_path)
    assert of(graph, tmp_path, element, retry) == Decision(Action.run), "a made folder is no work"


@pytest.mark.parametrize("retry", [True, False])
def test_done_is_reused_whatever_else_stands_there(tmp_path: Path, retry: bool) -> None:
    graph, element = lone()
    fail(element, tmp_path, attempts=5)
    give_job(element, tmp_path, {"lives": True})
    finish(element, tmp_path)
    assert of(graph, tmp_path, element, retry) == Decision(Action.reuse)


@pytest.mark.parametrize("retry", [True, False])
def test_a_live_job_is_never_doubled(tmp_path: Path, retry: bool) -> None:
    graph, element = lone()
    fail(element, tmp_path, attempts=9)
    give_job(element, tmp_path, {"lives": True})
    assert of(graph, tmp_path, element, retry) == Decision(Action.attach)


def test_a_failure_runs_again_until_attempts_are_spent(tmp_path: Path) -> None:
    graph, element = lone()
    fail(element, tmp_path)
    assert of(graph, tmp_path, element) == Decision(Action.run)
    assert of(graph, tmp_path, element, retry=False) == Decision(Action.blocked, "the disk is on fire")
    fail(element, tmp_path)
    assert of(graph, tmp_path, element) == Decision(Action.run)
    fail(element, tmp_path)
    assert of(graph, tmp_path, element) == Decision(Action.blocked, "the disk is on fire")
    element.folder(tmp_path).forget()
    assert of(graph, tmp_path, element) == Decision(Action.run)


def test_a_job_that_vanished_counts_as_its_failures(tmp_path: Path) -> None:
    graph, element = lone()
    give_job(element, tmp_path, {"lives": False})
    place = element.folder(tmp_path)
    assert of(graph, tmp_path, element, retry=False) == Decision(Action.run), "cancelled before it began"
    place.begin_attempt()
    assert of(graph, tmp_path, element) == Decision(Action.run)
    assert of(graph, tmp_path, element, retry=False) == Decision(Action.blocked, WITHOUT_A_WORD)
    place.begin_attempt()
    place.begin_attempt()
    assert of(graph, tmp_path, element) == Decision(Action.blocked, WITHOUT_A_WORD)


def test_work_that_ends_between_two_looks_is_reused(tmp_path: Path) -> None:
    graph, element = lone()
    give_job(element, tmp_path, {"lives": False})
    element.folder(tmp_path).begin_attempt()

    def ends_while_asked(job: object) -> bool:
        finish(element, tmp_path)
        return False

    assert decide(graph, tmp_path, ends_while_asked, False, 1).of[element] == Decision(Action.reuse)


def test_given_up_in_this_launch_is_not_tried_again(tmp_path: Path) -> None:
    graph, element = lone()
    fail(element, tmp_path)
    assert decisions(graph, tmp_path, given_up=(element,)).of[element].action is Action.blocked


def test_a_blocked_element_stops_its_branch_and_no_other(tmp_path: Path) -> None:
    graph, nodes = chain(["a", "b"])
    finish(Element(nodes["ldm"], 0), tmp_path)
    fail(Element(nodes["invert_a"], 1), tmp_path)
    found = decisions(graph, tmp_path, retry=False).of
    blocked = {str(element) for element, decision in found.items() if decision.action is Action.blocked}
    second = [str(Element(nodes[name], 1)) for name in ("invert_a", "edit_a", "judge_a")]
    assert blocked == {*second, nodes["reduce_a"].name, nodes["report"].name}
    assert found[Element(nodes["edit_a"], 1)].reason == f"needs {second[0]}"
    assert found[Element(nodes["reduce_a"], 0)].reason == f"needs {second[2]}"
    assert found[Element(nodes["judge_a"], 0)].action is Action.run, "the other parts go on"


def test_only_missing_parts_run(tmp_path: Path) -> None:
    graph, nodes = chain()
    finish(Element(nodes["ldm"], 0), tmp_path)
    for part in (0, 2):
        finish(Element(nodes["invert_a"], part), tmp_path)
    finish(Element(nodes["edit_a"], 0), tmp_path)
    give_job(Element(nodes["edit_a"], 2), tmp_path, {"lives": True})
    run = decisions(graph, tmp_path).elements(Action.run)
    assert [element.part for element in run if element.node is nodes["invert_a"]] == [1]
    assert [element.part for element in run if element.node is nodes["edit_a"]] == [1]
    assert [element.part for element in run if element.node is nodes["judge_a"]] == [0, 1, 2]


def test_the_last_part_settles_the_run(tmp_path: Path) -> None:
    graph, nodes = chain()
    for element in elements(nodes["invert_a"]):
        finish(element, tmp_path)
    assert not nodes["invert_a"].run_dir(tmp_path).is_done(), "no worker settled it"
    decisions(graph, tmp_path)
    assert nodes["invert_a"].run_dir(tmp_path).is_done()


def test_a_run_that_nobody_needs_is_left_out(tmp_path: Path) -> None:
    graph, nodes = chain(["a", "b"])
    finish(Element(nodes["reduce_a"], 0), tmp_path)
    named = {element.node.name for element in decisions(graph, tmp_path).of}
    assert nodes["reduce_a"].name in named, "what is done is shown"
    assert not named & {nodes[name].name for name in ("invert_a", "edit_a", "judge_a")}
    assert {nodes[name].name for name in ("invert_b", "edit_b", "judge_b", "ldm")} <= named


def test_a_done_target_needs_nothing(tmp_path: Path) -> None:
    graph, nodes = chain()
    finish(Element(nodes["report"], 0), tmp_path)
    assert [element.node for element in decisions(graph, tmp_path).of] == [nodes["report"]]


def test_parents_come_first(tmp_path: Path) -> None:
    graph, _ = chain(["a", "b"])
    seen: set[Element] = set()
    for element in decisions(graph, tmp_path).of:
        assert set(element.parents()) <= seen
        seen.add(element)


def test_a_run_folder_counts_as_made_when_its_spec_is_there(tmp_path: Path) -> None:
    parent = node("train_ldm", "x")
    one = node("evaluate", "x", {"ldm": [Edge(parent)]}, parts=2)
    run = one.run_dir(tmp_path)
    write_text(run.path / "inputs.json", "half")  # a launcher was killed here
    write_run(one, tmp_path)
    assert run.spec() == {"kind": "evaluate", "stage": "evaluate", "version": 2, "parts": 2}
    first = (run.path / "inputs.json").read_text()
    assert parent.name in first
    write_run(one, tmp_path)
    assert (run.path / "inputs.json").read_text() == first


def test_equal_work_is_one_node() -> None:
    def two_points() -> Graph:
        return Graph([chain(["a"])[1]["reduce_a"], chain(["a", "b"])[1]["reduce_b"], chain(["a"])[1]["reduce_a"]])

    kinds = [one.kind for one in two_points().nodes]
    assert kinds.count("train_ldm") == 1 and kinds.count("invert_latents") == 2 and len(kinds) == 9


def test_descendants_are_all_that_depend() -> None:
    graph, nodes = chain(["a", "b"])
    assert graph.descendants({nodes["edit_a"].name}) == {nodes[name].name for name in ("judge_a", "reduce_a", "report")}
    assert graph.descendants({nodes["report"].name}) == set()
