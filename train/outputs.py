"""What a step's forward pass gives. B batch, T tasks."""

from typing import NamedTuple

from torch import Tensor

from coldrank.models.two_tower import Vectors


class Outputs(NamedTuple):
    """loss: scalar. logits: float32 [B, T]. task_losses: sum over the known labels and their number, [T] each, detached.
    vectors: of the two-tower model, detached."""

    loss: Tensor
    logits: Tensor
    task_losses: tuple[Tensor, Tensor]
    vectors: Vectors | None = None
