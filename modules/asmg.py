"""ASMG's generator (Peng et al., RecSys 2021): a gated recurrent unit over the values that a weight had in a sequence
of models, which gives the value that serves.

N rows, C weights of a row, H width of the hidden state, L models.
"""

import torch
from torch import Tensor, nn

from coldrank.modules.checks import check_sizes


class Generator(nn.Module):
    """Of each weight its own unit, alike for all rows. x is the weight in a model, h the hidden state before it:

    z = sigmoid(x u_z + h W_z)      r = sigmoid(x u_r + h W_r)      g = tanh(x u_g + (h * r) W_g)
    h' = (1 - z) * h + z * g        y = h' . w + b
    """

    def __init__(self, weights: int, hidden: int = 4) -> None:
        super().__init__()
        check_sizes(weights=weights, hidden=hidden)
        bound = hidden**-0.5
        uniform = lambda *shape: nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.of_x = uniform(weights, 3 * hidden)  # z, r, g
        self.of_h = uniform(weights, hidden, 2 * hidden)  # z, r
        self.of_reset = uniform(weights, hidden, hidden)  # g
        self.out, self.bias = uniform(weights, hidden), nn.Parameter(torch.zeros(weights))

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """x: [N, C], h: [N, C, H] -> h', [N, C, H]."""
        size = h.shape[2]
        of_x = x.unsqueeze(2) * self.of_x
        z, r = (of_x[:, :, : 2 * size] + torch.einsum("nch,chk->nck", h, self.of_h)).sigmoid().split(size, 2)
        g = torch.tanh(of_x[:, :, 2 * size :] + torch.einsum("nch,chk->nck", h * r, self.of_reset))
        return (1 - z) * h + z * g

    def forward(self, models: Tensor, h: Tensor) -> Tensor:
        """The weights that serve after a sequence of models: [L, N, C], and the hidden state before the first, [N, C,
        H] -> [N, C]."""
        for x in models.unbind():
            h = self.step(x, h)
        return (h * self.out).sum(2) + self.bias
