"""MetaCF in a model: while a user has few events, the ID embedding is the one adapted to them (modules/metacf.py).

A sample's history is the support, as of the time of its event; the sample itself is the query, and the model's loss on
it trains the learner of the initial embedding together with the rest. B batch, L sequence length.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from coldrank.models.adapted_users import POOL, AdaptedUsers, signals_of, width
from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded
from coldrank.models.features import FeatureSet
from coldrank.modules import MetaCF as Adaptation
from coldrank.modules.gate import separate_draws
from coldrank.train.distributed.ranks import of_all_ranks
from coldrank.train.hooks.hook import Hook, HookModule, RunView, Settings


@dataclass(kw_only=True, slots=True)
class MetaCF(Hook):
    """The embedding of a user with at most `max_views` events is one adapted to them (docs/metacf.md)."""

    reads: ClassVar[tuple[str, ...]] = ("user_views",)
    reads_sequences: ClassVar[bool] = True
    user: str = "user_id"
    """The feature of the user's id."""
    items: str = "hist_item_id"
    """The feature of the history's items, whose table is as wide as the user's."""
    signal: str = ""
    """The column of the history's signals that tells a positive event from a negative one ('': hist_<task> of the first
    task that has one, and none for a history without signals; none: every event is positive)."""
    negatives: NonNegativeInt = 3
    """Where no signal tells, so many times an event's weight goes to items that are not in the history, drawn from
    those of the last batch."""
    max_views: NonNegativeInt = 10
    """Events of a user who is new."""
    learner: Literal["general", "linear", "neural"] = "neural"
    """Of the initial embedding."""
    hidden: PositiveInt = 32
    """Width of the neural learner's hidden layer."""
    steps: NonNegativeInt = 5
    """Of the adaptation."""
    rate: float = 0.1
    """Of a step."""
    learn_rates: bool = True
    """Trains the rates too."""
    first_order: bool = False
    """Learns nothing through the steps, as in the paper."""
    fraction: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of the embedding that is adapted."""

    def build(self, config: Settings, features: FeatureSet) -> "MetaCFModule":
        return MetaCFModule(self, config, features)

    def idle(self, config: Settings) -> list[tuple[bool, tuple[str, ...], str]]:
        signals = self.signal != "none" and (self.signal or any(f.kind == "signals" for f in config.features))
        steps = ("rate", "learn_rates", "first_order", "negatives")
        return [
            (self.learner != "neural", ("hidden",), f"with metacf.learner={self.learner!r}"),
            (bool(signals), ("negatives",), "where a signal tells; set metacf.signal=none"),
            (not self.steps, steps, "with metacf.steps=0"),
        ]


class MetaCFModule(HookModule):
    """Adapts the embeddings of new users, in training and evaluation. users: what serving takes over.

    Where no signal tells positive events from others, the pool of negatives is drawn after each step from the items of
    the histories in the batch, of all ranks; born: the earliest event that had each of them in its history, ms, int64
    [P]. In training an event takes those alone that an event up to then had.
    """

    born: Tensor
    steps: Tensor

    def __init__(self, c: MetaCF, config: Settings, features: FeatureSet) -> None:
        super().__init__()
        self.config = c
        dim = width(features, c.user, c.items)
        signal = signal_of(c, config, features)
        with separate_draws():  # so that the model begins as it does without the hook
            metacf = Adaptation(
                dim, c.learner, c.hidden, c.steps, c.rate, learn_rates=c.learn_rates, first_order=c.first_order
            )
        self.users = AdaptedUsers(
            features,
            metacf,
            user=c.user,
            items=c.items,
            signal=signal,
            max_views=c.max_views,
            fraction=c.fraction,
            negatives=0 if signal else c.negatives,
        )
        draws = bool(self.users.negatives)
        self.register_buffer("born", torch.zeros(len(self.users.pool), dtype=torch.int64), persistent=draws)
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64), persistent=draws)
        self._met: tuple[Tensor, Tensor, Tensor] | None = None

    def embed(self, batch: Batch, embedded: Embedded) -> Embedded:
        users = self.users
        codes = batch.positions(users.codes)
        views = batch.keys["user_views"].to(codes.device, non_blocking=True)
        items, born = embedded[users.items], None
        if users.negatives and self.training and torch.is_grad_enabled():
            time = batch.keys["time"].to(codes.device, non_blocking=True).unsqueeze(1)
            born = self.born <= time
            present = codes >= 0
            self._met = codes[present], items.detach()[present], time.expand_as(codes)[present]
        return embedded | {users.user: users(embedded[users.user], items, codes, views, born)}

    def after_step(self, run: RunView) -> None:
        """Draws the next pool: of the items met, those whose row and step give the lowest numbers, on any number of
        ranks."""
        if self._met is None:
            return
        met, self._met = _drawn(*self._met, int(self.steps)), None
        rows, vectors, times = (of_all_ranks(x) for x in met)
        rows, vectors, born = _drawn(rows, vectors, times, int(self.steps))
        self.steps += 1
        self.users.pool_rows.fill_(-1)
        self.users.pool_rows[: len(rows)], self.users.pool[: len(rows)], self.born[: len(rows)] = rows, vectors, born


def signal_of(c: MetaCF, config: Settings, features: FeatureSet) -> str:
    """The signal that tells positive events, '' if there is none. ValueError for a history with signals of no task."""
    sequences = [f.sequence for f in features.sparse if f.name == c.items and f.role == "sequence"]
    there = signals_of(features.sequences[sequences[0]]) if sequences else []
    if c.signal == "none" or not (c.signal or there):
        return ""
    signal = c.signal or next((f"hist_{task}" for task in config.tasks if f"hist_{task}" in there), "")
    if not signal:
        raise ValueError(f"signal='': the history has {there}, and no task of {list(config.tasks)}; name one, or none")
    return signal


def _drawn(rows: Tensor, vectors: Tensor, times: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of events' items (rows int64 [n], vectors [n, D]) and times, up to `POOL` different items: with the earliest time
    of each."""
    unique, place = rows.unique(return_inverse=True)
    earliest = torch.full_like(unique, torch.iinfo(torch.int64).max).scatter_reduce(0, place, times, "amin")
    first = torch.full_like(unique, len(rows)).scatter_reduce(
        0, place, torch.arange(len(rows), device=rows.device), "amin"
    )
    # Differs from step to step; an odd multiple of the row, so that no two rows have one number.
    number = ((unique + step * 0x5851F42D) * 0x2545F491) % (1 << 31)
    chosen = number.argsort()[:POOL]
    return unique[chosen], vectors[first[chosen]], earliest[chosen]
