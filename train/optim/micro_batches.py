"""The gradient of a whole batch from one micro-batch of it after another."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded

if TYPE_CHECKING:
    from coldrank.models.model import Outputs


def by_micro_batches(
    dense: Callable[[Batch, Embedded], "Outputs"],
    batch: Batch,
    embedded: Embedded,
    weights: Sequence[Tensor],
    count: int,
) -> "Outputs":
    """What `dense(batch, embedded)` gives, up to rounding, and the same gradients, for a loss that is a mean over rows,
    of all ranks.

    Each runs forward and backward before the next, so that the activations of one are held at a time. The summed
    gradients of `weights` and of the embeddings wait until the step's own backward passes through, once: to the tables,
    which are updated once, and to DistributedDataParallel, which averages over the ranks once. Not twice
    differentiable; a loss that compares the rows of a batch sees those of its micro-batch alone.

    count: micro-batches, of equal size but for the last. `dense` gets no `sparse` part: it has been looked up.
    """
    whole = list(embedded.values())
    size = max(1, -(-len(batch) // count))
    outputs: list[Outputs] = []
    of_leaves: list[list[Tensor]] = []
    of_weights: list[Tensor | None] = [None] * len(weights)
    for start in range(0, max(1, len(batch)), size):  # no rows are one, too: every weight gets its gradient, zeros
        rows = slice(start, start + size)
        leaves = [t.detach()[rows].requires_grad_() for t in whole]
        part = rows_of(batch, rows)
        out = dense(part, dict(zip(embedded, leaves, strict=True)))
        loss = out.loss * (len(part) / batch.mean_size)
        grads = torch.autograd.grad(loss, [*leaves, *weights], allow_unused=True)
        of_leaves.append([torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=False)])
        of_weights = [_sum(a, b) for a, b in zip(of_weights, grads[len(leaves) :], strict=True)]
        outputs.append(out._replace(loss=loss.detach(), logits=out.logits.detach()))
    gradients = [*(torch.cat(parts) for parts in zip(*of_leaves, strict=True)), *of_weights]
    sums, known = (torch.stack(x).sum(0) for x in zip(*(out.task_losses for out in outputs), strict=True))
    return outputs[0]._replace(
        loss=_Graded.apply(torch.stack([out.loss for out in outputs]).sum(), gradients, *whole, *weights),
        logits=torch.cat([out.logits for out in outputs]),
        task_losses=(sums, known),
    )


class _Graded(torch.autograd.Function):
    """A loss whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor | None], *_inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *of_loss: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        return (None, None, *(None if g is None else g * of_loss[0] for g in gradients))


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def rows_of(batch: Batch, rows: slice | Tensor) -> Batch:
    """Some rows of a batch, for what comes after the lookup: without the `sparse` part. rows: a slice, or int64 [R] on
    any device."""
    to = lambda device: rows if isinstance(rows, slice) else rows.to(device)
    there = to(batch.dense.device)
    return Batch(
        KeyedJaggedTensor.empty(device=batch.dense.device),
        batch.dense[there],
        batch.sequence_lengths[:, there],
        batch.labels[there],
        {name: values[to(values.device)] for name, values in batch.keys.items()},
        weights=None if batch.weights is None else batch.weights[there],
    )
