"""SML's transfer network (Zhang et al., SIGIR 2020): the weights that serve, from those before and those trained since.

N rows of a table, D its width, C channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coldrank.modules.checks import check_sizes


class Transfer(nn.Module):
    """W_t = f(W_(t-1), W^_t), row by row, by two layers of convolutions and two that are dense.

    A row becomes three: w, w^ and (w * w^) / |w|, through which no gradient passes. The first layer joins the three of
    each column to C1 channels, the second these to C2, alike for all columns; then come a hidden layer over all columns
    and channels, and a linear one. Gelu after every layer but the last. added: the result is added to w^, and the last
    layer begins with zeros, so that w^ is what it begins with.
    """

    def __init__(self, dim: int, channels: tuple[int, int] = (10, 5), hidden: int = 20, *, added: bool = False) -> None:
        super().__init__()
        check_sizes(dim=dim, channels=min(channels), hidden=hidden)
        self.added = added
        self.columns = nn.Sequential(
            nn.Linear(3, channels[0]), nn.GELU(), nn.Linear(channels[0], channels[1]), nn.GELU()
        )
        self.hidden, self.last = nn.Linear(dim * channels[1], hidden), nn.Linear(hidden, dim)
        if added:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, before: Tensor, trained: Tensor) -> Tensor:
        """w, w^ -> the row that serves; [N, D] each."""
        product = (before * trained / before.norm(dim=1, keepdim=True).clamp(min=1e-15)).detach()
        columns = self.columns(torch.stack([before, trained, product], 2))
        result: Tensor = self.last(F.gelu(self.hidden(columns.flatten(1))))
        return trained + result if self.added else result
