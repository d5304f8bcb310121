"""Use of the experts: mean softmax weight, and mean effective weight (times the gate), per cohort and task.

B rows of a batch, T tasks, E experts.
"""

from typing import Any

import torch
from torch import Tensor

from coldrank.analysis.explain.changes import Cohorts


class ExpertUse:
    """Accumulates the weights of the experts over batches."""

    def __init__(self, tasks: list[str]) -> None:
        self.tasks = tasks
        self.counts: dict[str, int] = {}
        self.sums: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, softmax: Tensor, effective: Tensor, cohorts: Cohorts) -> None:
        """Takes in a batch. softmax, effective: weights, [B, T, E] on the CPU. cohorts: name -> bool [B]."""
        for cohort, mask in cohorts.items():
            old = self.sums.get(cohort, (torch.zeros(()), torch.zeros(())))
            self.sums[cohort] = old[0] + softmax[mask].double().sum(0), old[1] + effective[mask].double().sum(0)
            self.counts[cohort] = self.counts.get(cohort, 0) + int(mask.sum())

    def figures(self) -> list[dict[str, Any]]:
        """Per cohort that has rows, and task: mean `softmax` and `effective` weights, [E], equal in a plain mixture."""
        return [
            {
                "cohort": cohort,
                "task": task,
                "rows": self.counts[cohort],
                "softmax": (softmax[t] / self.counts[cohort]).tolist(),
                "effective": (effective[t] / self.counts[cohort]).tolist(),
            }
            for cohort, (softmax, effective) in self.sums.items()
            if self.counts[cohort]
            for t, task in enumerate(self.tasks)
        ]
