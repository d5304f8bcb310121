"""Yes or no: clicks, likes, finished views."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from coldrank.models.heads.head import Head, HeadModule


@dataclass(kw_only=True, slots=True)
class Binary(Head):
    """A label of 0 or 1: binary cross-entropy, and the probability of a 1."""

    gives: ClassVar[str] = "probability"
    loss_name: ClassVar[str] = "logloss"

    @property
    def metrics(self) -> tuple[str, ...]:
        return "auc", "auc_fixed_avc", "gauc", "ne", "logloss", "calibration", "label_rate"

    def build(self) -> "BinaryModule":
        return BinaryModule()

    def label_problem(self, labels: NDArray[np.floating[Any]]) -> tuple[NDArray[np.bool_], str]:
        return (labels != 0) & (labels != 1), "is neither 0 nor 1, as a binary task has them"


class BinaryModule(HeadModule):
    """The logit is the log-odds of a 1."""

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = ~torch.isnan(labels)
        losses = F.binary_cross_entropy_with_logits(logits, torch.where(known, labels, 0.0), reduction="none")
        return torch.where(known, losses, 0.0)

    def predict(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)
