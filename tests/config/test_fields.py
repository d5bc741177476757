"""Laws of the config classes themselves."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import affect_hpc.config
from affect_hpc.config import checks
from affect_hpc.config.cluster import ClusterConfig, Resources
from affect_hpc.config.compose import keys_of
from affect_hpc.config.edit import EditConfig
from affect_hpc.config.root import Config
from affect_hpc.core.errors import UserError
from affect_hpc.hpc.catalog import CATALOG


def config_classes() -> list[type[Any]]:
    """Dataclasses of affect_hpc.config whose names say that they are configs."""
    found: dict[str, type[Any]] = {}
    for module in pkgutil.iter_modules(affect_hpc.config.__path__):
        for name, one in vars(importlib.import_module(f"affect_hpc.config.{module.name}")).items():
            if inspect.isclass(one) and dataclasses.is_dataclass(one) and name.endswith(("Config", "Resources")):
                found[name] = one
    return list(found.values())


CLASSES = config_classes()


def test_all_stage_configs_are_looked_at() -> None:
    assert {spec.config for spec in CATALOG.values()} | {Config, Resources} <= set(CLASSES)


@pytest.mark.parametrize("config", CLASSES, ids=lambda config: config.__name__)
def test_every_attribute_is_an_annotated_field(config: type[Any]) -> None:
    # An attribute without annotation is no field: its override would be refused and its value never hashed.
    public = {name: one for name, one in vars(config).items() if not name.startswith("_")}
    values = {name for name, one in public.items() if not inspect.isroutine(one) and not isinstance(one, property)}
    assert values <= {field.name for field in dataclasses.fields(config)}


@pytest.mark.parametrize("config", CLASSES, ids=lambda config: config.__name__)
def test_checks_come_after_conversion(config: type[Any]) -> None:
    # __post_init__ also runs on "???" and "${...}" when the schema is registered.
    assert not hasattr(config, "__post_init__")
    OmegaConf.structured(config)


@pytest.mark.parametrize("config", CLASSES, ids=lambda config: config.__name__)
def test_types_are_those_that_survive_conversion(config: type[Any]) -> None:
    tree = ast.parse(Path(inspect.getfile(config)).read_text())
    body = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == config.__name__)
    words = {
        name.id
        for node in body.body
        if isinstance(node, ast.AnnAssign)
        for name in ast.walk(node.annotation)
        if isinstance(name, ast.Name)
    }
    assert not words & {"Literal", "tuple", "Path", "Optional", "set"}, words


def test_enums_differ_by_value_so_that_none_is_an_alias() -> None:
    for module in pkgutil.iter_modules(affect_hpc.config.__path__):
        for one in vars(importlib.import_module(f"affect_hpc.config.{module.name}")).values():
            if inspect.isclass(one) and issubclass(one, Enum) and one is not Enum:
                assert len(one.__members__) == len(list(one)), one


def test_keys_of_a_schema_go_to_the_leaves() -> None:
    keys = keys_of(Config)
    assert {"edit", "edit.gamma", "stages.train_ldm.train.lr", "cluster.max_array_size"} <= set(keys)


def test_the_encoding_scale_follows_the_decoding_scale_or_stands_alone() -> None:
    assert EditConfig(gamma=4.0).resolved_encode_gamma() == 4.0
    assert EditConfig(gamma=4.0, encode_gamma=1).resolved_encode_gamma() == 1.0


def test_a_stage_entry_comes_before_its_class() -> None:
    cpu, own = Resources(cpus_per_task=1), Resources(cpus_per_task=7)
    cluster = ClusterConfig(resources={"train": cpu, "train_ldm": own})
    assert cluster.resources_of("train_ldm", "train") is own
    assert cluster.resources_of("train_vqgan", "train") is cpu
    with pytest.raises(UserError, match="has no entry 'infer': it has train, train_ldm"):
        cluster.resources_of("evaluate", "infer")


def test_bounds_belong_to_the_range() -> None:
    checks.in_range("key", 1, 1, 2)
    checks.in_range("key", 2, 1, 2)
    with pytest.raises(UserError, match=r"^key=2\.5 px is out of range: give a value from 1 to 2\.$"):
        checks.in_range("key", 2.5, 1, 2, "px")
    with pytest.raises(UserError, match="out of range"):
        checks.in_range("key", float("nan"), 1, 2)
    with pytest.raises(UserError, match=r"^key='c' is unknown: the valid values are a, b\.$"):
        checks.one_of("key", "c", iter(["a", "b"]))
