"""Every field of a config with its value, its default and its meaning, which is the docstring under the field."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, NamedTuple

from coldrank.train.config import NAMED, RunConfig
from coldrank.train.sections import Section

# Sections that hold fields; others are fields themselves.
_SECTIONS = ("retrieval", "data", "optim", "train", "cohorts", "sharding")


class Described(NamedTuple):
    """A field of a config."""

    path: str
    """As `--set` names it."""
    value: Any
    """Of the config."""
    default: Any
    """Of the class; MISSING where a value has to be given."""
    meaning: str
    """In words."""

    @property
    def changed(self) -> bool:
        """Whether the value is another than the default."""
        return bool(self.value != self.default)


def described(config: RunConfig) -> list[Described]:
    """The fields in the order of the class; those of tasks, model, hooks and metrics by their names. Features and
    tables are one entry each, with what differs from their class's defaults."""
    return list(_described(config))


def _described(config: RunConfig) -> Iterator[Described]:
    meaning = meanings(RunConfig)
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name == "tasks":
            for name, head in value.items():
                yield Described(f"tasks.{name}", head.kind(), MISSING, meaning[field.name])
                yield from _of(head, f"tasks.{name}")
        elif field.name == "model":
            yield Described("model", value.kind(), _default(field).kind(), meaning[field.name])
            yield from _of(value, "model")
        elif field.name in NAMED:
            names = [part.short_name() for part in value]
            yield Described(field.name, names, [], meaning[field.name])
            for part in value:
                yield from _of(part, part.short_name())
        elif field.name in ("features", "tables"):
            for part in value:
                given = {f.name: getattr(part, f.name) for f in fields(part) if f.name != "name"}
                given = {n: v for n, v in given.items() if v != _default(_field(part, n))}
                yield Described(f"{field.name}.{part.name}", given, MISSING, "")
        elif field.name in _SECTIONS:
            yield from _of(value, field.name)
        else:
            yield Described(field.name, value, _default(field), meaning[field.name])


def _of(part: Any, path: str) -> Iterator[Described]:
    meaning = meanings(type(part))
    for field in fields(part):
        value, inside = getattr(part, field.name), f"{path}.{field.name}"
        if isinstance(value, Section):
            yield from _of(value, inside)
        else:
            yield Described(inside, value, _default(field), meaning[field.name])


def _field(part: Any, name: str) -> "Field[Any]":
    return next(f for f in fields(part) if f.name == name)


def _default(field: "Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def meanings(cls: type) -> dict[str, str]:
    """Field -> the docstring under it, in the class or the base that has it; '' where there is none."""
    texts = dict.fromkeys((f.name for f in fields(cls)), "")
    for base in reversed(cls.__mro__):
        for name, text in _docstrings(base).items():
            if name in texts:
                texts[name] = text
    return texts


def _docstrings(cls: type) -> dict[str, str]:
    if cls.__module__ == "builtins":
        return {}
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except OSError:  # made where there is no file, as in an interactive session
        return {}
    assert isinstance(tree, ast.ClassDef)
    texts = {}
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            texts[field.target.id] = " ".join(str(after.value.value).split())
    return texts
