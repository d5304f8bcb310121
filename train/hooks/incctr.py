"""IncCTR (Wang et al., 2020): knowledge distillation from the model of the period before, its teacher.

    L               = L_CE(Y, Y^) + weight * L_KD(Y^, Y_soft) + R                      Eq. 2; its weight is 1
    L_KD(Y^, Y_soft) = L_CE(sigmoid(Z / tau), sigmoid(Z_soft / tau))                   Eq. 3
    L_CE(Y, Y^)     = sum over samples of the binary cross-entropy                     Eq. 4, here the mean

Z are the logits, Z_soft those of the teacher, on the samples of the present period. The teacher is the model that the
stream had when the period before was done with ("KD-self"), held still for a period. Where the model is the two-tower
one, sigmoid(Z / tau) is the share of a row's own user in the softmax over the batch at `tau` times the temperature, as
in its own loss.

Of the paper's three modules the data module is left to future work there, and the feature module is what a stream does
anyway: rows of known ids go on from where they are, new ids begin with the first weights of a row. R is weight decay
(`optim`). A lower rate for rows of known ids, which the paper names as a trick, is left out. A label that is unknown
teaches nothing, nor does the teacher in its place.

B batch, T tasks.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded
from coldrank.models.features import FeatureSet
from coldrank.models.heads.heads import Heads
from coldrank.models.model import ModelModule, Outputs
from coldrank.models.two_tower import TwoTower, TwoTowerModule
from coldrank.modules.contrast import log_share, share_loss
from coldrank.train.hooks.hook import Hook, HookModule, Rest, RunView, Settings
from coldrank.train.hooks.past import (
    BatchRows,
    PastModel,
    all_tables,
    evaluating,
    stream_problem,
    tables_of,
    task_of,
    with_weights,
)
from coldrank.train.hooks.rows import TableRows
from coldrank.train.progress import Progress, Stage
from coldrank.train.stepping import Taken


@dataclass(kw_only=True, slots=True)
class IncCTR(Hook):
    """The model of the period before teaches that of the present one (docs/streams.md)."""

    weight: PositiveFloat = 1.0
    """Of the distillation loss."""
    temperature: PositiveFloat = 1.0
    """Tau."""

    def build(self, config: Settings, features: FeatureSet) -> "IncCTRModule":
        return IncCTRModule(self, config, features)

    def problem(self, config: Settings) -> str:
        if wrong := stream_problem("incctr", config) or softmax_problem("incctr", config):
            return wrong
        if config.cold_weight != 1:
            return f"cold_weight={config.cold_weight}: 'incctr' weighs rows as data.weight_column does alone; must be 1"
        if config.train.precision != "float32":
            return "train.precision='bf16': 'incctr' compares the models in float32; must be float32"
        return ""

    def written(self, config: Settings) -> frozenset[str]:
        return all_tables(config)


def softmax_problem(name: str, config: Settings) -> str:
    """What asks for labels of 0 and 1, and for a softmax over users, in words; '' if nothing."""
    for task, head in config.tasks.items():
        if not head.is_binary:
            return f"tasks.{task} is {head.kind()}: hook {name!r} teaches probabilities; must be binary"
    model = config.model
    if isinstance(model, TwoTower):
        over_items = f"model.candidates='items': hook {name!r} has a softmax over users; must be 'users'"
        return over_items if model.candidates == "items" else ""
    return f"model={model.kind()!r} compares rows in a way that hook {name!r} does not know" * model.compares_rows


class IncCTRModule(HookModule):
    """taught: whether there is a teacher, bool [1]."""

    micro_batches: ClassVar[bool] = False  # what `before_step` has kept waits for `dense`, whole
    taught: Tensor

    def __init__(self, c: IncCTR, config: Settings, features: FeatureSet) -> None:
        super().__init__()
        self.config = c
        self.register_buffer("taught", torch.zeros(1, dtype=torch.bool))
        self.teacher = PastModel(config, features)
        self._rows = BatchRows(features)
        self._tables: dict[str, TableRows] = {}
        self._soft: Tensor | None = None

    def placed(self, run: RunView) -> None:
        self.teacher.placed(run)
        self._tables = tables_of(run, run.encoder.features)

    def begins(self, run: RunView, stage: Stage, progress: Progress) -> None:
        """The model as it is becomes the teacher; there is none of the first period, whatever a warm start brought."""
        self.taught.fill_(progress.step > 0)
        if progress.step:
            self.teacher.take(run, self._tables)

    @torch.no_grad()
    def before_step(self, run: RunView, taken: Taken) -> None:
        """Asks the teacher, before the batch has taught the model anything."""
        self._soft = None
        if not self.taught:
            return
        self.teacher.renew(taken.new_rows, self._tables)
        batch = self._rows.of(taken.batch.to(run.ranks.device))
        embedded = self._rows.embed(batch, self._rows.read(batch, self.teacher.tables))
        task = task_of(run)
        with evaluating(task):
            self._soft = with_weights(
                task,
                self.teacher.dense,
                lambda task: scores(
                    task.ranker, task.projected(embedded, batch.floats), batch, self.config.temperature
                ),
            )

    def dense(self, rest: Rest, batch: Batch, embedded: Embedded) -> Outputs:
        out = rest(batch, embedded)
        if rest.side or self._soft is None or not (self.training and torch.is_grad_enabled()):
            return out
        soft, self._soft = self._soft, None
        tau = self.config.temperature
        compares = isinstance(rest.model, TwoTowerModule)
        mine = scores(rest.model, embedded, batch, tau) if compares else out.logits / tau
        kd = distillation(rest.heads, mine, soft, batch, shares=compares)
        return out._replace(loss=out.loss + self.config.weight * kd)


def scores(model: ModelModule, embedded: Embedded, batch: Batch, tau: float) -> Tensor:
    """Z / tau, [B, T]; of the two-tower model the log of the share of a row's own user, [B, 1]."""
    if not isinstance(model, TwoTowerModule):
        logits: Tensor = model(embedded, batch)
        return logits / tau
    user, item = model.vectors(model.sides(embedded, batch.dense))
    rows = torch.arange(len(batch), device=item.device)
    ids = model.ids(batch.keys["user_id"].to(item.device))
    return log_share(item / (model.config.temperature * tau), user, rows, ids).unsqueeze(1)


def distillation(heads: Heads, mine: Tensor, soft: Tensor, batch: Batch, *, shares: bool) -> Tensor:
    """Eq. 3 and 4 of `scores`, [B, T] each, over the rows whose label is known; a mean over the rows of all ranks."""
    known = ~torch.isnan(batch.labels)
    if shares:
        taught = torch.where(known, soft.exp(), torch.nan)
        return share_loss(mine[:, 0], taught[:, 0]).sum() / batch.mean_size
    taught = torch.where(known, soft.sigmoid(), torch.nan)
    loss, _ = heads.loss(mine, taught, batch.weights, batch.mean_size)
    return loss
