"""What a head is: a config, and the module that it builds. docs/tasks.md shows one of a user's own.

A head turns a task's one logit per row into what is served, says which labels are right, how the logit learns from
them, and by what the answers are judged. N labels.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from coldrank.models.component import Component


class HeadModule(nn.Module):
    """From logits to losses and to what is served. Each element is treated by itself: what is given has one shape,
    [..], and so has what comes back. Its parameters are dense parameters like any other. `predict` becomes a part of
    the served file: scriptable."""

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """float [..] each; labels NaN where unknown -> the loss of each, [..]; where the label is unknown 0, without a
        gradient."""
        raise NotImplementedError

    def predict(self, logits: Tensor) -> Tensor:
        """float [..] -> what is served, [..]."""
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class Head(Component):
    """A task's settings, from which its head is built."""

    what: ClassVar[str] = "head"
    package: ClassVar[str] = "coldrank.models.heads"
    gives: ClassVar[str] = "value"
    """What is served, in a word. `probability`: labels are 0 and 1, and the predictions' column is `prob_<task>`; else
    it is `pred_<task>`."""
    loss_name: ClassVar[str] = "loss"
    """What metrics.jsonl calls the loss of the task in training."""
    weight: NonNegativeFloat = 1.0
    """Of the task's loss in that of all tasks."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """By which it is judged: names of `metrics.by_cohort.BINARY`, or of `metrics.values.VALUES` for what is no
        probability. A table shows the first. A metric of one's own is one of `RunConfig.metrics`."""
        return ()

    @property
    def is_binary(self) -> bool:
        """Whether labels are 0 and 1, and a probability is served."""
        return self.gives == "probability"

    def column(self, task: str) -> str:
        """The column of a task's predictions."""
        return f"{'prob' if self.is_binary else 'pred'}_{task}"

    def build(self) -> HeadModule:
        """The module."""
        raise NotImplementedError

    def label_problem(self, labels: NDArray[np.floating[Any]]) -> tuple[NDArray[np.bool_], str]:
        """Which of some labels [N] cannot be, bool [N], and why, in words that follow the label; none, by default. What
        is said of NaN, an unknown label, is of no consequence."""
        return np.zeros(len(labels), np.bool_), ""

    def grades(self, labels: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Labels [N] as grades from 0 on, whose gain in NDCG is 2^grade - 1."""
        return labels

    def problem(self) -> str:
        """Which settings cannot work together, in words that begin with the field; '' if nothing."""
        return ""

    def idle(self) -> list[tuple[bool, tuple[str, ...], str]]:
        """Settings without an effect beside others: whether it is so, which fields, and beside what ("has no effect
        ...")."""
        return []
