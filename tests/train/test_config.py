import json
from dataclasses import dataclass, replace
from types import ModuleType

import pytest
from tiny import sample_base

from coldrank.configs import base as parts
from coldrank.data.errors import UserError
from coldrank.metrics.metric import Metric
from coldrank.models.features import Feature
from coldrank.models.heads import Binary, Head
from coldrank.models.ranker import Ranker
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.difference import difference
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.hooks.hook import Hook
from coldrank.train.hooks.pam import Pam
from coldrank.train.load import arms, from_dict, load
from coldrank.train.sections import DataConfig, DenseConfig, OptimConfig, TablesConfig

POSO = "coldrank.configs.kuairand:poso"


def test_round_trip_through_json(tmp_path):
    config = load(POSO, ["seed=7", "model.gate_hidden=8"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(config)))
    assert load(str(path)) == config and config.seed == 7 and config.model.gate_hidden == 8


def test_a_module_alone_gives_its_default_arm():
    assert load("coldrank.configs.kuairand") == load("coldrank.configs.kuairand:base")
    assert load("coldrank.configs.movielens") == load("coldrank.configs.movielens:base_cold_pass")


def test_set_takes_lists_numbers_names_and_tasks():
    config = load(POSO, ["data.fit=train", "model.expert_hidden=[64,32]", "optim.decay=linear", "tasks.like=0.5"])
    assert config.data.fit == ("train",) and config.model.expert_hidden == (64, 32)
    assert config.optim.decay == "linear" and config.tasks["like"] == Binary(weight=0.5)


def test_a_task_s_head_is_set_by_its_kind_its_fields_or_whole():
    config = load(POSO, ["tasks.like.weight=0.5", "tasks.hate=binary", "tasks.hate.weight=2"])
    assert config.tasks["like"] == Binary(weight=0.5) and config.tasks["hate"] == Binary(weight=2.0)
    assert list(config.tasks)[-1] == "hate" and config.tasks["click"] == Binary()
    whole = load(POSO, ['tasks.like={"kind": "binary", "weight": 3}', 'tasks.hate={"kind": "binary"}'])
    assert whole.tasks["like"] == Binary(weight=3.0) and whole.tasks["hate"] == Binary()
    assert load(POSO, ['tasks={"like": 0.5}']).tasks == {"like": Binary(weight=0.5)}


@pytest.mark.tried("configs and runs", "a config.json, or an arm, whose tasks are weights", "read as binary tasks")
def test_a_task_of_before_is_its_weight():
    config = replace(sample_base(), tasks={"long_view": Binary(), "like": Binary(weight=0.5)})
    before = to_dict(config) | {"tasks": {"long_view": 1, "like": 0.5}}
    assert from_dict(before) == config
    assert from_dict(to_dict(replace(config, tasks={"long_view": 1, "like": 0.5}))) == config


OF_BEFORE = {
    "sparse_lr": 0.2,
    "sparse_eps": 1e-6,
    "sparse_weight_decay": 0.1,
    "sparse_warmup_steps": 3,
    "sparse_clip": 0.5,
    "sparse_decay": "cosine",
    "table_optimizer": "adagrad",
    "table_lr_scale": {"user": 0.5},
    "table_init": 0.2,
    "dense_lr": 0.01,
    "gate_lr_scale": 0.3,
    "weight_decay": 0.4,
    "clip_norm": 2.0,
    "warmup_steps": 7,
    "decay": "linear",
}
NOW = OptimConfig(
    tables=TablesConfig(
        kind="adagrad",
        lr=0.2,
        eps=1e-6,
        lr_scale={"user": 0.5},
        weight_decay=0.1,
        clip_value=0.5,
        init=0.2,
        warmup_steps=3,
        decay="cosine",
    ),
    dense=DenseConfig(lr=0.01, gate_lr_scale=0.3, weight_decay=0.4, clip_norm=2.0),
    warmup_steps=7,
    decay="linear",
)


@pytest.mark.tried("configs and runs", "a config.json, or --set, with the former fields of optim", "read as those now")
def test_optimizers_of_before_are_read(tmp_path):
    path, config = tmp_path / "config.json", to_dict(sample_base())
    path.write_text(json.dumps(config | {"optim": OF_BEFORE}))
    assert load(str(path)).optim == NOW
    given = [f"optim.{name}={json.dumps(value)}" for name, value in OF_BEFORE.items() if name != "table_lr_scale"]
    path.write_text(json.dumps(config))
    assert load(str(path), [*given, "optim.table_lr_scale.user=0.5"]).optim == NOW
    path.write_text(json.dumps(config | {"optim": {"dense": {"lr": 0.1}, "sparse_lr": 0.1}}))
    with pytest.raises(UserError, match=r"optim.sparse_lr=0.1: unexpected keyword argument"):
        load(str(path))


@pytest.mark.tried("configs and runs", "a feature that reads a label or a true probability", "refused, both named")
@pytest.mark.parametrize("column", ["label_watch_s", "true_click"])
def test_an_outcome_is_no_input(column):
    base = sample_base()
    leak = Feature(name="leak", column=column, role="context", kind="number")
    with pytest.raises(UserError, match=f"base: feature 'leak' reads '{column}': an outcome is no input of its own"):
        validate(replace(base, features=(*base.features, leak)))


@pytest.mark.tried("configs and runs", "min_count of a table of mapping hash, multi_hash or identity", "refused")
@pytest.mark.parametrize("mapping", ["hash", "multi_hash", "identity"])
def test_ids_of_no_row_of_their_own_are_not_counted(mapping):
    base = sample_base()
    tables = tuple(replace(t, mapping=mapping, min_count=2) if t.name == "item" else t for t in base.tables)
    wanted = f"base: table 'item': min_count=2 is for mappings 'vocabulary', 'growing' and 'managed', not {mapping!r}"
    with pytest.raises(UserError, match=f"^{wanted}$"):
        validate(replace(base, tables=tables))


def test_pam_s_groups_were_called_tasks(tmp_path):
    config = replace(sample_base(), hooks=(Pam(cuts=(5, 50), support_average="batch", query_average="group"),))
    values = to_dict(config)
    values["hooks"]["pam"] |= {"support_average": "task", "query_average": "task"}
    (pam,) = from_dict(values).hooks
    assert (pam.support_average, pam.query_average) == ("group", "group")
    (path := tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    assert load(str(path), ["pam.support_average=task"]).hooks[0].support_average == "group"
    assert load(str(path)) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.table.lr=2", "no field 'optim.table'; did you mean 'tables'"),
        ("optim.tables.kind=adamw", "optim.tables.kind='adamw': input should be 'rowwise_adagrad', 'adagrad', 'sgd'"),
        ("optim.dense.betas=[0.9,1]", "optim.dense.betas.1=1: must be below 1"),
        ("optim.dense.clip_value=1", "no field 'optim.dense.clip_value'; there are betas, clip_norm, "),
        ("modle.heads=2", "no field 'modle'; did you mean 'model'"),
        ("model.head=2", "no field 'model.head'; did you mean 'heads'"),
        ("model.heads.x=2", "no field 'model.heads.x'; it has no fields"),
        ("model.heads", "write field=value"),
        ("model.heads=two", "model.heads='two': input should be a valid integer"),
        ("model.heads=0", "model.heads=0: must be above 0"),
        ("model.dropout=1.5", "model.dropout=1.5: must be below 1"),
        ("model.pc=age", "model.pc='age': input should be 'feature', 'static' or 'constant'"),
        ("model.expert_hidden=[]", r"model.expert_hidden=\[\]: give at least 1"),
        ("data.evaluate=train", "data.evaluate='train' is also in data.fit"),
        ("train.steps=-1", "train.steps=-1: must not be below 0"),
        ("data.shuffle_rows=0", "data.order='random' needs data.shuffle_rows above 0"),
        ("tasks.lkie=0.5", "no field 'tasks.lkie'; did you mean 'like'"),
        ("tasks.like=yes", "no head 'yes'; there are binary, ordinal, regression; or write package.module:Class"),
        ("tasks.like.wieght=1", "no field 'tasks.like.wieght'; did you mean 'weight'"),
        ("tasks.like=true", "tasks.like: True: write its fields and its kind"),
        ("tasks=like", "tasks='like': must be names with their settings"),
        ('tasks={"a.b": 1}', "tasks: 'a.b': a task's name holds no dot"),
        ("tasks={}", "tasks={}: give at least one task, weights not all 0"),
        ("tasks.like=-1", "tasks.like.weight=-1: must not be below 0"),
        ("cold_weight=-1", "cold_weight=-1: must not be below 0"),
        ("cold_wieght=2", "no field 'cold_wieght'; did you mean 'cold_weight'"),
        ("tasks.like=ordinal", "tasks.like.levels: has to be set"),
        ("hooks=mwuff", "no hook 'mwuff'; did you mean 'mwuf'"),
        ("hooks=[mwuf", "a bracket is missing"),
        ("metrics=auc", "no metric 'auc'; there are positive_gauc, user_ndcg; or write package.module:Class"),
        ("features.user_id.dim=4", "features are declared by the arm"),
        ("tables=[]", "tables are declared by the arm"),
        ("data.weight_column=label_watch_s", "is a label; must be another column"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(UserError, match=message):
        load(POSO, [override])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("coldrank.configs.kuairand:pos", "has no arm 'pos'; it has base, "),
        ("coldrank.configs.kuairand_tables", "has no DEFAULT arm; it has base, "),
        ("coldrank.configs.nowhere:base", "no module 'coldrank.configs.nowhere'"),
        ("missing.json", "missing.json: .*No such file"),
    ],
)
def test_sources_that_are_not_there_are_named(source, message):
    with pytest.raises(UserError, match=message):
        load(source)


def test_arms_are_the_functions_without_arguments_that_return_a_config():
    module = ModuleType("mine")

    def plain() -> RunConfig:
        return sample_base()

    def postponed() -> "parts.RunConfig":
        return sample_base()

    def takes_a_base(base: RunConfig) -> RunConfig:
        return base

    def something_else() -> str:
        return ""

    def untyped():
        return sample_base()

    vars(module).update({f.__name__: f for f in (plain, postponed, takes_a_base, something_else, untyped)})
    assert arms(module) == {"plain": plain, "postponed": postponed}, "imported ones are arms of the module too"


def test_unknown_field_in_a_file_is_refused():
    with pytest.raises(UserError, match="model.depth=3: unexpected keyword argument"):
        from_dict(to_dict(sample_base()) | {"model": to_dict(sample_base())["model"] | {"depth": 3}})
    with pytest.raises(UserError, match=r"tasks=\['like'\]: must be names with their settings"):
        validate(replace(sample_base(), tasks=["like"]))


@pytest.mark.tried("ranks", "data.batch_size and data.global_batch_size", "refused; one of them is set")
def test_a_batch_is_of_a_rank_or_of_all_ranks():
    with pytest.raises(UserError, match="data.global_batch_size=96 and data.batch_size=512: one of them; "):
        load(POSO, ["data.global_batch_size=96"])
    with pytest.raises(UserError, match="data.global_batch_size=-1: must not be below 0"):
        load(POSO, ["data.global_batch_size=-1"])
    data = load(POSO, ["data.global_batch_size=96", "data.batch_size=1024"]).data
    assert [data.rank_batch(n) for n in (1, 2, 5)] == [96, 48, 20] and load(POSO).data.rank_batch(5) == 512


def test_gates_need_a_personalization_code():
    config = parts.poso(sample_base())
    config = replace(config, features=tuple(f for f in config.features if f.role != "pc"))
    with pytest.raises(UserError, match="no feature has role 'pc'"):
        validate(config)
    validate(parts.constant_pc(config))


def test_difference_reads_as_a_list_of_changes():
    base = sample_base()
    assert difference(base, base) == ""
    arm = parts.without_avc(replace(base, seed=2))
    assert difference(arm, base).splitlines() == [
        "name: base -> base_without_avc",
        "seed: 1 -> 2",
        *(f"features.{name}: removed" for name in ("user_id", "user_views", "user_views_bucket")),
        *(f"features.{name}: removed" for name in ("rate_user_long_view", "user_gap_h")),
        "tables.user: removed",
    ]


@dataclass(kw_only=True, slots=True)
class Cohorts(Hook):
    """A hook that is called as a section of the config is."""


@dataclass(kw_only=True, slots=True)
class Auc(Metric):
    """A metric that is called as one of every run is."""


@dataclass(kw_only=True, slots=True)
class PAM(Metric):
    """A metric that is called as a hook is."""


def test_parts_have_names_of_their_own():
    for changes, message in (
        ({"hooks": (Cohorts(),)}, "hooks: 'cohorts' is a field of the config"),
        ({"metrics": (Auc(),)}, "metrics: 'auc' is a metric of every run"),
        ({"hooks": (Pam(),), "metrics": (PAM(),)}, "metrics: 'pam' is one of hooks"),
    ):
        with pytest.raises(UserError, match=message):
            validate(replace(load(POSO), **changes))


@dataclass(kw_only=True, slots=True)
class Capped(Head):
    """A head whose settings are looked at where it is made."""

    top: float
    """The most."""

    def __post_init__(self) -> None:
        if self.top <= 0:
            raise ValueError("top has to be above 0")


@pytest.mark.tried("configs and runs", "true or false for a number, of any field", "refused, with the field")
def test_a_bool_is_no_number():
    base = sample_base()
    user, *tables = base.tables
    for changes, message in (
        ({"tables": (replace(user, min_count=True), *tables)}, "base: tables.0.min_count=True: takes a number, not"),
        ({"seed": True}, "base: seed=True: takes a number"),
        ({"data": DataConfig(fit=("train",), batch_size=True)}, "base: data.batch_size=True"),
        ({"sharding": ShardingConfig(replicas=True)}, "base: sharding.replicas=True"),
        ({"optim": OptimConfig(warmup_steps=False)}, "base: optim.warmup_steps=False"),
        ({"optim": OptimConfig(tables=TablesConfig(lr_scale={"user": True}))}, "base: optim.tables.lr_scale.user=True"),
        ({"train": replace(base.train, look_back=(1, True))}, "base: train.look_back.1=True"),
        ({"model": Ranker(experts=True)}, "base: model.experts=True"),
        ({"hooks": (Pam(cuts=(5, True)),)}, "base: pam.cuts.1=True"),
    ):
        with pytest.raises(UserError, match=f"^{message}"):
            validate(replace(base, **changes))


def test_a_head_with_a_check_of_its_own_is_set():
    kind = Capped.kind()
    assert load(POSO, [f"tasks.like={kind}", "tasks.like.top=3"]).tasks["like"] == Capped(top=3)
    with pytest.raises(UserError, match=r"tasks.like.*top has to be above 0"):
        load(POSO, [f"tasks.like={kind}", "tasks.like.top=-3"])
