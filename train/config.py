"""The configuration of a run: what an arm returns, what `config.json` holds, what `--set a.b=c` changes."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from coldrank.data.errors import UserError
from coldrank.metrics.by_cohort import CohortConfig
from coldrank.metrics.retrieval import RetrievalConfig, two_tower_problem
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.models.ranker import RankerConfig
from coldrank.models.two_tower import TwoTowerConfig
from coldrank.train.arms import candidates, find_arm
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.hooks.config import NAMES, MetaCFConfig, company_problem
from coldrank.train.hooks.mwuf_config import MwufConfig
from coldrank.train.hooks.pam_config import PamConfig
from coldrank.train.idle import idle_problem
from coldrank.train.overrides import override, with_new_names


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Which samples are read, and how.

    fit: splits that are trained on. evaluate: the split that the run reports at its end.
    batch_size: samples per step and rank. global_batch_size: samples per step of all ranks together, the same ones on any number
    of ranks (0: batch_size on every rank). shuffle_rows: rows per shuffle buffer, of a rank or, with global_batch_size, of all
    together (0: in the order of time).
    prefetch: batches built ahead by a background thread.
    """

    fit: tuple[str, ...] = ("train", "valid")
    evaluate: str = "test"
    batch_size: int = 1024
    global_batch_size: int = 0
    eval_batch_size: int = 4096
    shuffle_rows: int = 131_072
    order: Literal["time", "random"] = "random"
    prefetch: int = 4

    def rank_batch(self, ranks: int) -> int:
        """Samples of a step on one of so many ranks, at most."""
        return -(-self.global_batch_size // ranks) or self.batch_size


Decay = Literal["constant", "linear", "cosine"]


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """`table_optimizer`, fused with the backward pass, for the tables; AdamW for everything else. docs/training.md has the rules.

    gate_lr_scale: learning rate of POSO's gates over that of the other dense parameters. table_lr_scale: table -> its learning
    rate over sparse_lr. table_init: standard deviation of the tables' first weights.
    warmup_steps, decay: of all learning rates over the run: linear warm-up, then constant, or down to a tenth, linear or as half
    a cosine. sparse_warmup_steps, sparse_decay: of the tables' (None: as the others).
    weight_decay: decoupled, w <- (1 - rate * weight_decay) w, of all dense parameters. sparse_weight_decay: the same of the
    tables, for the rows that a step reads.
    clip_norm: largest norm of all dense gradients together (0: no limit). sparse_clip: largest size of an element of the gradient
    that a bag of a table gets, before those of a row are summed (0: no limit).
    table_optimizer: adam needs a GPU.
    """

    sparse_lr: float = 0.05
    sparse_eps: float = 1e-8
    dense_lr: float = 1e-3
    gate_lr_scale: float = 1.0
    weight_decay: float = 0.0
    warmup_steps: int = 0
    decay: Decay = "constant"
    table_init: float = 0.01
    table_optimizer: Literal["rowwise_adagrad", "adagrad", "sgd", "adam"] = "rowwise_adagrad"
    table_lr_scale: dict[str, float] = field(default_factory=dict)
    sparse_warmup_steps: int | None = None
    sparse_decay: Decay | None = None
    sparse_weight_decay: float = 0.0
    clip_norm: float = 0.0
    sparse_clip: float = 0.0


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """Length and bookkeeping of the training. steps: stops after so many steps (0: after `epochs` passes). checkpoint_every:
    steps between checkpoints (0: one at the end). threads: of torch (0: its default).

    cold_passes: passes over the samples of new users alone (`cohorts.new_user_max_views`), after the epochs; the schedule of the
    learning rates spans both. cold_trains: what they train: all, or the gates only.

    accumulate: the dense part takes a batch in so many slices, one after another, and holds the activations of one; the step
    is that of the whole batch, for tables and dense weights. precision: of the dense part in training, under autocast; tables,
    losses and evaluation are in float32. pipeline: sends the ids of the next batch while one is computed (the same results;
    auto: on GPUs, where no table is managed).

    warm_start: folder of a run whose weights this one begins with, where they fit (train/warm_start.py). warm_rename: names of
    that run's tables or parameters -> names in this one.

    mode: passes over `data.fit`, or periods (docs/streaming.md): each period of the data, whatever its split, is scored by the
    model of all before it and then trained on, once and in order of time. first_period: the first that is streamed; what lies
    before is trained on without being scored, as `data.order` says (empty: the first of the data is). look_back: after each
    period, scores a sample of so many rows (look_back_rows) of the periods so far back. follow_s: seconds to wait for another
    period at the end of the data.
    """

    mode: Literal["passes", "periods"] = "passes"
    first_period: str = ""
    look_back: tuple[int, ...] = (1, 7)
    look_back_rows: int = 10_000
    follow_s: float = 0.0
    epochs: int = 1
    cold_passes: int = 0
    cold_trains: Literal["all", "gates"] = "all"
    steps: int = 0
    log_every: int = 50
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    threads: int = 0
    accumulate: int = 1
    precision: Literal["float32", "bf16"] = "float32"
    pipeline: Literal["auto", "on", "off"] = "auto"
    warm_start: str = ""
    warm_rename: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """A whole run. tasks: name -> weight in the loss. cold_weight: weight in the loss of the samples of new users
    (`cohorts.new_user_max_views`), where those of others weigh 1; at 2 each counts as if it were there twice. hooks: the
    training methods that are on, by name and in order (docs/hooks.md); each has its settings in the field of its name.
    two_tower: the retrieval model, which takes the place of `model`; retrieval: how it is judged (docs/pam.md)."""

    name: str
    seed: int = 1
    tasks: dict[str, float]
    cold_weight: float = 1.0
    hooks: tuple[str, ...] = ()
    metacf: MetaCFConfig = field(default_factory=MetaCFConfig)
    mwuf: MwufConfig = field(default_factory=MwufConfig)
    features: tuple[Feature, ...]
    tables: tuple[Table, ...] = ()
    model: RankerConfig = field(default_factory=RankerConfig)
    two_tower: TwoTowerConfig | None = None
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    pam: PamConfig = field(default_factory=PamConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    cohorts: CohortConfig = field(default_factory=CohortConfig)
    sharding: ShardingConfig = field(default_factory=ShardingConfig)

    def table_scales(self, features: FeatureSet) -> dict[str, float]:
        """Table -> standard deviation of its first weights."""
        return {t.name: t.init or self.optim.table_init for t in features.tables}


_PARTS = (DataConfig, OptimConfig, TrainConfig, RankerConfig, CohortConfig, ShardingConfig, Feature, Table)
for _class in (RunConfig, MetaCFConfig, MwufConfig, TwoTowerConfig, RetrievalConfig, PamConfig, *_PARTS):
    _class.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[union-attr]
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
