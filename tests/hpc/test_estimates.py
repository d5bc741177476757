"""What the plan says of a run before it starts, and what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from estimating import CPU, estimated
from omegaconf import OmegaConf
from rich.console import Console

from affect_hpc.config.cluster import ClusterConfig, Resources
from affect_hpc.config.compose import CONFIG_FOLDER
from affect_hpc.config.root import Config
from affect_hpc.config.sizes import encoder_size, unet_size
from affect_hpc.config.train import EngineName, Precision, TrainConfig
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import write_json, write_text
from affect_hpc.hpc.advice import amount, described, warnings
from affect_hpc.hpc.estimates import DEEPSPEED_BUCKET, estimate, training_memory
from affect_hpc.hpc.graph import Node
from affect_hpc.hpc.planner import PACKAGED
from affect_hpc.hpc.plans import plan
from affect_hpc.hpc.render import plan_tree
from affect_hpc.hpc.submit import decide, write_run

Change = Callable[..., Config]


def training(**values: object) -> TrainConfig:
    return TrainConfig(**{"global_batch_size": 8, "samples_total": 80, "lr": 1e-3, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize(
    ("stage", "whole", "shared"),
    [
        (0, 4 + 4 + 8, 0),  # weights, gradients, moments on every rank
        (1, 4 + 4, 12),  # moments divided, with a master copy
        (2, 4, 4 + 12),
        (3, 4, 4 + 4 + 12),  # weights divided too, and gathered to be used
    ],
)
def test_zero_divides_what_it_says(stage: int, whole: int, shared: int, ranks: int) -> None:
    memory = training_memory(1000, training(zero_stage=stage), ranks, on_gpu=True)
    assert memory.pop("ZeRO's buffer") == (DEEPSPEED_BUCKET if stage else 0)
    assert sum(memory.values()) == 1000 * (whole + shared / ranks)


def test_the_plain_engine_divides_nothing_and_half_precision_keeps_copies() -> None:
    plain = training(engine=EngineName.plain, zero_stage=3)
    assert training_memory(1000, plain, 1, True) == training_memory(1000, training(), 1, True)
    half = training_memory(1000, training(precision=Precision.bf16), 1, True)
    assert sum(half.values()) == 1000 * (16 + 2)


def test_a_buffer_on_a_cpu_takes_what_is_written_to_it() -> None:
    assert training_memory(1000, training(zero_stage=1), 2, on_gpu=False)["ZeRO's buffer"] == 4000


def test_the_thesis_denoiser(thesis: dict[str, Node]) -> None:
    found = estimated(thesis["train_ldm"])
    cfg = thesis["train_ldm"].config
    size = unet_size(cfg.unet, cfg.condition, 3, 32)
    assert found.parameters == 156_760_483 + 9 * 512
    assert found.flops == 2 * size.macs
    assert found.flops_run == pytest.approx(1.19e18, rel=0.01), "138 GFLOP for each of 8.6 million samples"
    assert found.memory["activations"] == 24 * size.saved_mixed
    assert found.memory["average"] == 4 * found.parameters
    assert found.memory["weights"] == 4 * (found.parameters + 60_605_598), "the frozen first stage is there as well"


def test_more_ranks_have_smaller_batches(thesis: dict[str, Node]) -> None:
    one, four = (estimated(thesis["train_ldm"], Resources(nodes=n, tasks_per_node=2)) for n in (1, 2))
    assert (one.batch, four.batch) == (12, 6)
    assert one.memory["activations"] == 2 * four.memory["activations"]
    assert one.flops_run == four.flops_run


def test_checkpointing_and_encoding_cost_arithmetic(thesis: dict[str, Node]) -> None:
    node = thesis["train_ldm"]
    plain = estimated(node)
    again = estimated(replace(node, config=replace(node.config, gradient_checkpointing=True)))
    assert again.flops_run == plain.flops_run * 4 / 3
    assert again.memory["activations"] < plain.memory["activations"] / 2
    parents = {role: edges for role, edges in node.parents.items() if role != "latents"}
    encodes = estimated(replace(node, parents=parents))
    first_stage = thesis["train_vqgan"].config.first_stage
    samples = node.config.train.samples_total
    assert encodes.flops_run - plain.flops_run == pytest.approx(2.0 * encoder_size(first_stage, 128).macs * samples)


def test_the_thesis_first_stage(thesis: dict[str, Node]) -> None:
    node = thesis["train_vqgan"]
    found = estimated(node)
    assert found.parameters == 60_605_598 + 2_765_633
    samples = node.config.train.samples_total
    without = {"disc_start": -1, "perceptual": "none"}
    bare = estimated(replace(node, config=replace(node.config, **without)))
    assert bare.flops_run == 3 * bare.flops * samples
    late = estimated(replace(node, config=replace(node.config, disc_start=10**9, perceptual="none")))
    assert late.flops_run == bare.flops_run, "a discriminator that never starts computes nothing"
    assert bare.flops_run < found.flops_run < 1.1 * bare.flops_run


def test_the_referee_is_two_trainings(thesis: dict[str, Node]) -> None:
    node = thesis["train_referee"]
    found = estimated(node)
    half = estimated(
        replace(node, config=replace(node.config, identity=replace(node.config.identity, samples_total=0)))
    )
    assert found.flops_run == pytest.approx(3 * half.flops_run, rel=0.01), "the identity judge sees pairs"
    assert found.batch == 2 * node.config.identity.global_batch_size


def test_stages_without_networks_of_ours_are_not_estimated(
    thesis: dict[str, Node], slurm_cluster: ClusterConfig
) -> None:
    for kind in ("prepare_shards", "evaluate", "reduce"):
        assert estimate(thesis[kind], CPU) is None
        assert described([thesis[kind]], slurm_cluster) == []


def test_a_given_first_stage_is_read_from_its_folder(change: Change, tmp_path: Path) -> None:
    point = change({"use.first_stage": "package:demo_64"})
    point.store = str(tmp_path)
    found = estimated(plan([point])[1][0]["encode_latents"])
    tiny = OmegaConf.load(CONFIG_FOLDER / "model" / "tiny.yaml").model.first_stage
    assert found.parameters == 1_489_342
    assert found.flops == 2 * encoder_size(OmegaConf.to_object(OmegaConf.merge(point.model.first_stage, tiny)), 64).macs


def test_given_networks_of_any_make_are_no_reason_to_fail(change: Change, tmp_path: Path) -> None:
    write_text(tmp_path / "other" / "first_stage" / "config.json", "{}")
    point = change({"use.first_stage": str(tmp_path / "other")})
    point.store = str(tmp_path)
    assert estimate(plan([point])[1][0]["train_ldm"], CPU) is None


def test_a_given_denoiser_is_read_from_its_folder(change: Change, tmp_path: Path) -> None:
    point = change({})
    point.store, point.use.first_stage = str(tmp_path), "package:demo_64"
    trained = plan([point])[1][0]
    unet = trained["train_ldm"].config.unet
    levels_with = ["CrossAttnDownBlock2D" if i in unet.attention_levels else "DownBlock2D" for i in range(3)]
    config = {"block_out_channels": unet.block_out_channels, "layers_per_block": 1, "norm_num_groups": 16}
    write_json(tmp_path / "ldm" / "unet" / "config.json", {**config, "down_block_types": levels_with})
    description = {"condition": vars(point.model.condition), "diffusion": {"num_timesteps": 1000}}
    write_json(tmp_path / "ldm" / "ldm.json", description)
    point.use.ldm = str(tmp_path / "ldm")
    given = plan([point])[1][0]
    assert PACKAGED.exists() and "train_ldm" not in given
    for kind in ("invert_latents", "manipulate"):
        assert estimated(given[kind]) == estimated(trained[kind])


def test_the_plan_in_words(thesis: dict[str, Node], slurm_cluster: ClusterConfig) -> None:
    work, memory = described([thesis["train_ldm"]], slurm_cluster)
    assert work == (
        "157 M parameters, 46 GFLOP a sample forward, 1.19 EFLOP in all:"
        " 2.4-4.2 GPU hours at 25-45 % of 312 TFLOP/s (bf16)"
    )
    assert memory == (
        "7.4 GB a rank at micro batch 24: weights 0.9, gradients 0.6, optimiser 1.3, half-precision copies 0.3,"
        " average 0.6, activations 3.8"
    )
    slurm_cluster.peak_tflops = {}
    assert described([thesis["train_ldm"]], slurm_cluster)[0].endswith("1.19 EFLOP in all")
    cheap = replace(thesis["manipulate"], config=replace(thesis["manipulate"].config, gamma=1.0))
    assert "14.1-23.3 TFLOP a face" in described([cheap, thesis["manipulate"]], slurm_cluster)[0]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 "), (999, "999 "), (999.6, "1 k"), (156.7e6, "157 M"), (1.19e18, "1.19 E")]
)
def test_amounts_have_three_digits(value: float, text: str) -> None:
    assert amount(value) == text


@pytest.mark.parametrize(
    ("ranks", "stage", "text"),
    [
        (1, 0, ""),
        (4, 0, ""),
        (1, 3, "zero_stage=3 is pointless here: one rank has nobody to share with; take zero=0, or more ranks."),
        (
            4,
            3,
            "on 4 ranks it saves 0.9 of 2.8 GB a rank and sends all weights twice a step; take zero=0.",
        ),
        (64, 2, "for 157 M parameters on 64 ranks it saves 1.6 of 2.8 GB a rank; take zero=0."),
    ],
)
def test_zero_of_a_small_network_is_pointless(
    thesis: dict[str, Node], slurm_cluster: ClusterConfig, ranks: int, stage: int, text: str
) -> None:
    node = thesis["train_ldm"]
    node = replace(node, config=replace(node.config, train=replace(node.config.train, zero_stage=stage)))
    slurm_cluster.resources["train"].tasks_per_node = ranks
    found = list(warnings(node, slurm_cluster))
    assert len(found) == (1 if text else 0) and all(line.endswith(text) for line in found)


def test_zero_of_a_large_network_is_not(thesis: dict[str, Node], slurm_cluster: ClusterConfig) -> None:
    node = thesis["train_ldm"]
    wide = replace(node.config.unet, block_out_channels=[640, 1280, 2560])
    config = replace(node.config, unet=wide, train=replace(node.config.train, zero_stage=3))
    slurm_cluster.resources["train"].tasks_per_node = 4
    assert list(warnings(replace(node, config=config), slurm_cluster)) == []


def test_a_job_that_will_not_fit_is_named(thesis: dict[str, Node], slurm_cluster: ClusterConfig) -> None:
    asked = slurm_cluster.resources["infer"]
    asked.mem_gb = 4
    assert list(warnings(thesis["manipulate"], slurm_cluster)) == [], "what a GPU has is not known"
    asked.gpus_per_node = 0
    assert list(warnings(thesis["manipulate"], slurm_cluster)) == [], "a CPU takes a batch in shares"
    asked.mem_gb = 1
    (line,) = warnings(thesis["manipulate"], slurm_cluster)
    assert line.startswith("manipulate needs about 1.1 GB a node and asks for 1: ")
    asked.mem_gb = 48
    assert list(warnings(thesis["manipulate"], slurm_cluster)) == []


def refused(change: Change, tmp_path: Path, values: dict[str, object], ranks: int = 1) -> Config:
    point = change(values)
    point.store = str(tmp_path)
    point.cluster.resources["train"].tasks_per_node = ranks
    return point


@pytest.mark.parametrize(
    ("values", "ranks", "message"),
    [
        ({"stages.train_vqgan.train.zero_stage": 3}, 1, r"stages\.train_vqgan\.train\.zero_stage=3 is too high"),
        (
            {
                "stages.train_ldm.train.engine": EngineName.plain,
                "stages.train_vqgan.train.engine": EngineName.deepspeed,
            },
            2,
            r"stages\.train_ldm\.train\.engine=plain runs on one process, cluster\.resources asks for 2",
        ),
        (
            {"stages.train_ldm.train.micro_batch_size": 5},
            1,
            r"stages\.train_ldm\.train\.global_batch_size=32 is no multiple of micro_batch_size=5 times 1 ranks",
        ),
    ],
)
def test_what_no_engine_can_do_is_refused_by_the_plan(
    change: Change, tmp_path: Path, values: dict[str, object], ranks: int, message: str
) -> None:
    point = refused(change, tmp_path, values, ranks)
    # Only what runs before the asked stage is looked at.
    point.stage = "train_ldm" if "train_ldm" in message else "train_vqgan"
    with pytest.raises(UserError, match=message):
        plan([point])
    point.stage = "prepare_shards"
    plan([point])


def test_a_finished_training_is_not_refused(change: Change, tmp_path: Path) -> None:
    point = refused(change, tmp_path, {"stages.train_vqgan.train.zero_stage": 3})
    point.stage = "prepare_shards"
    node = plan([point])[1][0]["train_vqgan"]
    point.stage = "train_vqgan"
    with pytest.raises(UserError, match="too high"):
        plan([point])
    (write_run(node, tmp_path).path / "DONE").write_text("{}")
    plan([point])


def test_the_tree_says_it_below_what_is_to_run(composed_thesis: Config, tmp_path: Path) -> None:
    point = replace(composed_thesis, store=str(tmp_path), stage="train_ldm")
    graph, _ = plan([point])
    decisions = decide(graph, tmp_path, lambda job: False, True, 3)
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"), soft_wrap=True)
    console.print(plan_tree(graph, decisions, point.cluster, "title"))
    text = " ".join(console.export_text().replace("│", " ").replace("└──", " ").split())
    assert "1.19 EFLOP in all: 2.4-4.2 GPU hours at 25-45 % of 312 TFLOP/s (bf16)" in text, "long lines are wrapped"
    for node in graph.nodes:
        (write_run(node, tmp_path).path / "DONE").write_text("{}")
    done = decide(graph, tmp_path, lambda job: False, True, 3)
    console.print(plan_tree(graph, done, point.cluster, "title"))
    assert "FLOP" not in console.export_text().partition("title")[2].partition("title")[2]
