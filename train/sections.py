"""Sections of a run's config: its data, its optimizers, its training."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class Section:
    """Base of a config's sections."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(kw_only=True, slots=True)
class DataConfig(Section):
    """Which samples are read, and how."""

    since: str = ""
    """The first period whose samples are read, for training on the last days alone: earlier events are in counters,
    rates and histories, as before (empty: all are read)."""
    fit: tuple[str, ...] = ("train", "valid")
    """Splits that are trained on."""
    evaluate: str = "test"
    """The split that the run reports at its end."""
    weight_column: str = ""
    """Column with the weight of each sample in the loss, a number not below 0, times that of `cold_weight` (empty: 1
    each). Metrics weigh every sample alike: what is reported is of the samples as they came."""
    batch_size: PositiveInt = 1024
    """Samples per step and rank."""
    global_batch_size: NonNegativeInt = 0
    """Samples per step of all ranks together, the same ones on any number of ranks (0: batch_size on every rank)."""
    eval_batch_size: PositiveInt = 4096
    """Samples per rank that evaluation scores at a time."""
    shuffle_rows: NonNegativeInt = 131_072
    """Rows per shuffle buffer, of a rank or, with global_batch_size, of all together (0: in the order of time)."""
    order: Literal["time", "random"] = "random"
    """In which training reads the samples."""
    prefetch: PositiveInt = 4
    """Batches built ahead by a background thread."""

    def rank_batch(self, ranks: int) -> int:
        """Samples of a step on one of so many ranks, at most."""
        return -(-self.global_batch_size // ranks) or self.batch_size


Decay = Literal["constant", "linear", "cosine"]
Beta = Annotated[float, Field(ge=0, lt=1)]


@dataclass(kw_only=True, slots=True)
class OptimizerConfig(Section):
    """What the optimizers of the tables and of the dense weights have in common."""

    lr: PositiveFloat
    """Learning rate."""
    eps: PositiveFloat = 1e-8
    """Added to the denominator. Above 0, or a weight whose gradients are all 0 becomes 0 / 0."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Of Adam: what the means of gradients and of their squares keep at a step."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled, w <- (1 - rate * weight_decay) w; of the tables' rows, those that a step reads."""
    warmup_steps: NonNegativeInt | None = None
    """Steps over which the rate rises linearly (None: `optim.warmup_steps`)."""
    decay: Decay | None = None
    """Of the rate after that (None: `optim.decay`)."""


@dataclass(kw_only=True, slots=True)
class TablesConfig(OptimizerConfig):
    """The embedding tables' optimizer, fused with the backward pass."""

    kind: Literal["rowwise_adagrad", "adagrad", "sgd", "adam"] = "rowwise_adagrad"
    """The rule; adam needs a GPU."""
    lr: PositiveFloat = 0.05
    """Learning rate."""
    lr_scale: dict[str, NonNegativeFloat] = field(default_factory=dict)
    """Table -> its learning rate over `lr`."""
    clip_value: NonNegativeFloat = 0.0
    """Largest size of an element of the gradient that a bag of a table gets, before those of a row are summed (0: no
    limit)."""
    init: NonNegativeFloat = 0.01
    """Standard deviation of the tables' first weights."""


@dataclass(kw_only=True, slots=True)
class DenseConfig(OptimizerConfig):
    """AdamW, for everything else."""

    lr: PositiveFloat = 1e-3
    """Learning rate."""
    gate_lr_scale: PositiveFloat = 1.0
    """Learning rate of POSO's gates over `lr`."""
    clip_norm: NonNegativeFloat = 0.0
    """Largest norm of all dense gradients together (0: no limit)."""


@dataclass(kw_only=True, slots=True)
class OptimConfig(Section):
    """The two optimizers, and the schedule of both where they have none of their own (docs/training.md)."""

    tables: TablesConfig = field(default_factory=TablesConfig)
    """Of the embedding tables."""
    dense: DenseConfig = field(default_factory=DenseConfig)
    """Of everything else."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which all learning rates rise linearly."""
    decay: Decay = "constant"
    """Of all learning rates after that: constant, or down to a tenth, linear or as half a cosine."""

    def schedule(self, part: OptimizerConfig) -> tuple[int, Decay]:
        """Steps of warm-up and decay of one of the two."""
        return (self.warmup_steps if part.warmup_steps is None else part.warmup_steps), part.decay or self.decay

    def decays(self) -> dict[str, Decay]:
        """The decays that are set, by their fields."""
        every = {"decay": self.decay, "tables.decay": self.tables.decay, "dense.decay": self.dense.decay}
        return {f"optim.{name}": decay for name, decay in every.items() if decay is not None}


@dataclass(kw_only=True, slots=True)
class TrainConfig(Section):
    """Length and bookkeeping of the training."""

    mode: Literal["passes", "periods"] = "passes"
    """Passes over `data.fit`, or periods (docs/streaming.md): each period of the data, whatever its split, is scored by
    the model of all before it and then trained on, once and in order of time."""
    first_period: str = ""
    """The first that is streamed; what lies before is trained on without being scored, as `data.order` says (empty: the
    first of the data is)."""
    look_back: tuple[NonNegativeInt, ...] = (1, 7)
    """After each period, a sample of the periods so far back is scored."""
    look_back_rows: PositiveInt = 10_000
    """Rows of that sample."""
    follow_s: NonNegativeFloat = 0.0
    """Seconds to wait for another period at the end of the data."""
    epochs: PositiveInt = 1
    """Passes over the data."""
    cold_passes: NonNegativeInt = 0
    """Passes over the samples of new users alone (`cohorts.new_user_max_views`), after the epochs; the schedule of the
    learning rates spans both."""
    cold_trains: Literal["all", "gates"] = "all"
    """What the cold passes train: all, or the gates only."""
    steps: NonNegativeInt = 0
    """Stops after so many steps (0: after `epochs` passes)."""
    log_every: PositiveInt = 50
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: NonNegativeInt = 1000
    """Steps between checkpoints (0: one at the end)."""
    keep_checkpoints: PositiveInt = 2
    """Checkpoints that are kept, the last ones."""
    threads: NonNegativeInt = 0
    """Threads of torch (0: its default)."""
    accumulate: PositiveInt = 1
    """Micro-batches: the dense part takes a batch in so many, one after another, and holds the activations of one; the
    step is that of the whole batch, for tables and dense weights."""
    precision: Literal["float32", "bf16"] = "float32"
    """Of the dense part in training, under autocast; tables, losses and evaluation are in float32."""
    pipeline: Literal["auto", "on", "off"] = "auto"
    """Sends the ids of the next batch while one is computed (the same results; auto: on GPUs, where no table
    evicts ids)."""
    warm_start: str = ""
    """Folder of a run whose weights this one begins with, where they fit (train/warm_start.py)."""
    warm_rename: dict[str, str] = field(default_factory=dict)
    """Names of that run's tables or parameters -> names in this one."""
