"""A head: seconds whose logarithm is normal, around what the model says and with a spread that is learned."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveFloat
from torch import Tensor, nn

from coldrank.models.heads import Head, HeadModule


@dataclass(kw_only=True, slots=True)
class LogNormal(Head):
    """log(1 + label) is normal with mean z and deviation s; the mean of the label is served, e^(z + s^2 / 2) - 1."""

    gives: ClassVar[str] = "mean"
    loss_name: ClassVar[str] = "nll"
    spread: PositiveFloat = 1.0
    """s as it begins."""

    @property
    def metrics(self) -> tuple[str, ...]:
        return "xauc", "mae", "calibration"

    def build(self) -> HeadModule:
        return LogNormalModule(self)

    def label_problem(self, labels: NDArray[np.floating[Any]]) -> tuple[NDArray[np.bool_], str]:
        return labels < 0, "is below 0, which no time is"


class LogNormalModule(HeadModule):
    """log_spread: log s, trained with the rest."""

    def __init__(self, config: LogNormal) -> None:
        super().__init__()
        self.log_spread = nn.Parameter(torch.tensor(config.spread).log())

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = ~torch.isnan(labels)
        error = (torch.log1p(torch.where(known, labels, 0.0)) - logits) * torch.exp(-self.log_spread)
        return torch.where(known, error * error / 2 + self.log_spread, 0.0)

    def predict(self, logits: Tensor) -> Tensor:
        return torch.expm1(logits + torch.exp(2 * self.log_spread) / 2)
