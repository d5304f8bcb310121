"""The configuration of a run: what an arm returns, what `config.json` holds, what `--set a.b=c` changes."""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict

from coldrank.data.cohorts import CohortConfig
from coldrank.metrics.retrieval import RetrievalConfig
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.models.ranker import RankerConfig
from coldrank.models.two_tower import TwoTowerConfig
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.hooks.config import MetaCFConfig
from coldrank.train.hooks.mwuf_config import MwufConfig
from coldrank.train.hooks.pam_config import PamConfig


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
