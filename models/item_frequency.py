"""How often an item is a row of the stream, by which the in-batch softmax over items is corrected (Yi et al., 2019).

The paper estimates the gap between two batches that hold an item. Here rows are counted, those of s steps ago with
weight decay^s: sums of whole numbers over all ranks, so that the estimate is the same on every rank, and for the same
batches on any number of them. Bias at the start cancels, as both sums begin at 0.

B rows of a batch, H buckets.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

# Odd, of splitmix64; as a signed number of 64 bits.
_MIX = 0x9E3779B97F4A7C15 - 2**64
_HALF = 2**32 - 1


class ItemFrequency(nn.Module):
    """Of hashed ids. Checkpoints hold it."""

    counts: Tensor
    total: Tensor

    def __init__(self, buckets: int, decay: float) -> None:
        """buckets: H; items of one bucket count together. decay: of the weight of a step, from one to the next."""
        super().__init__()
        self.buckets, self.decay = buckets, decay
        self.register_buffer("counts", torch.zeros(buckets))
        self.register_buffer("total", torch.zeros(()))

    @torch.no_grad()
    def see(self, ids: Tensor, sizes: Sequence[int]) -> None:
        """Takes the items of a step's batch, int64 [B]. sizes: B of every rank's batch; empty where there is this one
        alone. All ranks call it."""
        held = of_all_ranks(self._bucket(ids.to(self.counts.device)), sizes)
        now = torch.zeros_like(self.counts).index_add_(0, held, torch.ones_like(held, dtype=self.counts.dtype))
        self.counts.mul_(self.decay).add_(now)
        self.total.mul_(self.decay).add_(float(len(held)))

    def log_share(self, ids: Tensor) -> Tensor:
        """Log of the share of rows that an item has, float32 [B]. ids: int64 [B].

        An item that was not seen is taken for one that was seen in the last step.
        """
        counts = self.counts[self._bucket(ids.to(self.counts.device))]
        return torch.log(counts.clamp(min=1.0)) - torch.log(self.total.clamp(min=1.0))

    def _bucket(self, ids: Tensor) -> Tensor:
        for _ in range(2):
            ids = (ids ^ ((ids >> 32) & _HALF)) * _MIX
        return (ids ^ ((ids >> 32) & _HALF)) % self.buckets


def of_all_ranks(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Rows of all ranks, one rank's after another's: [B] -> [n of all]. sizes: of every rank; empty: of this alone."""
    if len(sizes) <= 1:
        return values
    padded = values.new_zeros(max(sizes))
    padded[: len(values)] = values
    by_rank = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(by_rank, padded)
    return torch.cat([rows[:size] for rows, size in zip(by_rank, sizes, strict=True)])
