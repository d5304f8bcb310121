"""Ids and their rows between ranks: integer tensors of several tables in one message, on a gloo group.

Of each table there is a part int64 [N, C], C alike for all; N may differ between ranks and be 0. Every call is made by
all ranks, in the same order.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from coldrank.models.ids.mixing import Share


@dataclass(frozen=True, slots=True)
class Route:
    """The way of a question, for its answer. orders: of each table, the places of what was sent, rank by rank. sent,
    received: int64 [W, T], how much to and from each rank."""

    orders: list[Tensor]
    sent: Tensor
    received: Tensor


class Exchange:
    """What ranks have to say to each other about ids. share: this rank among them."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.group = dist.new_group(backend="gloo")

    def to_owners(self, parts: list[Tensor], owners: list[Tensor]) -> tuple[list[Tensor], Route]:
        """Sends each line to the rank, of `owners` [N], that holds its id: what has come, [M, C] of each table, in the
        order of the ranks."""
        ranks = self.share.of
        orders = [o.argsort(stable=True) for o in owners]
        sent = torch.stack([torch.bincount(o, minlength=ranks) for o in owners], 1)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        route = Route(orders, sent, received)
        return self._moved([part[order] for part, order in zip(parts, orders, strict=True)], sent, received), route

    def back(self, answers: list[Tensor], route: Route) -> list[Tensor]:
        """Sends the answers [M, C] to what has come; those to what was sent, [N, C]."""
        moved = self._moved(answers, route.received, route.sent)
        unsorted = [torch.empty_like(answer) for answer in moved]
        for whole, answer, order in zip(unsorted, moved, route.orders, strict=True):
            whole[order] = answer
        return unsorted

    def to_all(self, parts: list[Tensor], numbers: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """The parts of all ranks, in their order, on every rank. numbers: int64 [T, K]; returned are their sums."""
        numbers = torch.zeros(len(parts), 0, dtype=torch.int64) if numbers is None else numbers
        about = torch.cat([torch.tensor([[len(part)] for part in parts]), numbers], 1)
        about_all = self.all(about)
        sizes = about_all[:, :, 0]
        widest = int(sizes.sum(1).max())
        if widest == 0:
            return parts, about_all[:, :, 1:].sum(0)
        mine = torch.cat(parts)
        padded = torch.cat([mine, mine.new_zeros(widest - len(mine), mine.shape[1])])
        by_rank = [
            whole[: int(size.sum())].split(size.tolist()) for whole, size in zip(self.all(padded), sizes, strict=True)
        ]
        return [torch.cat(of_table) for of_table in zip(*by_rank, strict=True)], about_all[:, :, 1:].sum(0)

    def all(self, value: Tensor) -> Tensor:
        """[W, ..]: a tensor of one shape from every rank."""
        whole = value.new_empty(self.share.of, *value.shape)
        dist.all_gather(list(whole.unbind()), value.contiguous(), group=self.group)
        return whole

    def _moved(self, parts: list[Tensor], sent: Tensor, received: Tensor) -> list[Tensor]:
        """The parts, each in the order of the ranks they go to, as they come."""
        split = [part.split(counts) for part, counts in zip(parts, sent.T.tolist(), strict=True)]
        message = torch.cat([pieces[rank] for rank in range(self.share.of) for pieces in split])
        answer = message.new_empty(int(received.sum()), message.shape[1])
        dist.all_to_all_single(answer, message, received.sum(1).tolist(), sent.sum(1).tolist(), group=self.group)
        pieces = answer.split(received.flatten().tolist())
        return [torch.cat(pieces[table :: len(parts)]) for table in range(len(parts))]
