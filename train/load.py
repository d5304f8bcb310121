"""Configs from arms, files and the command line, and back."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from coldrank.data.errors import UserError
from coldrank.train.arms import candidates, find_arm
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig, parse, to_dict
from coldrank.train.former import with_new_names
from coldrank.train.idle import idle_problem
from coldrank.train.overrides import override_all


def from_dict(values: dict[str, Any], source: str = "config") -> RunConfig:
    """Builds and validates a config. Raises UserError that names the field, the value and what would be right."""
    if not isinstance(values, dict):
        raise UserError(f"{source}: is no config: a {type(values).__name__}")
    config = parse(with_new_names(values), source)
    validate(config)
    return config


def load(source: str, overrides: list[str] | None = None) -> RunConfig:
    """Loads `package.module:function`, `package.module` for the arm that it names in `DEFAULT`, or a `config.json`,
    then applies `a.b=c` overrides, then validates. Raises UserError on one line."""
    if source.endswith(".json"):
        try:
            values = json.loads(Path(source).read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"--config {source}: {error}") from None
    else:
        config = find_arm(source, RunConfig)
        try:
            values = to_dict(config)
        except (TypeError, ValueError) as error:
            raise UserError(f"--config {source}: a field holds what a config.json cannot: {error}") from None
    if overrides:
        if not isinstance(values, dict):
            raise UserError(f"--config {source}: is no config: a {type(values).__name__}")
        values = override_all(with_new_names(values), overrides)
    config = from_dict(values, source)
    if wrong := idle_problem(config, [text.partition("=")[0] for text in overrides or []]):
        raise UserError(f"{config.name}: {wrong}")
    return config


def arms(module: ModuleType) -> dict[str, Callable[[], RunConfig]]:
    """What may be an arm in a config module, by name; none is called."""
    return candidates(module, RunConfig)
