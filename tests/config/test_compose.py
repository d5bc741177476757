"""From a command line to typed sweep points, or to one sentence."""

import copy
import dataclasses
import logging
import operator
from pathlib import Path
from typing import Any

import pytest

from affect_hpc.config.cluster import ExecutorName
from affect_hpc.config.compose import CONFIG_FOLDER, collect
from affect_hpc.config.edit import Spacing
from affect_hpc.config.root import Config
from affect_hpc.core.emotions import TARGETS
from affect_hpc.core.errors import UserError
from affect_hpc.hpc.plans import plan


@pytest.fixture(scope="module")
def composed() -> Config:
    return collect([])[0]


@pytest.fixture
def base(composed: Config) -> Config:
    """The default point, to be spoilt."""
    return copy.deepcopy(composed)


def gammas(configs: list[Config]) -> list[float]:
    return [cfg.edit.gamma for cfg in configs]


def test_without_a_sweep_there_is_one_typed_point() -> None:
    (cfg,) = collect([])
    assert isinstance(cfg, Config) and cfg.sweep == "point" and cfg.stage == "report"
    assert cfg.cluster.executor is ExecutorName.local
    assert cfg.edit.targets == list(TARGETS)
    assert type(cfg.edit.targets) is list, "no OmegaConf type is left"


def test_short_keys_reach_the_stages_that_they_fix() -> None:
    words = ["seed=3", "edit.gamma=2.5", "edit.t0=400", "edit.targets=[sad]", "edit.num_samples=8"]
    (cfg,) = collect([*words, "model.condition.dim=32"])
    stages = cfg.stages
    assert stages.train_ldm.train.seed == stages.train_vqgan.train.seed == stages.train_referee.identity.seed == 3
    edit = stages.manipulate
    assert (edit.gamma, edit.t0, edit.targets) == (2.5, 400, ["sad"])
    assert (stages.evaluate.targets, stages.evaluate.num_samples) == (["sad"], 8)
    assert stages.invert_latents.t0 == 400 and stages.invert_latents.gamma == 2.5
    assert stages.train_ldm.condition.dim == 32
    assert stages.prepare_shards.data == cfg.data


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_a_sweep_file_sweeps_with_and_without_the_flag(flags: list[str]) -> None:
    configs = collect([*flags, "sweep=cfg_gamma"])
    assert gammas(configs) == [1, 2, 3, 4, 5]
    assert all(type(cfg.edit.gamma) is float for cfg in configs)
    assert [cfg.stages.manipulate.gamma for cfg in configs] == [1, 2, 3, 4, 5]
    assert {cfg.sweep for cfg in configs} == {"cfg_gamma"}


def test_an_axis_of_a_sweep_file_can_be_narrowed() -> None:
    assert gammas(collect(["sweep=cfg_gamma", "edit.gamma=2,4"])) == [2, 4]
    assert gammas(collect(["sweep=cfg_gamma", "edit.gamma=2"])) == [2]


def test_axes_multiply_in_order() -> None:
    configs = collect(["sweep=cfg_gamma", "edit.gamma=1,3", "edit.t0=400,500,600"])
    assert [(cfg.edit.gamma, cfg.edit.t0) for cfg in configs] == [(g, t) for g in (1, 3) for t in (400, 500, 600)]


def test_points_share_nothing() -> None:
    first, second = collect(["-m", "edit.gamma=1,2"])
    first.edit.targets.append("neutral")
    assert second.edit.targets == list(TARGETS)


def test_a_range_is_an_axis() -> None:
    assert [cfg.seed for cfg in collect(["-m", "seed=range(0,3)"])] == [0, 1, 2]


def test_a_group_is_an_axis() -> None:
    tiny, smoke = collect(["-m", "model=tiny,smoke"])
    assert (tiny.model.name, smoke.model.name) == ("tiny", "smoke")
    assert smoke.stages.train_vqgan.train.samples_total == 64, "values of the group reach other branches"
    assert tiny == collect(["model=tiny"])[0]


def test_a_sweep_point_equals_the_same_point_composed_alone() -> None:
    (alone,) = collect(["edit.gamma=4", "edit.t0=500", "edit.num_steps=40"])
    swept = collect(["sweep=cfg_gamma"])[3]
    reports = ("report", "report_generation", "report_interpolation")
    titled = {name: dataclasses.replace(getattr(swept.stages, name), title=alone.sweep) for name in reports}
    assert dataclasses.replace(swept.stages, **titled) == alone.stages


def test_names_of_groups_may_look_like_numbers() -> None:
    (cfg,) = collect(["zero=2"])
    assert cfg.stages.train_ldm.train.zero_stage == cfg.stages.train_vqgan.train.zero_stage == 2
    stages = [cfg.stages.train_ldm.train.zero_stage for cfg in collect(["-m", "zero=0,3"])]
    assert stages == [0, 3]


def test_experts_follow_the_corpus() -> None:
    assert collect([])[0].experts.emotion == "referee"
    assert collect(["data=folder", "data.root=/photos"])[0].experts.emotion != "referee"


def test_a_dictionary_takes_new_keys() -> None:
    (cfg,) = collect(["+cluster.env.LANG=C", "+cluster.extra.nice=10"])
    assert cfg.cluster.env["LANG"] == "C" and cfg.cluster.extra == {"nice": "10"}


def test_hydra_leaves_no_file_and_no_logging_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = (list(logging.getLogger().handlers), logging.getLogger().level)
    collect([])
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIG_FOLDER / "sweep").glob("*.yaml")))
def test_every_sweep_file_is_a_sweep_of_its_name(name: str) -> None:
    configs = collect([f"sweep={name}"])
    assert {cfg.sweep for cfg in configs} == {name}
    assert len(configs) > 1 or name == "table_4_1", "one setting is a whole table there"
    for cfg in configs:
        cfg.check()


@pytest.mark.parametrize("group", ["model", "cluster"])
def test_every_file_of_a_group_composes_and_is_in_range(group: str) -> None:
    names = sorted(path.stem for path in (CONFIG_FOLDER / group).glob("*.yaml"))
    configs = collect(["-m", f"{group}={','.join(names)}"])
    assert len(configs) == len(names) > 1
    for cfg in configs:
        cfg.check()


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("edit.gama=3", ["edit.gama", "did you mean edit.gamma"]),
        ("stages.train_ldm.train.learning_rate=1", ["stages.train_ldm.train.learning_rate is unknown"]),
        ("data.trian_samples=9", ["data.trian_samples", "data.train_samples"]),
        ("nonsense_key=1", ["nonsense_key", "edit", "stages", "store"]),
        ("+edit.sharpness=1", ["edit.sharpness", "gamma", "t0"]),
        ("sweep=nope", ["sweep=nope", "cfg_gamma", "ddim_steps", "smoke"]),
        ("sweep=null", ["sweep=null is unknown", "cfg_gamma"]),
        ("model=huge", ["model=huge", "tiny", "thesis"]),
        ("cluster=pbs", ["cluster=pbs", "inline", "local", "slurm"]),
        ("stage=train", ["stage=train", "train_ldm", "report"]),
        ("zero=4", ["zero=4", "0, 1, 2, 3"]),
        ("cluster.executor=magic", ["cluster.executor=magic", "inline, local, slurm"]),
        ("stages.train_ldm.train.precision=fp8", ["precision=fp8", "fp32, bf16"]),
        ("edit.t0=abc", ["edit.t0=abc", "Integer"]),
        ("stages.train_ldm.train.lr=fast", ["stages.train_ldm.train.lr=fast", "Float"]),
        ("edit.gamma=1,2", ["edit.gamma", "-m"]),
        ("data=folder", ["data.root", "data.root=VALUE"]),
    ],
)
def test_a_wrong_word_is_answered_in_one_sentence(word: str, told: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        collect([word])
    message = str(caught.value)
    assert all(text in message for text in told), message
    assert "\n" not in message and message.endswith((".", "?")) and "full_key" not in message


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("edit.t0", 1000, "edit.t0=1000 is out of range: give a value from 2 to 999."),
        ("edit.gamma", 0.5, "edit.gamma=0.5 is out of range: give a value from 1 to 100."),
        ("edit.encode_gamma", "some", "edit.encode_gamma='some' is unknown: give 'same' or a number from 1 to 100."),
        ("edit.num_steps", 501, "edit.num_steps=501 is out of range: give a value from 2 to 500."),
        ("edit.t0", 60, "edit.num_steps=40 up to level 60 with spacing=linspace visits the levels [1, 1, 3,"),
        ("edit.num_steps", 400, "edit.num_steps=400 up to level 500 with spacing=linspace visits the levels [1, 1, 2,"),
        ("interpolation.t0", 20, "interpolation.num_steps=20 up to level 20 with spacing=linspace visits"),
        ("edit.targets", ["joy"], "edit.targets='joy' is unknown: the valid values are neutral, happy, sad,"),
        ("edit.targets", [], "edit.targets is empty: give a list out of neutral, happy,"),
        ("edit.targets", ["sad", "sad"], "names an emotion twice"),
        ("cluster.parts", 0, "cluster.parts=0 is out of range"),
        ("cluster.max_array_size", 1, "cluster.max_array_size=1 is out of range"),
        ("data.size", 16, "data.size=16 px is out of range: give a value from 32 to 1024."),
        ("data.train_samples", 2_000_000, "data.train_samples=2e+06 is out of range: give a value from 8 to 1e+06."),
        ("stages.train_ldm.train.zero_stage", 4, "stages.train_ldm.train.zero_stage=4 is out of range"),
        ("stages.train_ldm.train.micro_batch_size", 10_000, "stages.train_ldm.train.micro_batch_size=10000 is out of"),
        ("stages.train_referee.identity.lr", 0.0, "stages.train_referee.identity.lr=0 is out of range"),
        ("model.diffusion.prediction", "v", "model.diffusion.prediction='v' is unknown: the valid values are eps."),
    ],
)
def test_a_value_out_of_range_is_answered_in_one_sentence(base: Config, key: str, value: Any, told: str) -> None:
    branch, _, leaf = key.rpartition(".")
    setattr(operator.attrgetter(branch)(base), leaf, value)
    with pytest.raises(UserError) as caught:
        base.check()
    message = str(caught.value)
    assert told in message
    assert "\n" not in message and message.endswith(".")


def test_levels_of_a_sampler_that_do_not_rise_are_refused(base: Config) -> None:
    base.sampler.num_steps, base.sampler.spacing = 600, Spacing.linspace
    with pytest.raises(UserError, match=r"sampler\.num_steps=600 up to level 999 with spacing=linspace visits"):
        base.check()


def test_an_unknown_stage_is_answered_with_all_stages(base: Config) -> None:
    base.stage = "train"
    told = r"stage='train' is unknown: the valid values are prepare_shards, .*report, .*\.$"
    with pytest.raises(UserError, match=told):
        plan([base])
