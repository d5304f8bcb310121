"""Settings that change nothing beside others: refused, not ignored.

A config whose field is not at its default says something; where nothing reads it, it says something wrong. Arms may
hold what only their variants need (sizes of the ranker's parts, rows of a shuffle buffer): of those, a field is refused
where `--set` names it. `optim.dense.gate_lr_scale` is never refused: a search varies it over arms with gates and
without.
"""

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from operator import attrgetter
from typing import Any, NamedTuple

from coldrank.models.features import FeatureSet
from coldrank.train.config import RunConfig

# What arms hold for their variants.
_KEPT = {"model.heads", "model.head_dim", "model.positions", "model.gate_hidden", "data.shuffle_rows"}


class _Rule(NamedTuple):
    """fields: without an effect if `holds`. why: follows "has no effect"; what would be right."""

    holds: bool
    fields: Sequence[str]
    why: str


def idle_problem(config: RunConfig, named: Sequence[str] = ()) -> str:
    """The first field that is set and changes nothing, in words; '' if there is none. named: fields of `--set`, of
    which those that arms may hold for their variants are told as well."""
    for rule in _rules(config):
        for path in rule.fields if rule.holds else ():
            if path in _KEPT and path not in named:
                continue
            value, plain = _value(config, path)
            if value != plain:
                return f"{path}={value!r}: has no effect {rule.why}"
    return ""


def _rules(config: RunConfig) -> Iterator[_Rule]:
    yield _Rule(not config.model.retrieves, _all(config, "retrieval"), f"with model={config.model.kind()!r}")
    features = FeatureSet(config.features, config.tables)
    for holds, names, why in config.model.idle(features):
        yield _Rule(holds, [f"model.{name}" for name in names], why)
    for task, head in config.tasks.items():
        for holds, names, why in head.idle():
            yield _Rule(holds, [f"tasks.{task}.{name}" for name in names], why)
    for hook in config.hooks:
        for holds, names, why in hook.idle(config):
            yield _Rule(holds, [f"{hook.short_name()}.{name}" for name in names], why)
    yield from _of_training(config)
    yield from _of_optimizers(config)
    yield from _of_sharding(config)


def _of_training(config: RunConfig) -> Iterator[_Rule]:
    d, t = config.data, config.train
    stream = t.mode == "periods"
    yield _Rule(not stream, ["train.look_back", "train.look_back_rows"], "with train.mode='passes'")
    yield _Rule(not t.look_back, ["train.look_back_rows"], "with train.look_back=[]")
    yield _Rule(stream, ["data.fit"], "with train.mode='periods', which takes every split")
    in_time = d.order == "time" or not t.first_period
    yield _Rule(stream and in_time, ["data.shuffle_rows"], "where all periods are read in order of time")
    yield _Rule(not t.cold_passes, ["train.cold_trains"], "with train.cold_passes=0")
    once = not stream and not t.checkpoint_every
    yield _Rule(once, ["train.keep_checkpoints"], "with train.checkpoint_every=0, which writes one")
    yield _Rule(not t.warm_start, ["train.warm_rename"], "without train.warm_start")


def _of_optimizers(config: RunConfig) -> Iterator[_Rule]:
    o, tables = config.optim, config.optim.tables
    kind = f"with optim.tables.kind={tables.kind!r}"
    yield _Rule(tables.kind == "sgd", ["optim.tables.eps"], kind)
    yield _Rule(tables.kind != "adam", ["optim.tables.betas"], kind)
    inits = [*(t.init for t in config.tables), *(f.init for f in config.features if f.owns_table)]
    yield _Rule(all(inits), ["optim.tables.init"], "where every table has an init of its own")
    for name in ("warmup_steps", "decay"):
        both = all(getattr(part, name) is not None for part in (tables, o.dense))
        yield _Rule(both, [f"optim.{name}"], f"beside optim.tables.{name} and optim.dense.{name}")


def _of_sharding(config: RunConfig) -> Iterator[_Rule]:
    s, tables = config.sharding, config.optim.tables
    placed = FeatureSet(config.features, config.tables).tables
    names, choices = {t.name for t in placed}, {s.choice(t.name) for t in placed}
    columns = choices & {"column_wise", "grid"}
    yield _Rule(not columns, ["sharding.column_width"], "where no table is column_wise or grid")
    of_sequences = [f.table_name for f in config.features if f.role == "sequence"]
    read = "where no sequence is read, or from data_parallel tables alone"
    yield _Rule(all(s.choice(t) == "data_parallel" for t in of_sequences), ["sharding.sequences"], read)
    # Small tables stay where they are, too, beside default_memory.
    stay = s.default_memory in ("auto", "hbm")
    yield _Rule(stay and "auto" not in choices, ["sharding.replicate_up_to"], "where no table is auto")
    growing = any(table.is_dynamic for table in config.tables)
    yield _Rule(not growing, ["sharding.id_maps"], "where no table is growing or managed")
    fused = tables.kind == "adam" or tables.clip_value > 0
    why = "with adam or optim.tables.clip_value, which copied tables cannot have"
    yield _Rule(stay and fused, ["sharding.replicate_up_to"], why)
    yield _Rule(names <= set(s.tables), ["sharding.default"], "where sharding.tables names every table")
    yield _Rule(names <= set(s.memory), ["sharding.default_memory"], "where sharding.memory names every table")
    small = "where every table has at most sharding.replicate_up_to bytes, and stays in the GPU's memory"
    elsewhere = any(s.memory_of(t) != "hbm" for t in placed if t.name not in s.memory)
    yield _Rule(not stay and not elsewhere, ["sharding.default_memory"], small)
    cached = {s.memory_of(t) for t in placed} & {"auto", "uvm_caching", "ssd"}
    yield _Rule(not cached, ["sharding.cache_share"], "where no table is cached")
    yield _Rule(s.replicas > 1, ["sharding.cache_share"], "with sharding.replicas, whose tables are not cached")
    yield _Rule(choices == {"data_parallel"}, ["sharding.replicas"], "where every table is data_parallel")
    yield _Rule(s.replicas == 1, ["sharding.sync_every"], "with sharding.replicas=1")


def _all(config: RunConfig, section: str) -> list[str]:
    return [f"{section}.{f.name}" for f in fields(getattr(config, section))]


def _value(config: RunConfig, path: str) -> tuple[Any, Any]:
    """A field's value and default."""
    section, _, name = path.rpartition(".")
    by_name: dict[str, Any] = {hook.short_name(): hook for hook in config.hooks}
    by_name |= {f"tasks.{task}": head for task, head in config.tasks.items()}
    holder: Any = by_name[section] if section in by_name else attrgetter(section)(config)
    field = next(f for f in fields(holder) if f.name == name)
    plain = field.default if field.default_factory is MISSING else field.default_factory()
    return getattr(holder, name), plain
