"""What no single field of a config can check: `validate`, after the arm and the command line have had their say."""

from dataclasses import fields

from coldrank.data.arm import ArmSettings
from coldrank.data.errors import UserError, meant
from coldrank.data.log import SAMPLED
from coldrank.metrics.by_cohort import is_metric, unknown_metrics
from coldrank.models.features import FeatureSet
from coldrank.train.config import NAMED, RunConfig, parse, to_dict
from coldrank.train.distributed.refused import sharding_problem
from coldrank.train.idle import idle_problem
from coldrank.train.sections import DataConfig


def as_arm(config: RunConfig) -> ArmSettings:
    """What the checks of data are told of a config. Raises UserError for one that cannot be."""
    return ArmSettings(
        name=config.name,
        features=validate(config),
        tasks=config.tasks,
        fit=config.data.fit,
        since=config.data.since,
        evaluate=config.data.evaluate,
        reads_lengths=bool(getattr(config.model, "positions", True)),
        new_user_max_views=config.cohorts.new_user_max_views,
    )


def validate(config: RunConfig) -> FeatureSet:
    """Checks types, ranges and what no single field can, and returns the features that the model reads: all, but for a
    personalization code that no gate takes. Raises UserError naming the field, the value and what would be right."""
    parse(to_dict(config), config.name)
    try:
        tables = FeatureSet(config.features, config.tables).tables
        features = FeatureSet((f for f in config.features if config.model.reads_pc or f.role != "pc"), config.tables)
    except ValueError as error:
        raise UserError(f"{config.name}: {error}") from None
    if narrow := next((t for t in tables if t.dim % 4), None):
        wanted = "must be a multiple of 4, as the tables' kernels have it"
        raise UserError(f"{config.name}: table {narrow.name!r}: dim={narrow.dim}: {wanted}")
    _check_inputs(config)
    _check_rates(config, {table.name for table in tables})
    _check_periods(config)
    _check_hooks(config)
    _check_model(config, features)
    config.sharding.check(config.name, tables)
    if wrong := sharding_problem(config.sharding, tables, config.optim.tables, config.written_tables):
        raise UserError(f"{config.name}: {wrong}")
    _check_tasks(config)
    _check_data(config)
    if wrong := idle_problem(config):
        raise UserError(f"{config.name}: {wrong}")
    return features


def _check_inputs(config: RunConfig) -> None:
    """Checks that no feature reads what is known after the event alone, or the samples' weights."""
    weight = config.data.weight_column
    if weight.startswith("label_"):
        raise UserError(f"{config.name}: data.weight_column={weight!r}: is a label; must be another column")
    for feature in config.features:
        if weight and weight in feature.raw_columns:
            raise UserError(
                f"{config.name}: data.weight_column={weight!r}: feature {feature.name!r} reads it; must be no input"
            )
        for column in feature.raw_columns:
            if column.startswith(("label_", "true_")) or column == SAMPLED:
                raise UserError(
                    f"{config.name}: feature {feature.name!r} reads {column!r}: an outcome is no input of its own event"
                )


def _check_tasks(config: RunConfig) -> None:
    """Checks each task by itself, and that there is something to learn."""
    weights = {name: head.weight for name, head in config.tasks.items()}
    if max(weights.values(), default=0.0) == 0:
        raise UserError(f"{config.name}: tasks={weights}: give at least one task, weights not all 0")
    for name, head in config.tasks.items():
        if "." in name:
            raise UserError(f"{config.name}: tasks: {name!r}: a task's name holds no dot")
        if wrong := head.problem():
            raise UserError(f"{config.name}: tasks.{name}.{wrong}")
        if unknown := unknown_metrics(head):
            raise UserError(
                f"{config.name}: tasks.{name}: {head.kind()} is judged by {unknown[0]!r}, which is no metric of it"
            )


def _check_data(config: RunConfig) -> None:
    """Checks which samples are read and how."""
    d = config.data
    if d.global_batch_size > 0 and d.batch_size != DataConfig().batch_size:
        raise UserError(
            f"{config.name}: data.global_batch_size={d.global_batch_size} and data.batch_size={d.batch_size}: "
            f"one of them; "
            f"data.batch_size={DataConfig().batch_size} leaves it to the first, data.global_batch_size=0 to the second"
        )
    if d.order == "random" and d.shuffle_rows == 0:
        raise UserError(f"{config.name}: data.order='random' needs data.shuffle_rows above 0; or set data.order=time")
    if d.evaluate in d.fit:
        raise UserError(
            f"{config.name}: data.evaluate={d.evaluate!r} is also in data.fit={list(d.fit)}: it would be trained on"
        )


def _check_model(config: RunConfig, features: FeatureSet) -> None:
    """Checks what the model asks of the rest."""
    m, t = config.model, config.train
    sequences = any(hook.reads_sequences for hook in config.hooks)
    alone = f"model={m.kind()!r} compares rows"
    wrong = [
        (m.compares_rows and t.accumulate > 1, f"train.accumulate={t.accumulate}: {alone}; must be 1"),
        (m.compares_rows and config.cold_weight != 1, f"cold_weight={config.cold_weight}: {alone}; must be 1"),
        (
            m.compares_rows and config.data.weight_column != "",
            f"data.weight_column={config.data.weight_column!r}: {alone}; must be empty",
        ),
        (
            m.compares_rows and t.precision != "float32",
            f"train.precision={t.precision!r}: {alone}, in float32; must be float32",
        ),
        (
            t.cold_passes > 0 and t.cold_trains == "gates" and not m.personalized,
            "train.cold_trains='gates', but no part is personalized; set train.cold_trains=all",
        ),
    ]
    message = next((message for broken, message in wrong if broken), "")
    if message := message or m.problem(features, config.tasks, sequences=sequences):
        raise UserError(f"{config.name}: {message}")


def _check_hooks(config: RunConfig) -> None:
    """Checks that every hook and metric has a name to itself, and what a hook leaves no room for."""
    taken = dict.fromkeys((f.name for f in fields(config)), "a field of the config")
    for field in NAMED:
        names = [part.short_name() for part in getattr(config, field)]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{config.name}: {field}={names}: {name!r} is there twice")
            if what := taken.get(name) or (field == "metrics" and is_metric(name) and "a metric of every run"):
                raise UserError(f"{config.name}: {field}: {name!r} is {what}; give the class another name")
        taken |= dict.fromkeys(names, f"one of {field}")
    for hook in config.hooks:
        if wrong := hook.problem(config):
            raise UserError(f"{config.name}: {wrong}")


def _check_rates(config: RunConfig, tables: set[str]) -> None:
    """Checks what the tables ask of the training: rates of their own, and steps one by one."""
    waits = [t.name for t in config.tables if t.mapping == "growing" and t.min_count > 1]
    if waits and config.train.pipeline == "on":
        raise UserError(
            f"{config.name}: train.pipeline='on': ids of {', '.join(waits)} that wait for a row (min_count) are "
            "counted step by step, and a pipeline reads ahead of the steps; set train.pipeline=auto"
        )
    evicting = [t.name for t in config.tables if t.mapping == "managed"]
    if evicting and config.train.pipeline == "on":
        raise UserError(
            f"{config.name}: train.pipeline='on': rows of managed tables ({', '.join(evicting)}) pass from one id to "
            "another, and a pipeline reads ahead of the steps; set train.pipeline=auto"
        )
    for name in config.optim.tables.lr_scale:
        if name not in tables:
            raise UserError(
                f"{config.name}: optim.tables.lr_scale has {name!r}, which is no table; {meant(name, sorted(tables))}"
            )


def _check_periods(config: RunConfig) -> None:
    """Checks what a stream of periods leaves no room for."""
    t = config.train
    if len(set(t.look_back)) < len(t.look_back):
        raise UserError(f"{config.name}: train.look_back={list(t.look_back)}: must be different numbers")
    if t.mode == "passes":
        if t.first_period or t.follow_s:
            name = "first_period" if t.first_period else "follow_s"
            raise UserError(f"{config.name}: train.{name}={getattr(t, name)!r} is of a stream; set train.mode=periods")
        return
    wanted = {
        "train.epochs": (t.epochs, 1),
        "train.cold_passes": (t.cold_passes, 0),
        # A decay ends with the run, and a stream does not.
        **{name: (decay, "constant") for name, decay in config.optim.decays().items()},
    }
    for name, (value, right) in wanted.items():
        if value != right:
            raise UserError(f"{config.name}: {name}={value!r}: must be {right!r} with train.mode=periods")
