"""The configuration of a run: what an arm returns, what `config.json` holds, what `--set a.b=c` changes."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import InstanceOf, NonNegativeFloat, TypeAdapter, ValidationError

from coldrank.data.cohorts import CohortConfig
from coldrank.data.errors import UserError
from coldrank.metrics.metric import Metric
from coldrank.metrics.retrieval import RetrievalConfig
from coldrank.models.component import C, Component, find
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.models.heads.head import Head
from coldrank.models.model import Model
from coldrank.models.ranker import Ranker
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.hooks.hook import Hook
from coldrank.train.sections import DataConfig, OptimConfig, Section, TrainConfig

__all__ = ["DataConfig", "OptimConfig", "RunConfig", "TrainConfig"]  # what arms are written with

H = TypeVar("H", bound=Hook)


@dataclass(kw_only=True, slots=True)
class RunConfig(Section):
    """A whole run."""

    name: str
    """Of the arm."""
    seed: int = 1
    """Of the first weights, the order of samples, and dropout."""
    tasks: dict[str, InstanceOf[Head]]
    """Task -> what it is: its labels are the column `label_<task>` (docs/tasks.md)."""
    cold_weight: NonNegativeFloat = 1.0
    """Weight in the loss of the samples of new users (`cohorts.new_user_max_views`), where those of others weigh 1; at
    2 each counts as if it were there twice."""
    hooks: tuple[InstanceOf[Hook], ...] = ()
    """The training methods that are on, from the outermost to the innermost (docs/hooks.md)."""
    features: tuple[Feature, ...]
    """What the model reads."""
    tables: tuple[Table, ...] = ()
    """Embedding tables that features name."""
    model: InstanceOf[Model] = field(default_factory=Ranker)
    """The model, by its settings."""
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """How a retrieval model is judged (docs/pam.md)."""
    metrics: tuple[InstanceOf[Metric], ...] = ()
    """Metrics of one's own, beside those that every run has."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which samples are read."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizers and their rates."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length and bookkeeping."""
    cohorts: CohortConfig = field(default_factory=CohortConfig)
    """Which users and items are new."""
    sharding: ShardingConfig = field(default_factory=ShardingConfig)
    """Where the tables lie."""

    def table_scales(self, features: FeatureSet) -> dict[str, float]:
        """Table -> standard deviation of its first weights."""
        return {t.name: t.init or self.optim.tables.init for t in features.tables}

    def hook(self, kind: type[H]) -> H:
        """The hook of a class, which has to be on."""
        return next(h for h in self.hooks if isinstance(h, kind))

    @property
    def written_tables(self) -> frozenset[str]:
        """Tables whose rows a hook reads or writes beside the lookup."""
        return frozenset().union(*(hook.written(self) for hook in self.hooks))

    @property
    def hook_names(self) -> list[str]:
        """Names of the hooks that are on, in order."""
        return [hook.short_name() for hook in self.hooks]


for _class in (CohortConfig, RetrievalConfig, ShardingConfig, Feature, Table):
    _class.__pydantic_config__ = Section.__pydantic_config__  # type: ignore[union-attr]
_ADAPTER = TypeAdapter(RunConfig)
# Fields that hold components; in JSON and for `--set` each has its name.
NAMED: dict[str, type[Component]] = {"hooks": Hook, "metrics": Metric}
# pydantic's kinds of error -> our words, where its own are longer.
_WORDS = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must not be below {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must not be above {le:g}",
    "multiple_of": "must be a multiple of {multiple_of:g}",
    "too_short": "give at least {min_length}",
}


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as plain JSON values; hooks by their names, in order. A task may be its weight alone, as arms had it
    before."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    if isinstance(config.tasks, dict):
        values["tasks"] = {name: t.to_json() if isinstance(t, Head) else t for name, t in config.tasks.items()}
    values["model"] = config.model.to_json()
    for name in NAMED:
        values[name] = {part.short_name(): part.to_json() for part in getattr(config, name)}
    result: dict[str, Any] = json.loads(json.dumps(values, default=_plain))
    return result


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def parse(values: dict[str, Any], source: str) -> RunConfig:
    """Plain values -> a config whose fields are of their types and within their ranges. Raises UserError that names the
    field, the value and what would be right."""
    values = dict(values)
    if isinstance(values.get("model"), dict):
        values["model"] = component(Model, values["model"], f"{source}: model")
    for name, base in NAMED.items():
        parts = _named(values, name, source)
        values[name] = tuple(component(base, of, f"{source}: {part}") for part, of in parts.items())
    if "tasks" in values:
        tasks = _named(values, "tasks", source)
        values["tasks"] = {name: component(Head, of, f"{source}: tasks.{name}") for name, of in tasks.items()}
    return _typed(_ADAPTER, values, source, "")


def _named(values: dict[str, Any], field: str, source: str) -> dict[str, Any]:
    parts = values.get(field, {})
    if not isinstance(parts, dict):
        raise UserError(f"{source}: {field}={parts!r}: must be names with their settings")
    return parts


def component(base: type[C], values: Any, where: str) -> C:
    """A model, head or hook from its kind and fields. Raises UserError."""
    if isinstance(values, str):
        values = {"kind": values}
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise UserError(f"{where}: {values!r}: write its fields and its kind")
    try:
        kind: type[C] = find(base, values["kind"])
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    fields = {name: value for name, value in values.items() if name != "kind"}
    source, _, section = where.rpartition(": ")
    return _typed(TypeAdapter(kind), fields, source, f"{section}.")


T = TypeVar("T")


def _typed(adapter: TypeAdapter[T], values: dict[str, Any], source: str, prefix: str) -> T:
    try:
        made = adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = prefix + ".".join(str(part) for part in first["loc"]) if first["loc"] else f"{prefix}the config"
        if first["input"] is None:
            raise UserError(f"{source}: {where}: has to be set") from None
        value = "" if first["type"] == "missing" else f"={first['input']!r}"
        words = _WORDS.get(first["type"])
        message = words.format(**first["ctx"]) if words else first["msg"].lower()
        raise UserError(f"{source}: {where}{value}: {message}") from None
    if field := next(_bools(values, made), ""):
        raise UserError(f"{source}: {prefix}{field}: takes a number, not true or false")
    return made


def _bools(given: Any, made: Any, path: str = "") -> Iterator[str]:
    """Fields, with their values, whose bool was taken for a number, as pydantic does and we don't."""
    if isinstance(given, bool) and not isinstance(made, bool):
        yield f"{path}={given}"
    elif isinstance(given, dict):
        for name, value in given.items():
            taken = made[name] if isinstance(made, dict) else getattr(made, name)
            yield from _bools(value, taken, f"{path}.{name}" if path else name)
    elif isinstance(given, list | tuple):
        for i, (value, one) in enumerate(zip(given, made, strict=True)):
            yield from _bools(value, one, f"{path}.{i}")
