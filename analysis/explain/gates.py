"""Outputs of the personalized gates by bucket of the personalization code (POSO, Fig. 4).

B rows of a batch, K buckets, G gates of a module, P panels, S lines in a panel, U units behind a line.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from coldrank.models.batch import Batch
from coldrank.models.ranker import RankerModule
from coldrank.modules import PosoMMoE, PosoMultiheadAttention, PosoTowers
from coldrank.train.gates import Buckets, gate_range


@dataclass(frozen=True, slots=True)
class GateLayout:
    """How the G outputs of a gate are read: reshaped, permuted to panels, lines and units, and named."""

    title: str
    """What the gate stands behind."""
    shape: tuple[int, ...]
    """The shape that the G outputs have."""
    order: tuple[int, ...]
    """The order of its axes that makes them [P, S, U]."""
    panels: tuple[str, ...]
    """Names of the P panels."""
    lines: tuple[str, ...]
    """Names of the S lines."""

    def arrange(self, gates: Tensor) -> Tensor:
        """Outputs [K, G] as [K, P, S, U]."""
        split = gates.unflatten(1, self.shape).permute(0, *(1 + i for i in self.order))
        return split.reshape(len(gates), len(self.panels), len(self.lines), -1)


def layouts(ranker: RankerModule, tasks: list[str]) -> dict[str, GateLayout]:
    """Module name of every personalized gate of a ranker -> how its outputs are read."""
    layouts_: dict[str, GateLayout] = {}
    for name, module in ranker.attention.items():
        if isinstance(module, PosoMultiheadAttention):
            heads, folds = _numbered("head", module.heads), module.key_folds * module.value_folds
            shape = (module.key_folds, module.heads, module.value_folds, module.gate_width)
            layouts_[f"attention.{name}.value_gate"] = GateLayout(
                f"{name} values", shape, (1, 0, 2, 3), heads, _numbered("fold", folds)
            )
            if module.key_gate is not None:
                layouts_[f"attention.{name}.key_gate"] = GateLayout(
                    f"{name} keys", (module.heads, module.head_dim), (0, 1), ("",), heads
                )
    if isinstance(ranker.mmoe, PosoMMoE):
        experts = ranker.mmoe.shape[1]
        layouts_["mmoe.gate"] = GateLayout("experts", (experts,), (0,), ("",), _numbered("expert", experts))
    if isinstance(ranker.towers, PosoTowers):
        for i in range(len(ranker.towers.gates)):
            layouts_[f"towers.gates.{i}"] = GateLayout(
                f"towers, layer {i + 1}", (len(tasks), -1), (0, 1), ("",), tuple(tasks)
            )
    return layouts_


def _numbered(what: str, count: int) -> tuple[str, ...]:
    return tuple(f"{what} {i + 1}" for i in range(count))


class GateOutputs:
    """Accumulates gate outputs over batches; `figures` gives them by bucket."""

    def __init__(self, buckets: Buckets, layouts: dict[str, GateLayout]) -> None:
        self.buckets, self.layouts = buckets, layouts
        self.rows = torch.zeros(len(buckets.labels), dtype=torch.int64)
        self.sums: dict[str, Tensor] = {}

    def add(self, batch: Batch, gates: dict[str, Tensor]) -> None:
        """Takes in a batch. gates: module name -> outputs, [B, G]."""
        bucket = self.buckets.rows(batch)
        self.rows += torch.bincount(bucket, minlength=len(self.rows))
        for name, value in gates.items():
            into = self.sums.setdefault(name, torch.zeros(len(self.rows), value.shape[1], dtype=torch.float64))
            into.index_add_(0, bucket, value.double())

    def figures(self) -> dict[str, Any] | None:
        """The means by bucket, as in explain.json; None: there are no gates.

        range: how far the gate that moves most goes from the first bucket to that of 256 (`gate_range`); None where too
            few rows tell.

        buckets: those that have rows: where each begins (`from`), and its `rows`.
        gates: per gate its panels, per line of these the `mean` over its units at each bucket, and their standard
            deviation (`spread`).
        """
        if not self.sums:
            return None
        seen = self.rows.nonzero().flatten()
        count = self.rows[seen, None]
        ranges = [gate_range(self.buckets, self.rows, sums) for sums in self.sums.values()]
        known = [value for value in ranges if value is not None]
        return {
            "range": max(known) if known else None,
            "column": self.buckets.column,
            "is_code": self.buckets.is_code,
            "buckets": [{"from": self.buckets.labels[i], "rows": int(self.rows[i])} for i in seen.tolist()],
            "gates": [
                {"name": name, "title": layout.title, "panels": _panels(layout, self.sums[name][seen] / count)}
                for name, layout in self.layouts.items()
            ],
        }


def _panels(layout: GateLayout, gates: Tensor) -> list[dict[str, Any]]:
    values = layout.arrange(gates)  # [K, P, S, U]
    means, spreads = values.mean(3), values.std(3, correction=0)
    return [
        {
            "name": panel,
            "units": values.shape[3],
            "lines": [
                {"name": line, "mean": means[:, p, s].tolist(), "spread": spreads[:, p, s].tolist()}
                for s, line in enumerate(layout.lines)
            ],
        }
        for p, panel in enumerate(layout.panels)
    ]
