"""Settings that change nothing beside others: refused, not ignored.

A config whose field is not at its default says something; where nothing reads it, it says something wrong. Arms may hold what only
their variants need (sizes of the ranker's parts, rows of a shuffle buffer): of those, a field is refused where `--set` names it.
`optim.gate_lr_scale` is never refused: a search varies it over arms with gates and without.
"""

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from coldrank.train.config import RunConfig

_MHA = ("model.mha_folds", "model.mha_fold")
_GATES = ("model.pc", "model.gate_hidden", "model.gate_scale", *_MHA)
_HISTORY = ("model.heads", "model.head_dim", "model.positions", "model.poso_mha")
# What arms hold for their variants.
_KEPT = {
    "model.heads",
    "model.head_dim",
    "model.positions",
    "model.experts",
    "model.expert_hidden",
    "model.gate_hidden",
}
_KEPT |= {"data.shuffle_rows"}


class _Rule(NamedTuple):
    """fields: without an effect if `holds`. why: follows "has no effect"; what would be right."""

    holds: bool
    fields: Sequence[str]
    why: str


def idle_problem(config: RunConfig, named: Sequence[str] = ()) -> str:
    """The first field that is set and changes nothing, in words; '' if there is none. named: fields of `--set`, of which those that
    arms may hold for their variants are told as well."""
    for rule in _rules(config):
        for path in rule.fields if rule.holds else ():
            if path in _KEPT and path not in named:
                continue
            value, plain = _value(config, path)
            if value != plain:
                return f"{path}={value!r}: has no effect {rule.why}"
    return ""


def _rules(config: RunConfig) -> Iterator[_Rule]:
    m, o, t = config.model, config.optim, config.train
    for hook in ("metacf", "mwuf", "pam"):
        yield _Rule(
            hook not in config.hooks, _all(config, hook), f"with hooks={list(config.hooks)}, which lacks {hook!r}"
        )
    model = [f"model.{f.name}" for f in fields(m)]
    yield _Rule(config.two_tower is not None, model, "with two_tower, which takes the place of model")
    yield _Rule(config.two_tower is None, _all(config, "retrieval"), "without two_tower")
    ranker = [f"model.{n}" for n in ("experts", "expert_hidden", "poso_mmoe", "poso_mlp")] + [*_HISTORY, *_GATES]
    yield _Rule(m.kind != "ranker", ranker, f"with model.kind={m.kind!r}")
    yield _Rule(m.kind != "dcn", ["model.crosses"], f"with model.kind={m.kind!r}; they are dcn's")
    yield _Rule(not m.personalized, _GATES, "where no part is personalized; set model.poso_mha, poso_mmoe or poso_mlp")
    yield _Rule(not m.poso_mha, _MHA, "without model.poso_mha")
    yield _Rule(m.mha_fold == "none", ["model.mha_folds"], "with model.mha_fold='none', which has no folds")
    histories = any(f.role == "sequence" for f in config.features)
    yield _Rule(not histories, _HISTORY, "without a sequence among the features")
    yield from _of_training(config)
    yield from _of_sharding(config)
    yield _Rule(o.table_optimizer == "sgd", ["optim.sparse_eps"], "with optim.table_optimizer='sgd'")
    inits = [table.init for table in config.tables] + [
        f.init for f in config.features if f.kind in ("bucket", "signals")
    ]
    yield _Rule(all(inits), ["optim.table_init"], "where every table has an init of its own")
    yield _Rule(not t.warm_start, ["train.warm_rename"], "without train.warm_start")
    yield from _of_hooks(config)


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


def _of_sharding(config: RunConfig) -> Iterator[_Rule]:
    s, o = config.sharding, config.optim
    owned = [f.name for f in config.features if f.kind in ("bucket", "signals")]
    choices = {s.choice(name) for name in (*(table.name for table in config.tables), *owned)}
    columns = choices & {"column_wise", "grid"}
    yield _Rule(not columns, ["sharding.column_width"], "where no table is column_wise or grid")
    yield _Rule("auto" not in choices, ["sharding.replicate_up_to"], "where no table is auto")
    fused = o.table_optimizer == "adam" or o.sparse_clip > 0
    yield _Rule(fused, ["sharding.replicate_up_to"], "with adam or optim.sparse_clip, which copied tables cannot have")
    named = {*(table.name for table in config.tables), *owned} <= set(s.tables)
    yield _Rule(named, ["sharding.default"], "where sharding.tables names every table")


def _of_hooks(config: RunConfig) -> Iterator[_Rule]:
    w, c = config.mwuf, config.metacf
    yield _Rule(not w.common_init, ["mwuf.refresh"], "with mwuf.common_init=False")
    yield _Rule(c.learner != "neural", ["metacf.hidden"], f"with metacf.learner={c.learner!r}")
    signals = c.signal != "none" and (c.signal or any(f.kind == "signals" for f in config.features))
    yield _Rule(bool(signals), ["metacf.negatives"], "where a signal tells; set metacf.signal=none")
    steps = ["metacf.rate", "metacf.learn_rates", "metacf.first_order", "metacf.negatives"]
    yield _Rule(not c.steps, steps, "with metacf.steps=0")


def _all(config: RunConfig, section: str) -> list[str]:
    return [f"{section}.{f.name}" for f in fields(getattr(config, section))]


def _value(config: RunConfig, path: str) -> tuple[Any, Any]:
    """A field's value and default."""
    section, _, name = path.rpartition(".")
    holder = getattr(config, section)
    field = next(f for f in fields(holder) if f.name == name)
    plain = field.default if field.default_factory is MISSING else field.default_factory()
    return getattr(holder, name), plain
