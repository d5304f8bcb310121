"""Where attention looks: mean weight by position in the history, and on events with and without a signal.

B rows of a batch, L positions (0: the most recent event), R rows of attention weights (heads; folds x heads).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from coldrank.analysis.explain.changes import Cohorts
from coldrank.data.read import Raw
from coldrank.models.features import Feature


def bands(length: int) -> list[tuple[int, int]]:
    """Bands of the number of events, doubling: 1, 2-3, 4-7, .. up to `length`."""
    starts = [2**k for k in range(length.bit_length())]
    return [(low, min(2 * low - 1, length)) for low in starts]


class Attention:
    """Accumulates the attention weights of one sequence over batches. Empty histories are left out."""

    def __init__(self, features: tuple[Feature, ...], positions: bool) -> None:
        self.length, self.positions = features[0].length, positions
        self.signals = [c for f in features if f.kind == "signals" for c in f.raw_columns]
        self.bands = bands(self.length)
        # Cohort and band -> rows that have a position, [L].
        self.counts: dict[tuple[str, int], Tensor] = {}
        # Cohort and band -> sums of weights and of weights times length, float64 [R, L].
        self.sums: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        # Cohort and signal -> rows, sum of the shares of events that have it, sum of the weight on them, float64 [R].
        self.held: dict[tuple[str, str], tuple[int, float, Tensor]] = {}

    def add(self, weights: Tensor, lengths: Tensor, raw: Raw, cohorts: Cohorts) -> None:
        """Takes in a batch. weights: [B, R, L] on the CPU. lengths: int64 [B]. cohorts: name -> bool [B]."""
        weights = weights.double()
        even = weights * lengths[:, None, None]
        reached = torch.arange(self.length) < lengths.unsqueeze(1)
        for cohort, mask in cohorts.items():
            for i, (low, high) in enumerate(self.bands):
                rows = mask & (lengths >= low) & (lengths <= high)
                old = self.sums.get((cohort, i), (torch.zeros(()), torch.zeros(())))
                self.sums[cohort, i] = old[0] + weights[rows].sum(0), old[1] + even[rows].sum(0)
                self.counts[cohort, i] = self.counts.get((cohort, i), torch.zeros(())) + reached[rows].sum(0)
        for signal in self.signals:
            self._add_signal(signal, weights, lengths, raw, cohorts)

    def _add_signal(self, signal: str, weights: Tensor, lengths: Tensor, raw: Raw, cohorts: Cohorts) -> None:
        """Rows whose events differ in the signal: the share of events that have it, and the share of weight on them."""
        has = padded(raw, signal, self.length) == 1  # unknown (-1) is not known to have it
        number = has.sum(1)
        mixed = (number > 0) & (number < lengths)
        share = number / lengths.clamp(min=1)
        on_them = (weights * has.unsqueeze(1)).sum(2)
        for cohort, mask in cohorts.items():
            rows = mask & mixed
            count, events, weight = self.held.get((cohort, signal), (0, 0.0, torch.zeros(())))
            self.held[cohort, signal] = (
                count + int(rows.sum()),
                events + float(share[rows].sum()),
                weight + on_them[rows].sum(0),
            )

    def figures(self) -> dict[str, Any]:
        """The means, as in explain.json.

        by_position: per cohort and band of lengths, [R][positions]: the mean `weight` over the rows that have the
            position, and its ratio to that of even attention, weight times length (`to_even`).
        by_signal: per cohort and signal, the mean share of `events` that have it, and per head the mean share of the
            `weight` on them.
        """
        by_position = []
        for (cohort, i), (weight, even) in self.sums.items():
            count = self.counts[cohort, i]
            reached = int((count > 0).sum())
            if reached:
                means = [(total[:, :reached] / count[:reached]).tolist() for total in (weight, even)]
                band = {"cohort": cohort, "events": list(self.bands[i]), "rows": int(count[0])}
                by_position.append(band | {"weight": means[0], "to_even": means[1]})
        by_signal = [
            {
                "cohort": cohort,
                "signal": signal,
                "rows": count,
                "events": events / count,
                "weight": (w / count).tolist(),
            }
            for (cohort, signal), (count, events, w) in self.held.items()
            if count
        ]
        return {"positions": self.positions, "by_position": by_position, "by_signal": by_signal}


def padded(raw: Raw, column: str, length: int) -> Tensor:
    """The first `length` values of a list column, int64 [B, length]; -1 past a row's end."""
    values, offsets = raw[column]
    index = offsets[:-1, None] + np.arange(length)
    inside = index < offsets[1:, None]
    first = np.full(index.shape, -1, dtype=np.int64)
    first[inside] = values[index[inside]]
    return torch.from_numpy(first)
