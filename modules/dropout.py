"""Dropout whose masks cost little on a CPU."""

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """In training, x * m / (1 - p) with m = 0 with probability p, else 1; the identity in evaluation, as `nn.Dropout`.

    On a CPU, where a Bernoulli draw per number takes an eighth of a ranker's training step, one draw of 64 bits gives
    four of m, and p is the nearest multiple of 2^-16. On other devices this is `torch.dropout`. TorchScript knows it in
    evaluation only.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout is {p}: it must be at least 0 and below 1")
        self.p = p
        dropped = round(p * 2**16)  # of the 2^16 values of 16 bits
        self.is_on = dropped > 0
        self.lowest_kept, self.scale = dropped - 2**15, 2**16 / (2**16 - dropped)

    def forward(self, x: Tensor) -> Tensor:
        """x: float, any shape -> the same shape and dtype."""
        return self._drop(x) if self.training and self.is_on else x

    @torch.jit.unused
    def _drop(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return torch.dropout(x, self.p, True)
        count = x.numel()
        bits = torch.randint(-(2**63), 2**63 - 1, ((count + 3) // 4,), dtype=torch.int64)
        # 0 where dropped and 1 where kept, by what is vectorised; a comparison and its bools as floats take three times
        # as long.
        lowest = self.lowest_kept
        kept = bits.view(torch.int16)[:count].view(x.shape).clamp(lowest - 1, lowest)
        return x * kept.to(x.dtype).sub_(lowest - 1).mul_(self.scale)
