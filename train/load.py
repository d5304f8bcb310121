"""Configs from arms, files and the command line, and back."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from coldrank.data.errors import UserError
from coldrank.train.arms import candidates, find_arm
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig
from coldrank.train.idle import idle_problem
from coldrank.train.overrides import override, with_new_names

_ADAPTER = TypeAdapter(RunConfig)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as plain JSON values."""
    result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return result


def from_dict(values: dict[str, Any], source: str = "config") -> RunConfig:
    """Builds and validates a config. Raises UserError that names the field, the value and what would be right."""
    try:
        config = _ADAPTER.validate_python(with_new_names(values) if isinstance(values, dict) else values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the config"
        value = "" if first["type"] == "missing" else f"={first['input']!r}"
        raise UserError(f"{source}: {where}{value}: {first['msg'].lower()}") from None
    validate(config)
    return config


def load(source: str, overrides: list[str] | None = None) -> RunConfig:
    """Loads `package.module:function`, `package.module` for the arm that it names in `DEFAULT`, or a `config.json`, then applies
    `a.b=c` overrides, then validates. Raises UserError on one line."""
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
    if overrides and not isinstance(values, dict):
        raise UserError(f"--config {source}: is no config: a {type(values).__name__}")
    values = with_new_names(values) if isinstance(values, dict) else values
    for text in overrides or []:
        override(values, text)
    config = from_dict(values, source)
    if wrong := idle_problem(config, [text.partition("=")[0] for text in overrides or []]):
        raise UserError(f"{config.name}: {wrong}")
    return config


def arms(module: ModuleType) -> dict[str, Callable[[], RunConfig]]:
    """What may be an arm in a config module, by name; none is called."""
    return candidates(module, RunConfig)
