"""CVAR (Zhao et al., SIGIR 2022): a conditional variational autoencoder that makes warm ID embeddings from side
features.

B batch, D width of the ID embedding, S of the side features, Z of the latent code.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from coldrank.modules.checks import check_sizes

_NOISE = 1e-4  # scale of the latent draws, the authors'


class Decoded(NamedTuple):
    """warm: [B, D], from the side features. reconstruction: mean squared length of (decoded from the ID) - ID.
    divergence: 2-Wasserstein distance of the two codes, summed over the batch."""

    warm: Tensor
    reconstruction: Tensor
    divergence: Tensor


class Cvar(nn.Module):
    """One encoder reads the ID embedding, one the side features; a decoder reads either's code and log(1 + views)."""

    def __init__(self, dim: int, side_dim: int, latent: int = 16) -> None:
        super().__init__()
        check_sizes(dim=dim, side_dim=side_dim, latent=latent)
        self.from_id = nn.Linear(dim, 2 * latent)
        self.from_side = nn.Linear(side_dim, 2 * latent)
        self.decoder = nn.Linear(latent + 1, dim)

    def forward(self, ids: Tensor, side: Tensor, views: Tensor) -> Decoded:
        """ids: [B, D], side: [B, S], views: of the item before the event, [B]."""
        count = torch.log1p(views.to(ids.dtype)).unsqueeze(1)
        mean, log_variance = self.from_id(ids).chunk(2, 1)
        prior_mean, prior_log_variance = self.from_side(side).chunk(2, 1)
        spread = (0.5 * log_variance).exp() - (0.5 * prior_log_variance).exp()
        divergence = (mean - prior_mean).square().sum() + spread.square().sum()
        rebuilt = self.decoder(torch.cat([_draw(mean, log_variance), count], 1))
        warm = self.decoder(torch.cat([_draw(prior_mean, prior_log_variance), count], 1))
        return Decoded(warm, (rebuilt - ids).square().sum(1).mean(), divergence)


def _draw(mean: Tensor, log_variance: Tensor) -> Tensor:
    return mean + _NOISE * (0.5 * log_variance).exp() * torch.randn_like(mean)
