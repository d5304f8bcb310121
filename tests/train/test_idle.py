"""Every field of every section of a config: where it changes nothing it is refused, or it is listed as never idle."""

from dataclasses import fields, is_dataclass, replace
from operator import attrgetter

import pytest
from retrieving import two_tower
from tiny import changed, hook_of, sample_base, with_optim

from coldrank.configs import base as parts
from coldrank.data.errors import UserError
from coldrank.models.ranker import Ranker
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig
from coldrank.train.hooks.asmg import ASMG
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.posterior import Posterior
from coldrank.train.idle import idle_problem
from coldrank.train.load import load

SECTIONS = ("data", "optim", "optim.tables", "optim.dense", "train", "model", "retrieval", "cohorts", "sharding")
# What is read in every combination that there is, or refused by a check of its own where it is not (epochs in a
# stream).
NEVER = {
    "data": {"since", "evaluate", "weight_column", "batch_size", "global_batch_size", "eval_batch_size", "order"}
    | {"prefetch"},
    "optim": {"tables", "dense"},
    "optim.tables": {"kind", "lr", "lr_scale", "weight_decay", "warmup_steps", "decay", "clip_value"},
    "optim.dense": {"lr", "gate_lr_scale", "eps", "betas", "weight_decay", "warmup_steps", "decay", "clip_norm"},
    "train": {"mode", "first_period", "follow_s", "epochs", "cold_passes", "steps", "log_every", "checkpoint_every"}
    | {"threads", "accumulate", "precision", "pipeline", "warm_start"},
    "model": {"experts", "expert_hidden", "tower_hidden", "dropout", "poso_mmoe", "poso_mlp"},
    "cohorts": {"new_user_max_views", "new_item_max_views"},
    "sharding": {"tables", "memory_margin", "memory"},
}
PLAIN = Ranker()
OTHER = {  # another value than the default, that is right in itself
    "data.fit": ("train",),
    "optim.tables.eps": 1e-6,
    "optim.tables.betas": (0.5, 0.5),
    "optim.tables.init": 0.1,
    "optim.decay": "linear",
    "train.look_back": (2,),
    "train.look_back_rows": 50,
    "train.cold_trains": "gates",
    "train.keep_checkpoints": 5,
    "train.warm_rename": {"a": "b"},
    "model.tower_hidden": (8,),
    "model.dropout": 0.1,
    "model.poso_mha": True,
    "model.poso_mmoe": True,
    "model.poso_mlp": True,
    "model.pc": "constant",
    "model.gate_scale": 3.0,
    "model.gate_init": 0.1,
    "model.mha_folds": 3,
    "model.mha_fold": "kv",
    "sharding.default": "row_wise",
    "sharding.replicate_up_to": 7,
    "sharding.column_width": 4,
    "sharding.id_maps": "whole",
    "sharding.default_memory": "uvm",
    "sharding.cache_share": 0.5,
    "sharding.replicas": 2,
    "metacf.hidden": 8,
    "metacf.rate": 0.2,
    "metacf.learn_rates": False,
    "metacf.first_order": True,
    "metacf.negatives": 5,
    "mwuf.refresh": 7,
    "posterior.item_max_views": 7,
    "posterior.user_max_views": 7,
    "asmg.after": 1,
    "sharding.sequences": "bags",
}


def put(config: RunConfig, path: str, value: object) -> RunConfig:
    section, _, name = path.rpartition(".")
    if section in config.hook_names:
        return changed(config, section, **{name: value})
    outer, _, inner = section.partition(".")
    holder = getattr(config, outer)
    changes = {inner: replace(getattr(holder, inner), **{name: value})} if inner else {name: value}
    return replace(config, **{outer: replace(holder, **changes)})


def bare() -> RunConfig:
    return replace(sample_base(), model=PLAIN)


def stream() -> RunConfig:
    return put(bare(), "train.mode", "periods")


def metacf(**fields: object) -> RunConfig:
    config = bare()
    tables = tuple(replace(t, dim=8) if t.name == "user" else t for t in config.tables)
    return replace(config, tables=tables, hooks=(MetaCF(**fields),))


def own_inits() -> RunConfig:
    config = bare()
    features = tuple(replace(f, init=1.0) if f.kind in ("bucket", "signals") else f for f in config.features)
    return replace(config, features=features, tables=tuple(replace(t, init=1.0) for t in config.tables))


def every_table(field: str = "tables", choice: str = "row_wise") -> RunConfig:
    config = bare()
    owned = [f.name for f in config.features if f.kind in ("bucket", "signals")]
    names = [*(t.name for t in config.tables), *owned]
    return put(config, f"sharding.{field}", dict.fromkeys(names, choice))


# Where a field changes nothing.
CASES = {
    "data.fit": [stream],
    "optim.tables.eps": [lambda: put(bare(), "optim.tables.kind", "sgd")],
    "optim.tables.betas": [bare, lambda: put(bare(), "optim.tables.kind", "sgd")],
    "optim.tables.init": [own_inits],
    "optim.warmup_steps": [lambda: with_optim(bare(), tables={"warmup_steps": 2}, dense={"warmup_steps": 0})],
    "optim.decay": [lambda: with_optim(bare(), tables={"decay": "linear"}, dense={"decay": "constant"})],
    "train.look_back": [bare],
    "train.look_back_rows": [bare, lambda: put(stream(), "train.look_back", ())],
    "train.cold_trains": [lambda: replace(parts.poso(bare()))],
    "train.keep_checkpoints": [lambda: put(bare(), "train.checkpoint_every", 0)],
    "train.warm_rename": [bare],
    "model.pc": [bare],
    "model.gate_scale": [bare],
    "model.gate_init": [bare],
    "model.mha_folds": [bare, lambda: parts.poso_mmoe(bare()), lambda: parts.mha_fold(parts.poso(bare()), "none")],
    "model.mha_fold": [bare, lambda: parts.poso_mlp(bare())],
    "sharding.default": [every_table],
    "sharding.replicate_up_to": [
        lambda: put(bare(), "sharding.default", "row_wise"),
        lambda: put(bare(), "optim.tables.kind", "adam"),
        lambda: put(bare(), "optim.tables.clip_value", 0.1),
    ],
    "sharding.column_width": [bare],
    "sharding.id_maps": [bare],
    # Every table of the tiny arm is small.
    "sharding.default_memory": [bare, lambda: every_table("memory", "hbm")],
    "sharding.replicas": [lambda: put(bare(), "sharding.default", "data_parallel")],
    "sharding.cache_share": [lambda: every_table("memory", "uvm"), lambda: put(bare(), "sharding.replicas", 2)],
    "sharding.sync_every": [bare],
    "sharding.sequences": [two_tower, lambda: put(bare(), "sharding.default", "data_parallel")],
    "metacf.hidden": [lambda: metacf(learner="linear")],
    "metacf.rate": [lambda: metacf(steps=0)],
    "metacf.learn_rates": [lambda: metacf(steps=0)],
    "metacf.first_order": [lambda: metacf(steps=0)],
    "metacf.negatives": [metacf, lambda: metacf(signal="hist_like"), lambda: metacf(signal="none", steps=0)],
    "mwuf.refresh": [lambda: replace(bare(), hooks=(Mwuf(common_init=False),))],
    "posterior.item_max_views": [lambda: replace(bare(), hooks=(Posterior(item="", user="user_id"),))],
    "posterior.user_max_views": [lambda: replace(bare(), hooks=(Posterior(),))],
    "asmg.after": [lambda: replace(stream(), hooks=(ASMG(length=4),))],
}
# What arms hold for their variants: refused where `--set` names it.
KEPT = {
    "data.shuffle_rows": "train.mode=periods",
    "model.gate_hidden": "seed=1",
}
# The same, where there is no sequence.
OF_SEQUENCES = ("model.heads", "model.head_dim", "model.positions", "model.poso_mha")


def tried(given: str, answer: str = "refused: it would change nothing") -> pytest.MarkDecorator:
    return pytest.mark.tried("configs and runs", given, answer)


def other(config: RunConfig, path: str) -> object:
    if path in OTHER:
        return OTHER[path]
    if path == "retrieval.ks":
        return (3,)
    section, _, name = path.rpartition(".")
    holder = hook_of(config, section) if section in config.hook_names else attrgetter(section)(config)
    value = getattr(holder, name)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return tuple(v + 1 for v in value) if isinstance(value, tuple) else "other"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_is_listed(section):
    names = {f.name for f in fields(attrgetter(section)(sample_base()))}
    paths = [path.rpartition(".") for path in (*CASES, *KEPT, *OF_SEQUENCES)]
    idle = {name for of, _, name in paths if of == section}
    if section == "retrieval":  # as a whole, without such a model
        idle = names
    never = NEVER.get(section, set())
    assert idle | never == names and not idle & never


def test_every_section_is_listed():
    whole = sample_base()
    of_classes = {f.name for f in fields(whole) if is_dataclass(getattr(whole, f.name))}
    of_optim = {f"optim.{f.name}" for f in fields(whole.optim) if is_dataclass(getattr(whole.optim, f.name))}
    assert of_classes | of_optim == set(SECTIONS)


@tried("a setting that nothing reads beside the others: every field of every section")
@pytest.mark.parametrize(("path", "number"), [(path, n) for path, made in CASES.items() for n in range(len(made))])
def test_a_field_that_changes_nothing_is_refused(path, number):
    config = CASES[path][number]()
    validate(config)
    with pytest.raises(UserError, match=rf"{path}=.*: has no effect "):
        validate(put(config, path, other(config, path)))


@tried("settings of retrieval without a retrieval model")
@pytest.mark.parametrize("section", ["retrieval"])
def test_sections_of_what_is_off(section):
    config = bare()
    for field in fields(getattr(config, section)):
        path = f"{section}.{field.name}"
        with pytest.raises(UserError, match=rf"{path}=.*: has no effect with model='ranker'"):
            validate(put(config, path, other(config, path)))


@tried("--set of what an arm may hold for its variants, where nothing reads it")
@pytest.mark.parametrize("path", KEPT)
def test_what_arms_hold_for_variants_is_refused_when_it_is_named(path):
    more = [f"{path}=3"]
    beside = [KEPT[path]]
    if KEPT[path] == "train.mode=periods":
        beside += ["optim.decay=constant"]
    arm = "coldrank.configs.kuairand:base"
    load(arm, beside)
    with pytest.raises(UserError, match=rf"{path}=.*: has no effect"):
        load(arm, [*more, *beside])
    load(arm.replace("base", "poso"), beside)


@tried("--set of what attention has, for an arm without a sequence")
@pytest.mark.parametrize(("path", "value"), list(zip(OF_SEQUENCES, (3, 5, True, True), strict=True)))
def test_what_only_sequences_have_is_refused_without_them(path, value):
    config = bare()
    config = put(replace(config, features=tuple(f for f in config.features if f.role != "sequence")), path, value)
    assert idle_problem(config, [path]) == f"{path}={value}: has no effect without a sequence among the features"


def test_what_has_an_effect_is_taken():
    poso = parts.poso(bare())
    validate(replace(poso, model=replace(poso.model, gate_scale=3.0, mha_fold="kv", mha_folds=3)))
    validate(put(put(stream(), "train.look_back", (2,)), "train.look_back_rows", 50))
    validate(put(put(bare(), "sharding.tables", {"item": "column_wise"}), "sharding.column_width", 4))
    validate(metacf(hidden=8, rate=0.2, first_order=True))
    validate(metacf(signal="none", negatives=5))
    validate(replace(two_tower(), retrieval=replace(two_tower().retrieval, ks=(3,))))
