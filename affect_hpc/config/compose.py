"""One line turns config into types: Hydra composes the points of a sweep and leaves the stage."""

import copy
import dataclasses
import difflib
import itertools
import os
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from affect_hpc.config.corpora import CORPORA
from affect_hpc.config.root import Config, register
from affect_hpc.core.errors import UserError

CONFIG_FOLDER = Path(__file__).parent.parent.parent / "hydra_configs"


Axis = list[tuple[str, Any]]
"""The values of one swept key, each as (key, value)."""


def collect(arguments: list[str]) -> list[Config]:
    """The typed config of every sweep point, in order; empty where Hydra only had to answer (``--help``).

    Hydra composes the first point; the others differ from it in plain values, which are set on copies: composing each
    anew would take ten times as long. An axis over a group (``model=tiny,smoke``) is composed once per choice.

    Args:
        arguments: Hydra's command line, without the program's name.

    Raises:
        UserError: unknown key, group or value, or a value of the wrong type.
    """
    register()
    # Hydra would print its own report and end the process; the exception says it in one sentence.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        return _collect(arguments)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error


def _collect(arguments: list[str]) -> list[Config]:
    words = [word for word in arguments if "=" in word and not word.startswith("-")]
    flags = [word for word in arguments if word not in words and word not in ("-m", "--multirun")]
    overrides = OverridesParser.create().parse_overrides(words)
    fixed = [_plain(override) for override in overrides if not override.is_sweep_override()]
    swept = {override.get_key_element(): override for override in overrides if override.is_sweep_override()}
    groups = {key: list(one.sweep_string_iterator()) for key, one in swept.items() if _is_group(key)}
    points: list[Config] = []
    for choice in itertools.product(*([f"{key}='{name}'" for name in names] for key, names in groups.items())):
        composed = _compose([*flags, *fixed, *choice])
        if composed is None:
            return []
        base, params, is_sweep = composed
        if swept and not (is_sweep or "-m" in arguments or "--multirun" in arguments):
            raise UserError(f"{next(iter(swept))} has several values: add -m to run one sweep point for each.")
        named = {override.get_key_element() for override in overrides}
        axes = [_axis(key, str(text)) for key, text in params.items() if key not in named]
        axes += [_axis(key, str(one.input_line).partition("=")[2]) for key, one in swept.items() if key not in groups]
        for values in itertools.product(*axes):
            cfg = copy.deepcopy(base) if axes else base
            for key, value in values:
                OmegaConf.update(cfg, key, value)
            points.append(typed(cfg))
    return points


def _plain(override: Override) -> str:
    line = override.input_line or ""
    if not _is_group(override.key_or_group) or not isinstance(override.value(), int | float | None):
        return line
    # Hydra takes the name of a group's file for a number or for nothing where it looks like it (zero=2, sweep=null).
    key, _, name = line.partition("=")
    return f"{key}='{name}'"


def _is_group(key: str) -> bool:
    return (CONFIG_FOLDER / key).is_dir()


def _axis(key: str, text: str) -> Axis:
    override = OverridesParser.create().parse_override(f"{key}={text}")
    if not override.is_sweep_override():
        return [(key, override.value())]
    words = [key + "=" + str(one) for one in override.sweep_string_iterator()]
    each = OverridesParser.create().parse_overrides(words)
    return [(key, one.value()) for one in each]


def _compose(words: list[str]) -> tuple[DictConfig, dict[str, str], bool] | None:
    """One config with its interpolations, the axes of its sweep file, and whether it has such a file."""
    found: list[tuple[DictConfig, dict[str, str], bool]] = []

    @hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name="config")
    def point(cfg: DictConfig) -> None:
        sweeper = HydraConfig.get().sweeper
        found.append((cfg, dict(sweeper.params or {}), cfg.sweep != "point"))

    program, sys.argv = sys.argv, ["python -m affect_hpc.launch", *words, "hydra.mode=RUN"]
    try:
        point()
    finally:
        sys.argv = program
    return found[0] if found else None


def typed(cfg: DictConfig) -> Config:
    """The resolved config as dataclasses. After this line no DictConfig exists."""
    converted: Any = OmegaConf.to_object(cfg)
    assert isinstance(converted, Config)
    _refuse_extra(converted, "")
    return converted


def _refuse_extra(part: Any, prefix: str) -> None:
    """OmegaConf lets a key through that was added with ``+``; no field would hold it."""
    names = [field.name for field in dataclasses.fields(part)]
    for name, value in vars(part).items():
        if name not in names:
            raise UserError(f"the key {prefix}{name} is unknown: valid ones are {', '.join(names)}.")
        if dataclasses.is_dataclass(value):
            _refuse_extra(value, f"{prefix}{name}.")


def keys_of(config_class: type[Any], prefix: str = "") -> list[str]:
    """All dotted keys of a schema."""
    node = OmegaConf.structured(config_class)
    found: list[str] = []

    def walk(part: DictConfig, path: str) -> None:
        for name in map(str, part):
            here = f"{path}{name}"
            found.append(here)
            child = part._get_node(name)
            if isinstance(child, DictConfig) and not child._is_missing() and not child._is_none():
                walk(child, f"{here}.")

    walk(node, prefix)
    return found


def explain(error: Exception) -> str:
    """Hydra's and OmegaConf's exceptions as one sentence that names the valid values."""
    texts = [str(one) for one in (error, error.__cause__) if one is not None]
    text = " ".join(" ".join(texts).split())
    missing_group = re.search(r"Could not find '([\w/\-]+)'|In '[^']+': Could not find '([^']+)'", text)
    if missing_group:
        group, _, name = (missing_group[1] or missing_group[2]).rpartition("/")
        valid = sorted(path.stem for path in (CONFIG_FOLDER / group).glob("*.yaml"))
        return f"{group}={name} is unknown: the valid values are {', '.join(valid)}."
    overridden = re.search(r"Could not override '([\w.@/\-]+)'", text)
    full_key = re.search(r"full_key: ([\w.\[\]]+)", text)
    if overridden or re.search(r"Key '\w+' (?:is )?not in", text):
        key = overridden[1] if overridden else full_key[1] if full_key else "?"
        known = list(dict.fromkeys(keys_of(Config) + _data_keys()))
        close = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
        siblings = sorted(
            {name.rsplit(".", 1)[-1] for name in known if name.rpartition(".")[0] == key.rpartition(".")[0]}
        )
        hint = f"did you mean {' or '.join(close)}?" if close else f"valid ones are {', '.join(siblings[:40])}."
        return f"the key {key} is unknown: {hint}"
    absent = re.search(r"missing mandatory value: \w+", text)
    if absent and full_key:
        return f"{full_key[1]} has no value: give it on the command line, {full_key[1]}=VALUE."
    merging = re.match(r"Error merging override (\S+) (.*?)(?: full_key:.*)?$", text)
    if merging:
        return f"{merging[1]}: {merging[2].rstrip('.')}."
    return text.split(" full_key:")[0].split(" See https:")[0].rstrip(".") + (f" ({full_key[1]})." if full_key else ".")


def _data_keys() -> list[str]:
    return [key for corpus in CORPORA.values() for key in keys_of(corpus, "data.")]
