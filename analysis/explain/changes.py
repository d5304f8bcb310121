"""How far activations move when inputs are masked (POSO, Fig. 1b).

A masked input is shuffled: every row takes the value of its partner, another row drawn at random. So the model sees
values that it was trained on, in the proportions of the data, and only their tie to the row is cut; a default such as
"missing" would show an embedding that may never have been trained, which moves activations at random.

B rows of a batch, T tasks.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from coldrank.models.heads.head import Head

Cohorts = dict[str, Tensor]


@dataclass(slots=True)
class _Moments:
    """Sums over the rows so far."""

    rows: int = 0
    """Number of rows."""
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Sum of the activations, float64 [units]."""
    squares: float = 0.0
    """Sum of their squares over rows and units."""

    def add(self, x: Tensor) -> None:
        self.rows += len(x)
        self.total = self.total + x.sum(0)
        self.squares += float(x.square().sum())

    @property
    def variance(self) -> float:
        """Sum over the units of the variance over rows."""
        mean = self.total / self.rows
        return max(0.0, self.squares / self.rows - float(mean.square().sum()))


class Changes:
    """Accumulates over batches; `rows` gives the figures."""

    def __init__(self, tasks: Mapping[str, Head], answers: Callable[[Tensor], Tensor]) -> None:
        """answers: logits [B, T] -> what the tasks' heads give, [B, T]."""
        self.tasks, self.answers = tasks, answers
        self.layers: dict[str, _Moments] = {}
        self.norms: dict[tuple[str, str], float] = {}
        self.moved: dict[tuple[str, str, str], float] = {}
        self.points: dict[tuple[str, str], Tensor] = {}
        self.counts: dict[str, int] = {}

    def add_plain(self, layers: dict[str, Tensor], cohorts: Cohorts) -> None:
        """Takes in a batch as it is. layers: name -> activations, [B, ..]. cohorts: name -> bool [B]."""
        for cohort, mask in cohorts.items():
            self.counts[cohort] = self.counts.get(cohort, 0) + int(mask.sum())
        for layer, value in layers.items():
            x = value.flatten(1).double()
            self.layers.setdefault(layer, _Moments()).add(x)
            squares = x.square().sum(1)
            for cohort, mask in cohorts.items():
                key = (layer, cohort)
                self.norms[key] = self.norms.get(key, 0.0) + float(squares[mask].sum())

    def add_masked(self, name: str, plain: dict[str, Tensor], masked: dict[str, Tensor], cohorts: Cohorts) -> None:
        """Takes in the same batch with and without a mask. Of its layers, `logits` is [B, T]."""
        for layer, value in plain.items():
            moved = (masked[layer].flatten(1).double() - value.flatten(1).double()).square().sum(1)
            for cohort, mask in cohorts.items():
                key = (name, layer, cohort)
                self.moved[key] = self.moved.get(key, 0.0) + float(moved[mask].sum())
        shift = (self.answers(masked["logits"].double()) - self.answers(plain["logits"].double())).abs()
        for cohort, mask in cohorts.items():
            self.points[name, cohort] = self.points.get((name, cohort), torch.zeros(())) + shift[mask].sum(0)

    def rows(self) -> list[dict[str, Any]]:
        """Per mask, layer and cohort: `rows`, `change` and `relative`.

        change: sqrt(mean |a' - a|^2 / (2 V)) with V the sum of the layer's variances over all rows: 0 where nothing
            moves, 1 where activations become those of another random row; None where the layer is constant.
        relative: sqrt(sum |a' - a|^2 / sum |a|^2) of the cohort; None where the cohort is empty.
        """
        figures = []
        for (mask, layer, cohort), moved in self.moved.items():
            count, norm = self.counts[cohort], self.norms[layer, cohort]
            spread = 2 * self.layers[layer].variance * count
            figures.append(
                {
                    "mask": mask,
                    "layer": layer,
                    "cohort": cohort,
                    "rows": count,
                    "change": math.sqrt(moved / spread) if spread > 0 else None,
                    "relative": math.sqrt(moved / norm) if norm > 0 else None,
                }
            )
        return figures

    def shifts(self) -> list[dict[str, Any]]:
        """Per mask, cohort and task: mean absolute change of the probability in percentage points; None: no rows.
        Of tasks that give a probability."""
        return [
            {
                "mask": mask,
                "cohort": cohort,
                "task": task,
                "points": 100 * float(total[i]) / self.counts[cohort] if self.counts[cohort] else None,
            }
            for (mask, cohort), total in self.points.items()
            for i, (task, head) in enumerate(self.tasks.items())
            if head.is_binary
        ]
