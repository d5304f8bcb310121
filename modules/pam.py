"""The pieces of PAM that need no model: which task a row belongs to, and which of a task's rows are its support set.

B rows of a batch, N tasks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def route(views: Tensor, cuts: Tensor) -> Tensor:
    """The task of each row (Eq. 8): the number of cuts below the item's views before the event, int64 [B], 0 ..
    len(cuts).

    views: int64 [B]. cuts: ascending; as many views as a cut belong below it.
    """
    return torch.bucketize(views, cuts.to(views.device))


def support(task: Tensor, tasks: int, share: float) -> Tensor:
    """Which rows are support: of each task the first `share` of its rows, rounded down, bool [B]; the others are
    query."""
    order = torch.argsort(task, stable=True)
    counts = torch.bincount(task, minlength=tasks)
    place = torch.arange(len(task), device=task.device) - (counts.cumsum(0) - counts)[task[order]]
    first = torch.empty_like(task, dtype=torch.bool)
    first[order] = place < (share * counts).floor()[task[order]]
    return first


@dataclass(frozen=True, slots=True)
class RowsByGroup:
    """Some rows of a batch, task after task. index: where they are, int64 [R]. task: of each, int64 [R], ascending.
    counts: of every task."""

    index: Tensor
    task: Tensor
    counts: list[int]

    @classmethod
    def of(cls, task: Tensor, tasks: int, use: Tensor) -> "RowsByGroup":
        """The rows where `use`, bool [B], is set."""
        index = use.nonzero().squeeze(1)
        index = index[torch.argsort(task[index], stable=True)]
        return cls(index, task[index], torch.bincount(task[index], minlength=tasks).tolist())

    @property
    def padded(self) -> Tensor:
        """Where the rows of every task are, int64 [N, M], M being those of the largest; 0 in the places that have
        none."""
        return pad_sequence(self.index.split(self.counts), batch_first=True)

    @property
    def count_tensor(self) -> Tensor:
        """The counts, int64 [N], where the rows are."""
        return torch.tensor(self.counts, device=self.index.device)

    def sums(self, values: Tensor) -> Tensor:
        """Sum over the rows of every task: [R] -> [N]."""
        return values.new_zeros(len(self.counts)).index_add(0, self.task, values)

    def to(self, device: torch.device) -> "RowsByGroup":
        """The rows on a device."""
        return RowsByGroup(self.index.to(device), self.task.to(device), self.counts)
