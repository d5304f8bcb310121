"""The embedding tables as the served model holds them: end to end, in pieces of equal width, in float32, float16 or
int8.

R rows of all tables, D width of a table, G pieces, g width of a piece, P pieces of a row.
"""

from math import gcd
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Precision = Literal["float32", "float16", "int8"]


class Place(NamedTuple):
    """Where a table is. first: its row 0 among the rows of all. pieces: of each of its rows. offset: piece 0 of row r
    is r * pieces + offset, r among the rows of all."""

    first: int
    pieces: int
    offset: int


class StoredRows(nn.Module):
    """R rows of tables of several widths, and one of zeros behind them: row `zero`, piece `zero_piece`. Scriptable.

    weight: [G, g]; g is the greatest common divisor of the widths. int8: each row as round((x - low) / step) in 0..255,
    with its step and low in float16 (row-wise, asymmetric); a value is off by half a step, about a 510th of the row's
    range, at most, but for the rounding of low. steps: [R + 1, 2].
    """

    weight: Tensor
    steps: Tensor
    places: list[Place]

    def __init__(self, tables: list[Tensor], precision: Precision) -> None:
        super().__init__()
        width = gcd(*(t.shape[1] for t in tables))
        self.places = []
        pieces, steps, rows, piece = [], [], 0, 0
        for table in tables:
            per_row = table.shape[1] // width
            self.places.append(Place(rows, per_row, piece - rows * per_row))
            rows, piece = rows + table.shape[0], piece + table.shape[0] * per_row
            whole, scales = quantized(table) if precision == "int8" else (table, torch.zeros(0, 2, dtype=torch.float16))
            if precision == "float16":
                whole = whole.clamp(-65504, 65504).to(torch.float16)
            pieces.append(whole.reshape(-1, width))
            steps.append(scales)
        self.zero, self.zero_piece = rows, piece
        self.int8 = precision == "int8"
        none = torch.zeros(int(self.int8), 2, dtype=torch.float16)
        self.register_buffer("weight", torch.cat([*pieces, torch.zeros(1, width, dtype=pieces[0].dtype)]))
        self.register_buffer("steps", torch.cat([*steps, none]))

    def forward(self, pieces: Tensor, rows: Tensor) -> Tensor:
        """pieces: int64 [..], and the row of each -> float32 [.., g]."""
        read = F.embedding(pieces, self.weight)
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
