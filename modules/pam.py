"""The pieces of PAM that need no model: which popularity group a row belongs to, and which of a group's rows are its
support set. The paper calls the groups tasks.

B rows of a batch, N groups.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def route(views: Tensor, cuts: Tensor) -> Tensor:
    """The popularity group of each row (Eq. 8): the number of cuts below the item's views before the event, int64
    [B], 0 .. len(cuts).

    views: int64 [B]. cuts: ascending; as many views as a cut belong below it.
    """
    return torch.bucketize(views, cuts.to(views.device))


def support(group: Tensor, groups: int, share: float) -> Tensor:
    """Which rows are support: of each group the first `share` of its rows, rounded down, bool [B]; the others are
    query."""
    order = torch.argsort(group, stable=True)
    counts = torch.bincount(group, minlength=groups)
    place = torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group[order]]
    first = torch.empty_like(group, dtype=torch.bool)
    first[order] = place < (share * counts).floor()[group[order]]
    return first


@dataclass(frozen=True, slots=True)
class RowsByGroup:
    """Some rows of a batch, group after group. index: where they are, int64 [R]. group: of each, int64 [R], ascending.
    counts: of every group."""

    index: Tensor
    group: Tensor
    counts: list[int]

    @classmethod
    def of(cls, group: Tensor, groups: int, use: Tensor) -> "RowsByGroup":
        """The rows where `use`, bool [B], is set."""
        index = use.nonzero().squeeze(1)
        index = index[torch.argsort(group[index], stable=True)]
        return cls(index, group[index], torch.bincount(group[index], minlength=groups).tolist())

    @property
    def padded(self) -> Tensor:
        """Where the rows of every group are, int64 [N, M], M being those of the largest; 0 in the places that have
        none."""
        return pad_sequence(self.index.split(self.counts), batch_first=True)

    @property
    def count_tensor(self) -> Tensor:
        """The counts, int64 [N], where the rows are."""
        return torch.tensor(self.counts, device=self.index.device)

    def sums(self, values: Tensor) -> Tensor:
        """Sum over the rows of every group: [R] -> [N]."""
        return values.new_zeros(len(self.counts)).index_add(0, self.group, values)

    def to(self, device: torch.device) -> "RowsByGroup":
        """The rows on a device."""
        return RowsByGroup(self.index.to(device), self.group.to(device), self.counts)
