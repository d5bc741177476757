"""From configs to a graph: what is shared, what is not, and what is refused."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from affect_hpc.config.cluster import ClusterConfig
from affect_hpc.config.corpora import FolderDataConfig, LabelFrom
from affect_hpc.config.drawing import Experiment
from affect_hpc.config.model import UnetConfig
from affect_hpc.config.root import Config
from affect_hpc.core.emotions import TARGETS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import write_text
from affect_hpc.hpc.catalog import CATALOG
from affect_hpc.hpc.graph import External
from affect_hpc.hpc.plans import plan
from affect_hpc.hpc.slurm import planned
from affect_hpc.hpc.submit import decide, write_run

Change = Callable[..., Config]


def signatures(points: list[Config], store: Path) -> list[dict[str, str]]:
    """Name -> signature, for each point."""
    for point in points:
        point.store = str(store)
    return [{name: node.signature for name, node in nodes.items()} for nodes in plan(points)[1]]


def changed_names(change: Change, store: Path, values: dict[str, object]) -> set[str]:
    """Nodes whose signature differs between the default point and one with other values."""
    before, after = signatures([change({}), change(values)], store)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


EDIT = {"invert_latents", "manipulate", "evaluate", "reduce"}
NETWORKS = {"train_ldm", *EDIT}


def test_a_gamma_sweep_shares_all_but_the_edit(sweep: list[Config], tmp_path: Path) -> None:
    for point in sweep:
        point.store = str(tmp_path)
    graph, _ = plan(sweep)
    assert Counter(node.kind for node in graph.nodes) == {
        **dict.fromkeys(("prepare_shards", "train_vqgan", "train_referee", "train_ldm"), 1),
        **{"encode_latents": 2, "reconstruct": 1, "report": 1},
        **dict.fromkeys(("invert_latents", "manipulate"), 5),
        **dict.fromkeys(("evaluate", "reduce"), 6),
    }, "one inversion for each gamma, none for each target; one baseline, one encoding of each split"


def test_one_encoding_gamma_is_one_inversion(sweep: list[Config], tmp_path: Path) -> None:
    for point in sweep:
        point.store, point.edit.encode_gamma = str(tmp_path), 1.0
    kinds = Counter(node.kind for node in plan(sweep)[0].nodes)
    assert (kinds["invert_latents"], kinds["manipulate"]) == (1, 5)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"edit.targets": ["happy"]}, {"manipulate", "evaluate", "reduce"}),
        ({"edit.gamma": 7.0}, EDIT),
        ({"edit.t0": 400}, EDIT),
        ({"experts.identity": "dlib"}, {"baseline", "reduce_baseline", "evaluate", "reduce"}),
        ({"stages.train_ldm.p_uncond": 0.1}, NETWORKS),
        ({"stages.train_ldm.train.seed": 1}, NETWORKS),
        ({"stages.encode_latents.flip": True}, {"encode_latents", *NETWORKS}),
        (
            {"stages.train_referee.embed_dim": 64},
            {"train_referee", "baseline", "reduce_baseline", "evaluate", "reduce"},
        ),
        ({"stages.report.sheet_faces": 2}, set()),
    ],
)
def test_a_change_reaches_what_depends_on_it_and_no_more(
    change: Change, tmp_path: Path, values: dict[str, object], names: set[str]
) -> None:
    assert changed_names(change, tmp_path, values) == names


@pytest.mark.parametrize(
    "values",
    [
        {"cluster": ClusterConfig(name="other", parts=7, slots=9, partition="gpu")},
        {"stages.train_ldm.train.micro_batch_size": 1, "stages.train_vqgan.train.micro_batch_size": 2},
        {"stages.train_ldm.train.log_every": 1, "stages.train_ldm.train.save_every": 9},
        {"stages.train_ldm.train.keep_checkpoints": 5, "stages.train_ldm.sample_every": 3},
        {"stages.train_ldm.train.zero_stage": 2, "stages.train_vqgan.train.zero_stage": 1},
        {"experts.folder": "/elsewhere"},
        {"watch": True, "dry_run": True, "stage": "reduce"},
        {"edit.gamma": 1},
    ],
)
def test_what_changes_no_result_changes_no_signature(change: Change, tmp_path: Path, values: dict[str, object]) -> None:
    before, after = (change({}), change({key: value for key, value in values.items() if "." in key}))
    for key, value in values.items():
        if "." not in key:
            setattr(after, key, value)
    after.stage = before.stage
    assert signatures([before], tmp_path) == signatures([after], tmp_path)


def test_the_whole_sweep_is_few_calls_of_sbatch(
    sweep: list[Config], slurm_cluster: ClusterConfig, tmp_path: Path
) -> None:
    for point in sweep:
        point.store, point.cluster = str(tmp_path), slurm_cluster
    graph, _ = plan(sweep)
    decisions = decide(graph, tmp_path, lambda job: False, True, 3)
    found = planned(graph, decisions, tmp_path, slurm_cluster)
    assert len(found) <= 14
    assert sum(len(array.elements) for array in found) == len(decisions.of) > 100


def test_only_what_the_asked_stage_needs_is_planned(change: Change, tmp_path: Path) -> None:
    point = change({})
    point.store, point.stage = str(tmp_path), "train_ldm"
    assert [node.kind for node in plan([point])[0].nodes] == [
        *("prepare_shards", "train_vqgan", "encode_latents", "train_ldm")
    ]


def test_begun_work_keeps_its_division(change: Change, tmp_path: Path) -> None:
    point = change({})
    point.store, point.cluster.parts = str(tmp_path), 4
    write_run(plan([point])[1][0]["invert_latents"], tmp_path)
    point.cluster.parts = 2
    nodes = plan([point])[1][0]
    assert (nodes["invert_latents"].parts, nodes["manipulate"].parts) == (4, 2)


def test_a_given_first_stage_is_known_by_content(change: Change, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_text(tmp_path / name / "first_stage" / "config.json", "{}")
    first, second = (
        change({"use.first_stage": str(tmp_path / "one")}),
        change({"use.first_stage": str(tmp_path / "two")}),
    )
    first.store = second.store = str(tmp_path)
    _, (a, b) = plan([first, second])
    assert "train_vqgan" not in a
    assert a["train_ldm"] is b["train_ldm"], "the same content elsewhere is the same run"
    write_text(tmp_path / "two" / "first_stage" / "weights", "other")
    _, (a, b) = plan([first, second])
    assert a["train_ldm"].signature != b["train_ldm"].signature
    (given,) = a["encode_latents"].parents["first_stage"]
    assert isinstance(given, External) and given.path == tmp_path / "one"


def test_a_folder_without_a_network_is_refused(change: Change, tmp_path: Path) -> None:
    point = change({"use.first_stage": str(tmp_path)})
    with pytest.raises(
        UserError, match=r"use\.first_stage=.* holds no first_stage/config\.json: give a folder that does"
    ):
        plan([point])


def test_a_stage_outside_the_plan_is_refused(change: Change, tmp_path: Path) -> None:
    write_text(tmp_path / "first_stage" / "config.json", "{}")
    point = change({"use.first_stage": str(tmp_path)})
    point.store, point.stage = str(tmp_path), "train_vqgan"
    with pytest.raises(UserError, match="train_vqgan is not part of experiment=editing, which runs prepare_shards"):
        plan([point])


def folder_point(point: Config, root: Path) -> Config:
    """The point with the user's own photos as corpus."""
    write_text(root / "happy" / "a.jpg", "photo")
    point.data = FolderDataConfig(*("folder", 64), root=str(root), labeller="face_api", frame_stride=5, max_frames=10)
    point.data.align.landmarks = "auto"
    point.experts.emotion, point.experts.identity = "py_feat", "mobileface"
    return point


def test_a_corpus_is_known_by_content_not_by_place(change: Change, tmp_path: Path) -> None:
    here, there = (folder_point(change({}), tmp_path / name) for name in ("here", "there"))
    first, second = signatures([here, there], tmp_path / "store")
    assert first == second and "train_referee" not in first
    write_text(tmp_path / "there" / "sad" / "b.jpg", "another photo")
    first, second = signatures([here, there], tmp_path / "store")
    assert first["prepare_shards"] != second["prepare_shards"]


def test_a_labeller_may_not_judge(change: Change, tmp_path: Path) -> None:
    point = folder_point(change({}), tmp_path)
    assert isinstance(point.data, FolderDataConfig)
    point.data.label, point.experts.emotion = LabelFrom.pseudo, point.data.labeller
    with pytest.raises(UserError, match=r"experts\.emotion=face_api also labels the corpus"):
        plan([point])
    point.data.label = LabelFrom.folder
    plan([point])
    point.data.label, point.experts.emotion = LabelFrom.pseudo, "py_feat"
    plan([point])


def test_a_perceptual_loss_may_not_judge(change: Change, tmp_path: Path) -> None:
    point = change({"stages.train_vqgan.perceptual": "efficientnet_lite0"})
    point.store = str(tmp_path)
    with pytest.raises(UserError, match=r"experts\.perceptual=efficientnet_lite0 is also the perceptual loss"):
        plan([point])
    point.experts.perceptual = "lpips"
    plan([point])


def test_a_referee_needs_certain_labels(change: Change, tmp_path: Path) -> None:
    point = folder_point(change({}), tmp_path)
    point.experts.identity = "referee"
    with pytest.raises(UserError, match="experts=referee needs labels and identities that are certain"):
        plan([point])


def test_the_plan_settles_which_distance_judges(change: Change, tmp_path: Path) -> None:
    point = change({})
    point.store = str(tmp_path)
    assert point.experts.perceptual == "auto"
    for name in ("baseline", "evaluate"):
        assert plan([point])[1][0][name].config.experts.perceptual == "efficientnet_lite0"


def test_parts_feed_parts_and_reports_need_all(change: Change, tmp_path: Path) -> None:
    point = change({})
    point.store, point.cluster.parts = str(tmp_path), 3
    graph, (nodes,) = plan([point])
    edges = {name: {role: edge[0] for role, edge in node.parents.items()} for name, node in nodes.items()}
    assert edges["manipulate"]["latents"].each and edges["evaluate"]["images"].each  # type: ignore[union-attr]
    assert not edges["evaluate"]["reconstruction"].each  # type: ignore[union-attr]
    assert {node.parts for node in graph.nodes if CATALOG[node.kind].divisible} == {3}
    assert {node.parts for node in graph.nodes if not CATALOG[node.kind].divisible} == {1}
    assert nodes["manipulate"].config.targets == list(TARGETS)
    assert isinstance(nodes["train_ldm"].config.unet, UnetConfig)


def kinds_of(points: list[Config], store: Path) -> Counter[str]:
    """How many runs of each kind these points plan."""
    for point in points:
        point.store = str(store)
    return Counter(node.kind for node in plan(points)[0].nodes)


def test_drawn_faces_need_no_edit_and_real_ones_are_looked_at_once(change: Change, tmp_path: Path) -> None:
    points = [
        change({"experiment": Experiment.generation, "stages.generate.sampler.gamma": gamma}) for gamma in (1.0, 2.0)
    ]
    assert kinds_of(points, tmp_path) == {
        **dict.fromkeys(("prepare_shards", "train_vqgan", "encode_latents", "train_ldm", "report_generation"), 1),
        **dict.fromkeys(("generate", "judge_generation", "find_nearest"), 2),
        "extract_features": 3,
    }


@pytest.mark.parametrize(
    ("experiment", "key", "fits", "breaks", "told"),
    [
        (Experiment.editing, "evaluate", 8, 12, "stages.evaluate.batch_size=12 does not divide stages.reconstruct."),
        (Experiment.generation, "extract_features", 16, 24, "stages.extract_features.batch_size=24 does not divide"),
    ],
)
def test_blocks_that_would_hang_on_the_number_of_parts_are_refused(
    change: Change, tmp_path: Path, experiment: Experiment, key: str, fits: int, breaks: int, told: str
) -> None:
    point = change({"experiment": experiment, "store": str(tmp_path), f"stages.{key}.batch_size": fits})
    plan([point])
    with pytest.raises(UserError, match=re.escape(told)):
        plan([change({"experiment": experiment, "store": str(tmp_path), f"stages.{key}.batch_size": breaks})])


def test_a_classifier_is_trained_where_it_guides_and_shared_over_its_scales(change: Change, tmp_path: Path) -> None:
    scales = (0.0, 1.0, 2.0)
    points = [change({"experiment": Experiment.generation, "generation.classifier_scale": scale}) for scale in scales]
    found = kinds_of(points, tmp_path)
    assert (found["train_classifier"], found["generate"]) == (1, 3)


def test_interpolation_shares_the_encoded_faces_with_edits(change: Change, tmp_path: Path) -> None:
    points = [change({"experiment": Experiment.interpolation, "interpolation.eta": eta}) for eta in (0.0, 1.0)]
    found = kinds_of(points, tmp_path)
    assert (found["interpolate"], found["encode_latents"], found["report_interpolation"]) == (2, 2, 1)
    (of_edit,), (of_strip, _) = plan([change({"store": str(tmp_path)})])[1], plan(points)[1]
    assert of_edit["encode_val"].signature == of_strip["encode_val"].signature


def test_networks_of_sets_of_faces_change_no_judgement_of_edits(change: Change, tmp_path: Path) -> None:
    assert changed_names(change, tmp_path, {"experts.manifold_features": "efficientnet_lite0"}) == set()


def test_two_experiments_are_two_launches(change: Change, tmp_path: Path) -> None:
    points = [change({"experiment": experiment, "store": str(tmp_path)}) for experiment in Experiment]
    with pytest.raises(UserError, match="experiment=editing,generation,interpolation are several experiments"):
        plan(points)
