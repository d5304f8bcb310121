"""The heads of all tasks, side by side. B batch, T tasks."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from coldrank.models.heads.head import Head, HeadModule
from coldrank.modules.gate import separate_draws


class Answers(nn.Module):
    """Logits of all tasks -> what is served. Scriptable.

    parts: `label_<task>` -> the module of a task, or of several that are computed at once, under the name of the first.
    starts: the first task of each part, and T.
    """

    starts: list[int]

    def __init__(self, parts: nn.ModuleDict, starts: list[int]) -> None:
        super().__init__()
        self.parts, self.starts = parts, starts

    def forward(self, logits: Tensor) -> Tensor:
        """[B, T] -> [B, T]."""
        found: list[Tensor] = []
        for i, head in enumerate(self.parts.values()):
            # mypy takes a submodule's method for a tensor.
            found.append(head.predict(logits[:, self.starts[i] : self.starts[i + 1]]))  # type: ignore[operator]
        return torch.cat(found, 1)


class Heads(Answers):
    """And how they learn. Neighbouring tasks whose heads differ in their weight alone and have no state are one
    part."""

    weights: Tensor

    def __init__(self, tasks: Mapping[str, Head]) -> None:
        heads = list(tasks.values())
        with separate_draws():  # so that the tables begin as they do beside other heads
            modules = [head.build() for head in heads]
        alike = [False, *(_is_part_of(a, b, m) for (a, b), m in zip(pairwise(heads), modules[1:], strict=True))]
        firsts = [i for i, same in enumerate(alike) if not same]
        parts = nn.ModuleDict({f"label_{list(tasks)[i]}": modules[i] for i in firsts})
        super().__init__(parts, [*firsts, len(heads)])
        self.register_buffer("weights", torch.tensor([head.weight for head in heads]), persistent=False)

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[B, T] each; labels NaN where unknown -> the losses [B, T], 0 where the label is unknown."""
        if len(self.parts) == 1:
            return self._part(0).losses(logits, labels)
        spans = list(enumerate(pairwise(self.starts)))
        return torch.cat([self._part(i).losses(logits[:, a:b], labels[:, a:b]) for i, (a, b) in spans], 1)

    def loss(
        self, logits: Tensor, labels: Tensor, row_weights: Tensor | None = None, rows: float | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """logits, labels: [B, T], labels NaN where unknown. row_weights: float [B] (None: 1 each). rows: what the sum
        over rows is divided by (None: B).

        Returns the loss, sum over tasks of weight * (sum over known labels of row weight * loss) / rows, and per task
        the sum over the known labels and their number, [T] each, unweighted and detached. Dividing by rows rather than
        by the number of known labels or the sum of the row weights gives every label of a row the same weight, whatever
        else is in its batch. Of several ranks, `rows` is the mean number of their rows: the mean over ranks is then the
        loss of all rows together. A row of weight 2 counts as two equal rows.
        """
        losses = self.losses(logits, labels)
        sums = losses.sum(0)
        known = (labels == labels).sum(0, dtype=sums.dtype)  # noqa: PLR0124 - but for NaN
        weighted = sums if row_weights is None else row_weights @ losses
        total = (weighted * self.weights).sum() / (labels.shape[0] if rows is None else rows)
        return total, (sums.detach(), known)

    def _part(self, number: int) -> HeadModule:
        part = list(self.parts.values())[number]
        assert isinstance(part, HeadModule)
        return part


def _is_part_of(before: Head, head: Head, module: HeadModule) -> bool:
    return replace(before, weight=head.weight) == head and not [*module.parameters(), *module.buffers()]
