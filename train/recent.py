"""Losses and speed between two lines of metrics.jsonl."""

import math
import time
from collections.abc import Mapping

import torch
import torch.distributed as dist

from coldrank.models.heads.head import Head
from coldrank.train.distributed.ranks import Ranks
from coldrank.train.run_folder import MetricRow


class Recent:
    """Sums since they were last written. They stay on the device, so that no step waits for a number, and go into
    checkpoints, so that a run that resumes writes what it would have written."""

    def __init__(self, tasks: Mapping[str, Head], ranks: Ranks) -> None:
        self.tasks, self.rate, self.ranks = tasks, 0.0, ranks.world_size
        # This rank's part of the steps, samples, its part of the loss; per task the loss over the known labels and
        # their number.
        self.sums = torch.zeros(3 + 2 * len(tasks), dtype=torch.float64, device=ranks.device)
        # Which of the steps counted in the sums was the first whose loss is not finite (0: none).
        self.bad = torch.zeros((), dtype=torch.float64, device=ranks.device)
        self.samples, self.since = 0, time.perf_counter()

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """What this rank has for itself in a checkpoint; loading writes into it."""
        return {"recent": self.sums}

    def add(self, loss: torch.Tensor, task_losses: tuple[torch.Tensor, torch.Tensor], samples: int) -> None:
        """Adds a step. loss: scalar. task_losses: sum over the known labels and their number, [T] each."""
        # Numbers are added by the device's own kernels: a copy of them to a GPU would wait for the step.
        self.sums[0] += 1.0 / self.ranks
        self.sums[1] += samples
        losses = torch.cat([loss.reshape(1) / self.ranks, *task_losses])
        self.sums[2:] += losses
        self.bad = torch.where((self.bad == 0) & ~torch.isfinite(losses).all(), self.sums[0], self.bad)
        self.samples += samples

    def not_finite(self, step: int) -> int | None:
        """The first step, up to `step`, the last one added, whose loss was not finite on any rank. Called by all
        ranks."""
        none = torch.full_like(self.bad, math.inf)
        first = torch.where(self.bad > 0, self.bad - self.sums[0], none)
        dist.all_reduce(first, op=dist.ReduceOp.MIN)
        return None if math.isinf(float(first)) else step + round(float(first) * self.ranks)

    def rows(self, step: int) -> list[MetricRow]:
        """Mean loss, that of each task's head and samples per second, over all ranks and the steps since the last
        call."""
        sums = self.sums.clone()
        dist.all_reduce(sums)
        steps, samples, loss, *by_task = sums.tolist()
        losses, known = by_task[: len(self.tasks)], by_task[len(self.tasks) :]
        # Speed is of this process: what it did since it began or last wrote, its share of the samples scaled up to all
        # ranks.
        share = samples / max(1.0, float(self.sums[1]))
        self.rate = self.samples * share / (time.perf_counter() - self.since)
        values = [("all", "loss", loss / steps, samples)]
        for (task, head), total, n in zip(self.tasks.items(), losses, known, strict=True):
            values.append((task, head.loss_name, total / n if n else None, n))
        values += [("all", "samples_per_second", self.rate, samples)]
        self.sums.zero_()
        self.samples, self.since = 0, time.perf_counter()
        place = {"step": step, "period": None, "split": "fit", "cohort": "all"}
        return [place | {"task": t, "metric": m, "value": v, "n": int(n)} for t, m, v, n in values]
