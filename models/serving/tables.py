"""The embedding tables as the served model holds them: those of one width end to end, in float32, float16 or int8.

R rows, D width.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Precision = Literal["float32", "float16", "int8"]


class Rows(nn.Module):
    """R rows of width D, and one of zeros behind them. Scriptable.

    int8: each row as round((x - low) / step) in 0..255, with its step and low in float16 (row-wise, asymmetric); a value is off
    by half a step, about a 510th of the row's range, at most, but for the rounding of low.
    """

    weight: Tensor
    steps: Tensor

    def __init__(self, tables: list[Tensor], precision: Precision) -> None:
        super().__init__()
        width = tables[0].shape[1]
        whole = torch.cat([*tables, torch.zeros(1, width)])
        self.zero = whole.shape[0] - 1
        steps = torch.zeros(0, 2, dtype=torch.float16)
        if precision == "int8":
            whole, steps = quantized(whole)
        elif precision == "float16":
            whole = whole.clamp(-65504, 65504).to(torch.float16)
        self.register_buffer("weight", whole)
        self.register_buffer("steps", steps)
        self.int8 = precision == "int8"

    def forward(self, rows: Tensor) -> Tensor:
        """rows: int64 [..] -> float32 [.., D]."""
        read = F.embedding(rows, self.weight)
        if self.int8:
            steps = F.embedding(rows, self.steps).to(torch.float32)
            return read.to(torch.float32) * steps[..., :1] + steps[..., 1:]
        return read.to(torch.float32)


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [R, D] -> uint8 [R, D], and step and low of each row, float16 [R, 2]."""
    low = weight.amin(1).clamp(-65504, 65504).to(torch.float16)
    exact = (weight.amax(1) - low.to(torch.float32)).clamp(0, 65504) / 255
    step = exact.to(torch.float16)
    # Rounded up, so that the row's largest value is not beyond code 255: the next float16 has the next bit pattern.
    step = torch.where(step.to(torch.float32) < exact, (step.view(torch.int16) + 1).view(torch.float16), step)
    codes = (weight - low.to(torch.float32).unsqueeze(1)) / step.to(torch.float32).clamp(min=1e-8).unsqueeze(1)
    return codes.round().clamp(0, 255).to(torch.uint8), torch.stack([step, low], 1)
