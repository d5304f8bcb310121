"""A number: seconds watched, a price."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveFloat
from torch import Tensor

from coldrank.models.heads.head import Head, HeadModule


@dataclass(kw_only=True, slots=True)
class Regression(Head):
    """A label that is any number. The logit is the prediction, or on the scale of `transform`."""

    gives: ClassVar[str] = "value"
    loss: Literal["mse", "huber", "mae"] = "mse"
    """Of the difference e of logit and transformed label: e^2, |e|, or of Huber e^2 / 2 up to `delta` and delta (|e|
    - delta / 2) beyond."""
    delta: PositiveFloat = 1.0
    """Where Huber's loss passes from a square to a line, on the scale of `transform`."""
    transform: Literal["none", "log1p"] = "none"
    """log1p: the loss is of log(1 + label), of labels that are not below 0, and what is served is e^logit - 1: of a
    mean or median of logarithms, and so below the labels' mean."""

    @property
    def metrics(self) -> tuple[str, ...]:
        return "xauc", "mae", "rmse", "calibration", "label_mean"

    def build(self) -> "RegressionModule":
        return RegressionModule(self)

    def label_problem(self, labels: NDArray[np.floating[Any]]) -> tuple[NDArray[np.bool_], str]:
        if self.transform == "log1p":
            return labels < 0, "is below 0, of which transform='log1p' has no logarithm"
        return Head.label_problem(self, labels)

    def idle(self) -> list[tuple[bool, tuple[str, ...], str]]:
        return [(self.loss != "huber", ("delta",), f"with loss={self.loss!r}")]


class RegressionModule(HeadModule):
    """The logit is the transformed label's prediction."""

    def __init__(self, config: Regression) -> None:
        super().__init__()
        self.loss, self.delta, self.logarithm = config.loss, config.delta, config.transform == "log1p"

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = ~torch.isnan(labels)
        target = torch.where(known, labels, 0.0)
        if self.logarithm:
            target = torch.log1p(target)
        size = (logits - target).abs()
        losses = size
        if self.loss == "mse":
            losses = size * size
        elif self.loss == "huber":
            inner = size.clamp(max=self.delta)
            losses = inner * (size - 0.5 * inner)  # e^2 / 2, or delta (e - delta / 2)
        return torch.where(known, losses, 0.0)

    def predict(self, logits: Tensor) -> Tensor:
        return torch.expm1(logits) if self.logarithm else logits
