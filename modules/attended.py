"""What passes over a sequence in attention: softmax(probes . x)_l, and the sum of x by it.

S sequences, B probes' samples (S or a multiple, as many in turn for each sequence), L sequence length, D width, R rows
of attention weights.
"""

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._jit_internal import is_scripting


def attended(probes: Tensor, parts: list[Tensor], positions: Tensor | None, lengths: Tensor) -> Tensor:
    """sum_l softmax(probes . x)_l x_l over the positions l < lengths, zeros where lengths is 0; what is past the end
    must be finite. probes: float [B, R, D], parts and positions: as for `joined`, lengths: int64 [S] -> [B, R, D].
    Scriptable."""
    # By itself, or TorchScript would compile what is in it.
    if not is_scripting():  # noqa: SIM102
        if torch.is_grad_enabled() and not torch._C._get_tracing_state():
            read: Tensor = _Attended.apply(_by_sequence(probes, lengths), lengths, positions, *parts)[0]
            return read.view(probes.shape)
    sequence = joined(parts, positions)
    return attend(attention_weights(probes, sequence, lengths), sequence, lengths)


def joined(parts: list[Tensor], positions: Tensor | None) -> Tensor:
    """A sequence from its parts, float [S, L, D'] each, whose columns lie side by side, and what is added at each
    position of all, float [L, D] -> [S, L, D]. Scriptable."""
    if len(parts) == 1:
        return parts[0] if positions is None else parts[0] + positions
    sequence = torch.cat(parts, 2)
    return sequence if positions is None else sequence.add_(positions)


def attention_weights(probes: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
    """softmax(probes . x)_l over the positions l < lengths; the others must be finite.

    probes: float [B, R, D], sequence: float [S, L, D], lengths: int64 [S] -> [B, R, L]. An empty sequence keeps its
    first position through the softmax, which is then finite: `attend` sets its result to zero. Scriptable.
    """
    scores = torch.bmm(_by_sequence(probes, lengths), sequence.transpose(1, 2))
    padded = torch.arange(sequence.shape[1], device=lengths.device) >= lengths.clamp(min=1).unsqueeze(1)
    # Added, as filling scores in takes four times as long.
    past = torch.zeros(padded.shape, dtype=scores.dtype, device=scores.device).masked_fill(padded, -math.inf)
    weights = torch.softmax(scores + past.unsqueeze(1), -1)
    return weights.view(probes.shape[0], probes.shape[1], sequence.shape[1])


def attend(weights: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
    """sum_l weights_l x_l. weights: float [B, R, L], sequence: float [S, L, D], lengths: int64 [S] -> [B, R, D], zeros,
    with zero gradients of any order, where lengths is 0. Scriptable."""
    read = torch.bmm(_by_sequence(weights, lengths), sequence) * _there(lengths, weights)
    return read.view(weights.shape[0], weights.shape[1], sequence.shape[2])


def without_padding(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Zeros at the positions past a sequence's length: NaN or infinity there would outlast a weight of 0, in the result
    and in the gradients. sequence: float [B, L, D], lengths: int64 [B] -> [B, L, D]."""
    padded = torch.arange(sequence.shape[1], device=sequence.device) >= lengths.unsqueeze(1)
    return sequence.masked_fill(padded.unsqueeze(2), 0.0)


class _Attended(torch.autograd.Function):
    """`attend` by `attention_weights`, whose backward pass writes a gradient of the size of the sequences once.

    The sequence is read twice, so its gradient is a sum of two products over R: here one over 2 R. It is made part by
    part, as the tables want it, and what comes of it for `positions` is a product as well, no sum over the samples. The
    weights are a result too, so that the derivatives may be of any order.
    """

    @staticmethod
    def forward(
        ctx: Any, probes: Tensor, lengths: Tensor, positions: Tensor | None, *parts: Tensor
    ) -> tuple[Tensor, Tensor]:
        device = probes.device.type
        # A device that computes nothing, such as meta, has no autocast.
        casts = torch.amp.is_autocast_available(device)
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)) if casts else None
        ctx.sequence = sequence = joined(list(parts), positions)
        weights = attention_weights(probes, sequence, lengths)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(probes, lengths, positions, weights, *parts)
        return attend(weights, sequence, lengths), weights

    @staticmethod
    def backward(ctx: Any, of_read: Tensor | None, of_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        probes, lengths, positions, weights, *parts = ctx.saved_tensors
        # Once more from its parts where this is differentiated in turn.
        sequence = joined(parts, positions) if torch.is_grad_enabled() else ctx.sequence
        with torch.autocast(*ctx.autocast) if ctx.autocast else nullcontext():  # as in the forward pass
            of_read = torch.zeros_like(probes) if of_read is None else of_read * _there(lengths, of_read)
            by_weight = torch.bmm(of_read, sequence.transpose(1, 2)).to(weights.dtype)
            if of_weights is not None:
                by_weight = by_weight + of_weights
            of_scores = torch._softmax_backward_data(by_weight, weights, -1, weights.dtype)
            of_sequence, beside = torch.cat([weights, of_scores], 1), torch.cat([of_read, probes], 1)
            columns = beside.split([part.shape[2] for part in parts], 2)
            of_parts = [torch.bmm(of_sequence.transpose(1, 2), part) for part in columns]
            of_positions = None if positions is None else of_sequence.flatten(0, 1).t() @ beside.flatten(0, 1)
            return torch.bmm(of_scores, sequence), None, of_positions, *of_parts


def _there(lengths: Tensor, like: Tensor) -> Tensor:
    """[S, 1, 1]: 0 where a sequence is empty, else 1."""
    return (lengths > 0).to(like.dtype)[:, None, None]


def _by_sequence(x: Tensor, lengths: Tensor) -> Tensor:
    """x: [B, R, D] -> [S, B / S * R, D]: what is of one sequence, together."""
    count = lengths.shape[0]
    return x.reshape(count, x.shape[0] // max(1, count) * x.shape[1], x.shape[2])
