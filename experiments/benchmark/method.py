"""A method of a benchmark: what makes its arm of the base, and the terms that it is compared under."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coldrank.data.errors import UserError, meant
from coldrank.experiments.tune import Field
from coldrank.train.arms import called, candidates, import_module, required_arguments
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.describe import described

# A method may train in its own way, on what the base reads and for as long. What it may change of `train`: a last pass
# over the samples of new users, which is a method by itself.
_OWN_OF_TRAIN = ("cold_passes", "cold_trains")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkMethod:
    """A method, whatever the base."""

    name: str
    """Of its arm."""
    about: str
    """In a line."""
    make: Callable[[RunConfig], RunConfig]
    """The base's arm -> the method's. A UserError or ValueError says why it does not apply to this base."""
    vary: tuple[str, ...] = ()
    """What its trials draw beside the suite's fields: `field=low..high`, `field=a|b`, or `field*3`, a third to three
    times of what it is."""
    is_asked_for: bool = False
    """Whether it is refused, not left out, where it does not apply."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """Methods that answer one question, and how they are judged."""

    name: str
    """On the command line."""
    about: str
    """In a line."""
    protocol: str
    """How they are trained and judged: a name of `protocol.PROTOCOLS`."""
    methods: tuple[BenchmarkMethod, ...]
    """In the order of the table."""
    vary: tuple[str, ...]
    """What the trials of all arms draw, the base's too."""
    by: str
    """What a trial is judged by, as `tune --by` takes it."""
    cohort: str
    """The cohorts of that."""


def chosen(suite: Suite, names: Sequence[str]) -> list[BenchmarkMethod]:
    """The methods of a suite, or those that are named. Raises UserError for a name that it does not have."""
    if not names:
        return list(suite.methods)
    by_name = {method.name: method for method in suite.methods}
    for name in names:
        if name not in by_name:
            raise UserError(f"--methods {name}: {suite.name} has no such method; {meant(name, list(by_name))}")
    return [replace(by_name[name], is_asked_for=True) for name in dict.fromkeys(names)]


def own_methods(text: str, base: str) -> list[BenchmarkMethod]:
    """The methods of a module of one's own: `module` for all of its functions, of the base's config or of nothing, that
    return a config; `module:a,b` for some. base: the arm that all are held against, which is none of them.

    Raises UserError for a module or function that is not there, and for one that needs more.
    """
    module_name, _, names = text.partition(":")
    where = f"--also {text}"
    module = import_module(module_name, where)
    given = [name for name in names.split(",") if name]
    local = {
        name: function
        for required in (0, 1)
        for name, function in candidates(module, RunConfig, required).items()
        if function.__module__ == module.__name__ and f"{module_name}:{name}" != base
    }
    if not given and not local:
        raise UserError(f"{where}: {module_name} has no function that returns a RunConfig, of the base's or of nothing")
    methods = []
    for name in given or local:
        function: Any = getattr(module, name, None)
        if not callable(function):
            raise UserError(f"{where}: {module_name} has no function {name!r}; {meant(name, list(local))}")
        required = required_arguments(function) or []
        if len(required) > 1:
            raise UserError(f"{where}: {name} needs {', '.join(required)}; a method takes the base's config alone")
        first = (function.__doc__ or "").strip().partition("\n")[0]
        make = _own(function, f"{where}: {name}", takes_base=bool(required))
        methods.append(BenchmarkMethod(name=name, about=first, make=make, is_asked_for=True))
    return methods


def _own(function: Callable[..., Any], what: str, *, takes_base: bool) -> Callable[[RunConfig], RunConfig]:
    return lambda base: called(function, what, RunConfig, *([base] if takes_base else []))


def arm_of(method: BenchmarkMethod, base: RunConfig) -> RunConfig:
    """The method's arm. Raises UserError, or ValueError, where the method does not apply to the base, and UserError
    where its arm would not be compared on equal terms."""
    if not _NAME.fullmatch(method.name):
        raise UserError(f"method {method.name!r}: its name is to be letters, digits, _, . and -")
    config = replace(method.make(base), name=method.name, seed=base.seed)
    validate(config)
    if wrong := unequal(config, base):
        raise UserError(f"{method.name}: {wrong}")
    return config


def unequal(config: RunConfig, base: RunConfig) -> str:
    """In what a method would not be compared with its base on equal terms, in words; '' if in nothing: columns that are
    read, tasks, samples, batches, passes and cohorts are the base's."""
    ours, theirs = _columns(config), _columns(base)
    if ours != theirs:
        more, less = sorted(ours - theirs), sorted(theirs - ours)
        text = f"reads {more[0]!r}, which the base does not" if more else f"does not read {less[0]!r}, as the base does"
        return f"{text}; methods are compared on equal features"
    for section in ("tasks", "data", "cohorts", "retrieval", "train"):
        of_arm, of_base = (to_dict(c)[section] for c in (config, base))
        for name in of_base.keys() | of_arm.keys():
            free = section == "train" and name in _OWN_OF_TRAIN
            if not free and of_arm.get(name) != of_base.get(name):
                return (
                    f"{section}.{name} is {of_arm.get(name)!r}, and {of_base.get(name)!r} in the base; methods are "
                    f"compared on equal terms, change it for all with --set"
                )
    return ""


def _columns(config: RunConfig) -> set[str]:
    return {column for feature in config.features for column in feature.raw_columns}


def fields_of(config: RunConfig, vary: Sequence[str]) -> tuple[Field, ...]:
    """The fields to draw, `field*3` spelt out around what the config has. Raises UserError for one that it lacks."""
    return tuple(_around(config, text) if "=" not in text else Field.parse(text) for text in vary)


def _around(config: RunConfig, text: str) -> Field:
    name, _, factor = text.partition("*")
    values = {d.path: d.value for d in described(config)}
    if name not in values:
        raise UserError(f"--vary {text}: {config.name} has no field {name!r}; {meant(name, values)}")
    value = values[name]
    try:
        times = float(factor)
    except ValueError:
        times = 0.0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if times <= 1 or not is_number or value <= 0:
        raise UserError(
            f"--vary {text}: write field*3, a third to three times of a number above 0, field=low..high or field=a|b"
        )
    return Field(name, value / times, value * times)
