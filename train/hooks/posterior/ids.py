"""What is known of the ids of one feature, beside their table: which are cold, the prior, and what events have added.

An ID embedding e of an id with other features s (their embeddings, side by side) has the prior

    e ~ N(W [s, 1], diag(1 / lambda))        lambda = strength / variance of what W leaves of the trained embeddings

and after the events of a batch, whose losses l have in task t the derivatives l', l'' by the logit f, and the logit J =
df/de at the mean m, the posterior, which is the prior of the next batch:

    m' = m - (diag(lambda + c) + sum l'' J J^T)^-1 sum l' J        one Newton step; m = W [s, 1] before the first
    c' = c + sum l'' J^2                                           the diagonal of the matrix, kept: c = 0 at first

m lies in the id's row of the table, where the lookup, a checkpoint and the served model find it; c beside it, on the
rank that has the row. W and the
variances are of ids with more than `max_views` views, fitted to a running sum over their events, in which one of an id
with n views weighs 1 / (n + 1), so that each id weighs about the same.

B batch, n cold events, R rows of the table, D its width, T tasks, S width of s.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded
from coldrank.models.features import Table
from coldrank.modules.posterior import Gaussian, fit_of_moments, newton_step, summed
from coldrank.train.distributed.ranks import of_all_ranks, world_size
from coldrank.train.hooks.hook import RunView
from coldrank.train.hooks.mwuf import rows_with_an_id
from coldrank.train.hooks.rows import RowsBeside, TableRows
from coldrank.train.stepping import Taken


class Evidence(NamedTuple):
    """Of cold events: rows of their ids, int64 [n]; means before them, [n, D]; derivatives of the logits by the ID
    embedding, [n, T, D]; first and second ones of the losses by the logits, [n, T] each."""

    rows: Tensor
    means: Tensor
    slopes: Tensor
    first: Tensor
    second: Tensor


class Seen(NamedTuple):
    """Of a batch: rows of the ids, int64 [B]; which are of cold ids with a row of their own, bool [B]; their means, [B,
    D]. Of trained ids: the rows that are new among them, int64 [*], and the sum of w z z^T over their events."""

    rows: Tensor
    cold: Tensor
    means: Tensor
    trained: Tensor
    moments: Tensor


class ColdIds(nn.Module):
    """begun: ids whose row is a posterior mean, or was, bool [R]. trained: ids that have come with more than
    `max_views` views, whose rows are trained like any other from then on, bool [R]. gained: c, [R, D], once the table
    is placed. weight: W, [S + 1, D]. precision: lambda, [D]; zeros until the first fit. moments: float64
    [S + 1 + D, S + 1 + D]."""

    begun: Tensor
    trained: Tensor
    weight: Tensor
    precision: Tensor
    moments: Tensor

    def __init__(
        self,
        name: str,
        views: str,
        max_views: int,
        widths: dict[str, int],
        table: Table,
        strength: float,
        memory: int,
    ) -> None:
        """name: the id's feature. views: the count of its views. widths: of the features that the prior's mean is made
        of."""
        super().__init__()
        self.name, self.views, self.max_views, self.side = name, views, max_views, list(widths)
        self.table, self.strength, self.memory = table.name, strength, memory
        self.shared_row = table.mapping in ("vocabulary", "growing", "managed")  # row 0: all unknown ids together
        size = sum(widths.values()) + 1
        self.register_buffer("begun", torch.zeros(table.rows, dtype=torch.bool))
        self.register_buffer("trained", torch.zeros(table.rows, dtype=torch.bool))
        self.register_buffer("weight", torch.zeros(size, table.dim))
        self.register_buffer("precision", torch.zeros(table.dim))
        self.register_buffer("moments", torch.zeros(size + table.dim, size + table.dim, dtype=torch.float64))
        self.seen: Seen | None = None
        self.rows: TableRows | None = None
        self.gained: RowsBeside | None = None

    def placed(self, model: nn.Module) -> None:
        """The tables lie where they will."""
        self.rows, self.gained = TableRows(model, self.table), RowsBeside(model, self.table)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.gained is not None:
            destination[f"{prefix}gained"] = self.gained.value

    @property
    def is_fitted(self) -> bool:
        """Whether there is a prior."""
        return bool(self.precision[0] > 0)

    def embed(self, batch: Batch, embedded: Embedded, *, learns: bool) -> Embedded:
        """The prior's mean for cold ids without an event so far; in training no gradient reaches the rows of cold ids.
        learns: whether `seen` is to be kept."""
        ids, rows = embedded[self.name], batch.rows(self.name)
        views = batch.keys[self.views].to(ids.device, non_blocking=True)
        few = views <= self.max_views
        cold = few & ~self.trained[rows] & (self.precision[:1] > 0)
        side = self.side_of(embedded)
        means = torch.where((cold & ~self.begun[rows]).unsqueeze(1), side.detach() @ self.weight, ids)
        if not self.training:
            return embedded | {self.name: means}
        if learns:
            self.seen = self._seen(rows, views, cold, means.detach(), torch.cat([side, ids], 1).detach())
        return embedded | {self.name: torch.where(cold.unsqueeze(1), means.detach(), ids)}

    def side_of(self, embedded: Embedded) -> Tensor:
        """[s, 1] of every sample, [B, S + 1]."""
        ids = embedded[self.name]
        return torch.cat([*(embedded[name] for name in self.side), ids.new_ones(ids.shape[0], 1)], 1)

    def _seen(self, rows: Tensor, views: Tensor, cold: Tensor, means: Tensor, z: Tensor) -> Seen:
        old = views > self.max_views
        if self.shared_row:
            old, cold = old & (rows > 0), cold & (rows > 0)
        of_old = z[old].double()
        weights = 1.0 / (views[old] + 1).double()
        new = rows[old][~self.trained[rows[old]]].unique()
        return Seen(rows, cold, means, new, of_old.T @ (weights.unsqueeze(1) * of_old))

    def before_step(self, run: RunView, taken: Taken, *, fits: bool) -> None:
        """Forgets ids whose rows have come to others; fits the prior where it is time."""
        if run.config.train.warm_start and not (self.trained.any() or self.begun.any()):
            # The model knows its ids: none of them is to begin anew.
            self.trained[rows_with_an_id(run.encoder.maps[self.table], len(self.trained))] = True
        if (given := taken.new_rows.get(self.table)) is not None:
            new = given.rows.to(self.begun.device)
            self.begun[new], self.trained[new] = False, False
            assert self.gained is not None
            self.gained.write(new, self.weight.new_zeros(len(self.precision)))
        if fits and (count := int(self.trained.sum())) > len(self.weight) and self.moments.any():
            weight, variance = fit_of_moments(self.moments, len(self.precision), count)
            self.weight.copy_(weight)
            self.precision.copy_(self.strength / variance)

    def after_step(self, evidence: Evidence) -> None:
        """Takes what the batch has told, on all ranks. evidence: of this rank's cold events."""
        assert self.seen is not None
        seen, self.seen = self.seen, None
        self.trained[of_all_ranks(seen.trained)] = True
        moments = seen.moments
        if world_size() > 1:
            dist.all_reduce(moments)
        # Of the mean over 1 / (1 - decay) steps: the factor of the newest does not matter to the fit.
        self.moments.mul_(1 - 1 / self.memory).add_(moments)
        self._update(Evidence(*(of_all_ranks(part.contiguous()) for part in evidence)))

    def _update(self, evidence: Evidence) -> None:
        still = ~self.trained[evidence.rows]  # not of ids that this batch has shown to be trained
        rows, means, slopes, first, second = (part[still] for part in evidence)
        if not len(rows):
            return
        ids, place, counts = rows.unique(return_inverse=True, return_counts=True)
        assert self.rows is not None and self.gained is not None
        gained = self.gained.read(ids)
        mean = torch.zeros_like(gained).index_add(0, place, means) / counts.unsqueeze(1)
        gradient, matrix = summed(slopes, first, second, place, len(ids))
        precision = torch.diag_embed(self.precision + gained)
        self.rows.write(ids, newton_step(Gaussian(mean, precision), mean, gradient, matrix))
        self.gained.write(ids, gained + matrix.diagonal(dim1=1, dim2=2))
        self.begun[ids] = True
