"""What a model is: a config, and the module that it builds. docs/extending.md shows one of a user's own.

B batch, T tasks.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from coldrank.models.batch import Batch, SampleView
from coldrank.models.component import Component
from coldrank.models.embeddings import Embedded
from coldrank.models.features import FeatureSet
from coldrank.models.heads.head import Head
from coldrank.models.heads.heads import Heads


class Vectors(NamedTuple):
    """What a retrieval model compares. N: PAM's popularity groups; 1 without it."""

    item: Tensor
    """[B, D], by the weights of the row's own group."""
    users: Tensor
    """[N, B, D], by the weights of every group."""
    group: Tensor
    """Of each row, int64 [B]."""


class Outputs(NamedTuple):
    """What a forward pass gives."""

    loss: Tensor
    """Scalar."""
    logits: Tensor
    """float32 [B, T]."""
    task_losses: tuple[Tensor, Tensor]
    """Sum over the known labels and their number, [T] each, detached."""
    vectors: Vectors | None = None
    """Of a retrieval model, detached."""


class ModelModule(nn.Module):
    """Embedded features -> logits, and the loss of these."""

    temperature: float | None = None
    """Of a model whose answers are inner products: logits times this."""

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        """Logits [B, T]."""
        raise NotImplementedError

    def sees(self, batch: Batch) -> None:
        """Takes a batch of training before its pass, once, on all ranks."""

    def outputs(
        self, embedded: Embedded, batch: Batch, heads: Heads, row_weights: Tensor | None, *, bf16: bool
    ) -> Outputs:
        """Logits and loss, which is in float32 whatever the precision. row_weights: float32 [B]; None: all are 1."""
        with torch.autocast(batch.dense.device.type, torch.bfloat16, enabled=bf16):
            logits = self(embedded, batch).float()
        total, per_task = heads.loss(logits, batch.labels, row_weights, batch.mean_size)
        return Outputs(total, logits, per_task)


class Model(Component):
    """A model's settings, from which it is built."""

    what = "model"
    package = "coldrank.models"
    retrieves: ClassVar[bool] = False
    """Whether it is judged by the users that it finds for an item (docs/pam.md), and gives `Vectors`."""
    compares_rows: ClassVar[bool] = False
    """Whether rows of a batch meet in its loss: it then takes no micro-batches, no row weights and no bf16."""

    @property
    def personalized(self) -> bool:
        """Whether any part takes the personalization code."""
        return False

    @property
    def reads_pc(self) -> bool:
        """Whether it reads the features of role `pc`."""
        return False

    def build(self, features: FeatureSet, tasks: int) -> ModelModule:
        """The module. tasks: T."""
        raise NotImplementedError

    def problem(self, features: FeatureSet, tasks: Mapping[str, Head], *, sequences: bool = False) -> str:
        """What cannot work, in words that begin with the field; '' if nothing. sequences: whether a hook reads
        sequences."""
        return ""

    def idle(self, features: FeatureSet) -> list[tuple[bool, tuple[str, ...], str]]:
        """Settings without an effect beside others: whether it is so, which fields, and beside what ("has no effect
        ...")."""
        return []
