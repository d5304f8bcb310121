"""How far the personalized gates of a run have gone: over the personalization code, and from where they began.

A gate that hardly differs between new and regular users is as good as none, whatever the comparison of its arm says.

B rows of a batch, K buckets, G outputs of a gate.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from coldrank.metrics.by_cohort import EXACT_AVC, avc_groups
from coldrank.models.batch import Batch
from coldrank.models.encode import Bucketize, FeatureEncoder
from coldrank.modules.gate import PersonalizedGate, personalized_gates
from coldrank.train.config import RunConfig
from coldrank.train.run import Run
from coldrank.train.run_folder import MetricRow
from coldrank.train.task import RankingTask

# Rows that a bucket needs for its mean to count.
LEAST_ROWS = 30
# Gates that go less than this, of a scale of 2, have not moved.
LEAST_RANGE = 0.05
ADVICE = "try optim.dense.gate_lr_scale of 3 or 10, or model.gate_init=0.1"
# Of counts: the views of a user or an item that is well known.
_MANY = 256.0
RANGE, WEIGHT = "gate_range_", "gate_weight_"


class Buckets:
    """Where rows stand: in the buckets of the code, if one bucketized feature is the code; else in those of the user's
    views, exact up to 10, then doubling.

    column: what is counted. labels: where every bucket begins, or `missing`.
    """

    def __init__(self, config: RunConfig, encoder: FeatureEncoder) -> None:
        codes = [f for f in encoder.features.features if f.role == "pc"]
        self.key = codes[0].name if len(codes) == 1 and codes[0].kind == "bucket" else None
        self.column = codes[0].raw_columns[0] if self.key else "user_views"
        self.is_code = self.key is not None
        if self.key:
            bucketize = encoder.buckets[self.key]
            assert isinstance(bucketize, Bucketize)
            edges = bucketize.edges.tolist()
            below = [f"<{edges[0]:g}"] if edges else ["any"]
            self.labels = ["missing", *below, *(f"{edge:g}" for edge in edges)]
            self.starts = [np.nan, -np.inf, *edges]
        else:
            last = int(avc_groups(torch.tensor([2**31 - 1]).numpy())[0])
            self.starts = [*range(EXACT_AVC + 2), *(2**k for k in range(4, 4 + last - EXACT_AVC - 1))]
            self.labels = [str(start) for start in self.starts]

    def rows(self, batch: Batch) -> Tensor:
        """The bucket of each row, int64 [B]."""
        if self.key:
            return batch.sparse[self.key].values().cpu()
        return torch.from_numpy(avc_groups(batch.keys["user_views"].numpy())).long()

    def ends(self, rows: Tensor) -> tuple[int, int] | None:
        """The buckets of the least and of the best known, of those with at least 30 rows: the first, and the last; of
        counts the one of 256, or the last below it. None where there are no two. rows: of each bucket, int64 [K]."""
        counts = "views" in self.column
        enough = [k for k, start in enumerate(self.starts) if rows[k] >= LEAST_ROWS and not (counts and start > _MANY)]
        enough = [k for k in enough if not np.isnan(self.starts[k])]
        return (enough[0], enough[-1]) if len(enough) > 1 else None


def gate_range(buckets: Buckets, rows: Tensor, sums: Tensor) -> float | None:
    """Mean over a gate's outputs of |mean in the bucket of the least known - in that of the best known|; None where too
    few rows tell. rows: of each bucket, int64 [K]. sums: of the outputs, float64 [K, G]."""
    ends = buckets.ends(rows)
    if ends is None:
        return None
    low, high = (sums[k] / rows[k] for k in ends)
    return float((low - high).abs().mean())


class GateWatch:
    """Sums the outputs of a run's gates by bucket while it scores: `with` it around the passes, `add` after each."""

    def __init__(self, run: Run) -> None:
        constant = getattr(run.config.model, "pc", "") == "constant"
        self.gates = {} if constant else personalized_gates(run.task.ranker)
        self.device, self.world_size = run.ranks.device, run.ranks.world_size
        if self.gates:
            self.buckets = Buckets(run.config, run.encoder)
            counts = {name: gate.output.out_features for name, gate in self.gates.items()}
            buckets = len(self.buckets.labels)
            self.sums = {n: torch.zeros(buckets, g, dtype=torch.float64, device=self.device) for n, g in counts.items()}
            self.counts = torch.zeros(buckets, dtype=torch.int64)
        self.passed: dict[str, list[Tensor]] = {}
        self.unknown: set[str] = set()
        self.handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for name, gate in self.gates.items():
            self.handles.append(gate.register_forward_hook(self._keep(name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for handle in self.handles:
            handle.remove()

    def _keep(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            self.passed.setdefault(name, []).append(output.detach())

        return hook

    def add(self, batch: Batch) -> None:
        """Takes what passed for a batch. A gate that a hook calls for other rows than the batch's, as PAM does, has no
        figure."""
        if not self.gates:
            return
        bucket = self.buckets.rows(batch)
        self.counts += torch.bincount(bucket, minlength=len(self.counts))
        for name in self.gates:
            outputs = self.passed.pop(name, [])
            if [len(x) for x in outputs] == [len(batch)]:
                self.sums[name].index_add_(0, bucket.to(self.device), outputs[0].double())
            else:
                self.unknown.add(name)

    def rows(self, **place: Any) -> list[MetricRow]:
        """`gate_range_PART` of every part of the model that has gates, the mean over its outputs; called by all ranks.
        place: the fields step, period and split of a row of metrics.jsonl."""
        if not self.gates:
            return []
        self._reduce()
        ends = self.buckets.ends(self.counts)
        n = 0 if ends is None else int(self.counts[ends[0]])
        result = []
        for part, names in _by_part(self.gates).items():
            sums = torch.cat([self.sums[name] for name in names], 1).cpu()
            known = not self.unknown & set(names)
            value = gate_range(self.buckets, self.counts, sums) if known else None
            result.append(_row(RANGE + part, value, n) | place)
        return result

    def _reduce(self) -> None:
        if self.world_size == 1:
            return
        counts = self.counts.to(self.device)
        for x in (counts, *self.sums.values()):
            dist.all_reduce(x)
        self.counts = counts.cpu()
        names = list(self.gates)
        unknown = torch.tensor([name in self.unknown for name in names], dtype=torch.int64, device=self.device)
        dist.all_reduce(unknown)
        self.unknown = {name for name, known in zip(names, unknown.tolist(), strict=True) if known}


def gate_weights(task: RankingTask, step: int) -> list[MetricRow]:
    """`gate_weight_PART`: root mean square of the weights of the gates' last layers, which is 0 while gates rest."""
    gates, place = personalized_gates(task.ranker), {"step": step, "period": None, "split": "fit"}
    rows = []
    for part, names in _by_part(gates).items():
        weights = torch.cat([gates[name].output.weight.detach().flatten() for name in names])
        rows.append(_row(WEIGHT + part, float(weights.square().mean().sqrt()), len(weights)) | place)
    return rows


def unmoved(rows: Sequence[MetricRow]) -> str:
    """What a reader has to be told of the gate ranges among the rows: that the gates hardly differ; '' if they do."""
    ranges = {r["metric"].removeprefix(RANGE): r["value"] for r in rows if r["metric"].startswith(RANGE)}
    known = {part: value for part, value in ranges.items() if value is not None}
    if not known or max(known.values()) >= LEAST_RANGE:
        return ""
    listed = ", ".join(f"{part} {value:.3f}" for part, value in known.items())
    return (
        f"the gates hardly differ between the least and the best known ({listed}; {LEAST_RANGE} is little): the run"
        " does not tell what personalization is worth"
    )


def _by_part(gates: dict[str, PersonalizedGate]) -> dict[str, list[str]]:
    """Part of the model -> its gates: what follows `ranker` in a name, up to the first full stop."""
    parts: dict[str, list[str]] = {}
    for name in gates:
        parts.setdefault(name.removeprefix("ranker.").split(".")[0], []).append(name)
    return parts


def _row(metric: str, value: float | None, n: int) -> MetricRow:
    return {"cohort": "all", "task": "all", "metric": metric, "value": value, "n": n}
