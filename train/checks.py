"""What no single field of a config can check: `validate`, after the arm and the command line have had their say."""

from coldrank.data.arm import Arm
from coldrank.data.errors import UserError
from coldrank.models.features import FeatureSet
from coldrank.models.two_tower import features_problem
from coldrank.train.config import DataConfig, RunConfig
from coldrank.train.hooks.config import NAMES
from coldrank.train.idle import idle_problem


def as_arm(config: RunConfig) -> Arm:
    """What the checks of data are told of a config. Raises UserError for one that cannot be."""
    return Arm(
        name=config.name,
        features=validate(config),
        tasks=tuple(config.tasks),
        fit=config.data.fit,
        evaluate=config.data.evaluate,
    )


def validate(config: RunConfig) -> FeatureSet:
    """Checks what no single field can, and returns the features that the model reads: all, but for a personalization code
    that no gate takes. Raises UserError naming the field, the value and what would be right."""
    with_pc = config.model.personalized and config.model.pc == "feature"
    try:
        tables = FeatureSet(config.features, config.tables).tables
        features = FeatureSet((f for f in config.features if with_pc or f.role != "pc"), config.tables)
    except ValueError as error:
        raise UserError(f"{config.name}: {error}") from None
    m, d, o, t = config.model, config.data, config.optim, config.train
    _check_rates(config, {table.name for table in tables})
    _check_periods(config)
    _check_hooks(config)
    if config.two_tower is not None and (wrong := two_tower_problem(config, features)):
        raise UserError(f"{config.name}: {wrong}")
    _check_model(config, features)
    config.sharding.check(config.name, tables)
    positive = {
        "model.heads": m.heads,
        "model.head_dim": m.head_dim,
        "model.experts": m.experts,
        "model.crosses": m.crosses,
        "model.mha_folds": m.mha_folds,
        "model.gate_hidden": m.gate_hidden,
        "model.gate_scale": m.gate_scale,
        "data.batch_size": d.batch_size,
        "data.eval_batch_size": d.eval_batch_size,
        "data.prefetch": d.prefetch,
        "optim.sparse_lr": o.sparse_lr,
        "optim.sparse_eps": o.sparse_eps,  # or a row that is read with a gradient of 0 becomes 0 / 0
        "optim.dense_lr": o.dense_lr,
        "optim.gate_lr_scale": o.gate_lr_scale,
        "train.epochs": t.epochs,
        "train.log_every": t.log_every,
        "train.keep_checkpoints": t.keep_checkpoints,
        "train.accumulate": t.accumulate,
        "train.look_back_rows": t.look_back_rows,
    }
    at_least_0 = {
        "cold_weight": config.cold_weight,
        "data.global_batch_size": d.global_batch_size,
        "data.shuffle_rows": d.shuffle_rows,
        "optim.weight_decay": o.weight_decay,
        "optim.warmup_steps": o.warmup_steps,
        "optim.table_init": o.table_init,
        "optim.sparse_warmup_steps": o.sparse_warmup_steps or 0,
        "optim.sparse_weight_decay": o.sparse_weight_decay,
        "optim.clip_norm": o.clip_norm,
        "optim.sparse_clip": o.sparse_clip,
        "train.cold_passes": t.cold_passes,
        "train.steps": t.steps,
        "train.checkpoint_every": t.checkpoint_every,
        "train.threads": t.threads,
        "train.follow_s": t.follow_s,
    }
    for name, value in at_least_0.items():
        if value < 0:
            raise UserError(f"{config.name}: {name}={value}: must not be below 0")
    for name, value in positive.items():
        if value <= 0:
            raise UserError(f"{config.name}: {name}={value}: must be above 0")
    sizes = [("model.expert_hidden", m.expert_hidden), ("model.tower_hidden", m.tower_hidden)]
    for name, widths in sizes:
        if not widths or min(widths) < 1:
            raise UserError(f"{config.name}: {name}={list(widths)}: give at least one width above 0")
    if not config.tasks or min(config.tasks.values()) < 0 or max(config.tasks.values()) == 0:
        raise UserError(f"{config.name}: tasks={config.tasks}: give at least one task, weights not below 0, not all 0")
    _check_data(config)
    if wrong := idle_problem(config):
        raise UserError(f"{config.name}: {wrong}")
    return features


def _check_data(config: RunConfig) -> None:
    """Checks which samples are read and how."""
    d = config.data
    if d.global_batch_size > 0 and d.batch_size != DataConfig().batch_size:
        raise UserError(
            f"{config.name}: data.global_batch_size={d.global_batch_size} and data.batch_size={d.batch_size}: one of them; "
            f"data.batch_size={DataConfig().batch_size} leaves it to the first, data.global_batch_size=0 to the second"
        )
    if d.order == "random" and d.shuffle_rows == 0:
        raise UserError(f"{config.name}: data.order='random' needs data.shuffle_rows above 0; or set data.order=time")
    if d.evaluate in d.fit:
        raise UserError(
            f"{config.name}: data.evaluate={d.evaluate!r} is also in data.fit={list(d.fit)}: it would be trained on"
        )


def _check_model(config: RunConfig, features: FeatureSet) -> None:
    """Checks what a kind of model or personalization asks for."""
    m, t = config.model, config.train
    if not 0 <= m.dropout < 1:
        raise UserError(f"{config.name}: model.dropout={m.dropout}: must be in [0, 1)")
    if (
        config.two_tower is None
        and m.personalized
        and m.pc == "feature"
        and not any(f.role == "pc" for f in config.features)
    ):
        raise UserError(
            f"{config.name}: model.pc='feature', but no feature has role 'pc'; declare one, or model.pc=constant"
        )
    if m.personalized and m.kind != "ranker":
        raise UserError(f"{config.name}: model.kind={m.kind!r} has no personalized parts; unset model.poso_*")
    widths = {f.name: features.dim(f) for f in features.sparse if f.role not in ("sequence", "pc")}
    if m.kind == "deepfm" and len(set(widths.values())) > 1:
        raise UserError(f"{config.name}: model.kind='deepfm' needs fields of one width; dim is {widths}")
    if t.cold_passes and t.cold_trains == "gates" and not m.personalized:
        raise UserError(
            f"{config.name}: train.cold_trains='gates', but no part is personalized; set train.cold_trains=all"
        )


def _check_hooks(config: RunConfig) -> None:
    """Checks the hooks' names, and what a hook leaves no room for."""
    for name in config.hooks:
        if name not in NAMES or config.hooks.count(name) > 1:
            text = "is there twice" if name in NAMES else f"is not one of {', '.join(NAMES)}"
            raise UserError(f"{config.name}: hooks={list(config.hooks)}: {name!r} {text}")
    if wrong := company_problem(config):
        raise UserError(f"{config.name}: {wrong}")


def _check_rates(config: RunConfig, tables: set[str]) -> None:
    """Checks what the tables ask of the training: rates of their own, and steps one by one."""
    managed = [t.name for t in config.tables if t.mapping == "managed"]
    if managed and config.train.pipeline == "on":
        raise UserError(
            f"{config.name}: train.pipeline='on': rows of managed tables ({', '.join(managed)}) pass from one id to another, "
            "and a pipeline reads ahead of the steps; set train.pipeline=auto"
        )
    for name, scale in config.optim.table_lr_scale.items():
        if name not in tables:
            raise UserError(
                f"{config.name}: optim.table_lr_scale has {name!r}, which is no table; there are {', '.join(sorted(tables))}"
            )
        if scale < 0:
            raise UserError(f"{config.name}: optim.table_lr_scale[{name!r}]={scale}: must not be below 0")


def _check_periods(config: RunConfig) -> None:
    """Checks what a stream of periods leaves no room for."""
    t, o = config.train, config.optim
    if min(t.look_back, default=0) < 0 or len(set(t.look_back)) < len(t.look_back):
        raise UserError(f"{config.name}: train.look_back={list(t.look_back)}: must be different numbers, not below 0")
    if t.mode == "passes":
        if t.first_period or t.follow_s:
            name = "first_period" if t.first_period else "follow_s"
            raise UserError(f"{config.name}: train.{name}={getattr(t, name)!r} is of a stream; set train.mode=periods")
        return
    wanted = {
        "train.epochs": (t.epochs, 1),
        "train.cold_passes": (t.cold_passes, 0),
        # A decay ends with the run, and a stream does not.
        "optim.decay": (o.decay, "constant"),
        "optim.sparse_decay": (o.sparse_decay or "constant", "constant"),
    }
    for name, (value, right) in wanted.items():
        if value != right:
            raise UserError(f"{config.name}: {name}={value!r}: must be {right!r} with train.mode=periods")


def two_tower_problem(config: RunConfig, features: FeatureSet) -> str:
    """What leaves the retrieval model no room in a config, in words; '' if nothing does."""
    c, t = config.two_tower, config.train
    assert c is not None
    wrong = [
        (len(config.tasks) != 1, f"tasks={config.tasks}: two_tower learns one task"),
        (not c.widths or min(c.widths) < 1, f"two_tower.widths={list(c.widths)}: give at least one width above 0"),
        (c.temperature <= 0, f"two_tower.temperature={c.temperature}: must be above 0"),
        (t.accumulate > 1, f"train.accumulate={t.accumulate}: two_tower compares rows; must be 1"),
        (config.cold_weight != 1, f"cold_weight={config.cold_weight}: two_tower knows none; must be 1"),
        (t.precision != "float32", f"train.precision={t.precision!r}: two_tower trains in float32; must be float32"),
    ]
    return next((message for broken, message in wrong if broken), "") or features_problem(
        features, sequences="metacf" in config.hooks
    )


def company_problem(config: RunConfig) -> str:
    """What PAM leaves no room for in the rest of a config, in words; '' if nothing."""
    if "pam" not in config.hooks:
        return ""
    still = "mwuf" in config.hooks and config.mwuf.mode == "warm_up"
    wrong = [
        (
            config.cold_weight != 1,
            f"cold_weight={config.cold_weight}: 'pam' weighs by pam.cold_weight alone; must be 1",
        ),
        (config.train.precision != "float32", "train.precision='bf16': 'pam' adapts in float32; must be float32"),
        (still, "mwuf.mode='warm_up' holds the model still, and 'pam' adapts its towers at every step; leave one out"),
    ]
    return next((message for broken, message in wrong if broken), "")
