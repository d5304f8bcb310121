"""Gradient-based adaptation of some weights to many tasks at once (MAML), with a learned rate per tensor and step
(LSLR).

N tasks, S steps, P adapted tensors.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from coldrank.modules.checks import check_sizes

# Name -> the weights of all tasks, [N, ...].
Weights = dict[str, Tensor]


class InnerLoop(nn.Module):
    """Omega_n <- Theta - alpha * grad L_n(Theta) (PAM, Eq. 9), `steps` times, for all tasks in one graph.

    rates: float [S, P], alpha of every step and tensor, trained with everything else. Not bounded: a rate that turns
    negative says that the task's support set misleads. second_order: the outer gradient passes through the inner ones;
    else these count as constants. steps may be 0: nothing is adapted then.
    """

    def __init__(self, names: Sequence[str], steps: int = 1, rate: float = 1e-3, second_order: bool = True) -> None:
        super().__init__()
        check_sizes(names=len(names))
        if steps < 0:
            raise ValueError(f"steps is {steps}: it must not be below 0")
        self.names = tuple(names)
        self.second_order = second_order
        self.rates = nn.Parameter(torch.full((steps, len(names)), rate))

    def forward(
        self,
        start: Mapping[str, Tensor],
        loss: Callable[[Weights], Tensor],
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> list[Weights]:
        """The weights of all tasks after 0, 1, ..., S steps.

        start: name -> [N, ...], where the tasks begin; shared weights are expanded. loss: the weights of all tasks ->
        [N], the support loss of each, which must depend on the weights of its own task alone (`each_task` makes such a
        function of the loss of one task); of a task without samples it must be a constant: its weights then stay at the
        start, bit for bit. reduce: sums the gradients, [N, all weights], over ranks, so that all adapt to the samples
        of all; it must be differentiable for second order.
        """
        shapes = {name: start[name].shape[1:] for name in self.names}
        sizes = [shape.numel() for shape in shapes.values()]
        # All weights as one tensor: a step is then a few operations, however many tensors there are.
        now = torch.cat([start[name].flatten(1) for name in self.names], 1)
        rates = self.rates.repeat_interleave(torch.tensor(sizes, device=now.device), 1, output_size=sum(sizes))
        path = [now]
        for rate in rates:
            graph = self.second_order and torch.is_grad_enabled()
            weights = now if graph else now.detach().requires_grad_()
            with torch.enable_grad():
                # The loss of a task sees its own slice alone, so the gradient of the sum holds the gradient of each.
                total = loss(_named(weights, shapes)).sum()
            (gradient,) = torch.autograd.grad(total, weights, create_graph=graph, materialize_grads=True)
            now = now - rate * (gradient if reduce is None else reduce(gradient))
            path.append(now)
        return [_named(weights, shapes) for weights in path]


def _named(flat: Tensor, shapes: Mapping[str, torch.Size]) -> Weights:
    parts = flat.split([shape.numel() for shape in shapes.values()], 1)
    return {name: part.unflatten(1, shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}


def each_task(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`loss(weights, rows, ...) -> scalar` of one task as a function of all tasks, `vmap` over the first dimension of
    every argument: tensors [N, M, ...], rows padded to the largest task (`pad_tasks`), the weight of a padded row 0."""
    return torch.func.vmap(loss)


def pad_tasks(task: Tensor, tasks: int) -> tuple[Tensor, Tensor]:
    """Task of each row, int64 [B] -> the rows of each task in their order, int64 [N, M], and where there is one, bool
    [N, M].

    M: rows of the largest task. Places without a row point at row 0. Rows with a task outside 0..N-1 are in none.
    """
    of_task = task == torch.arange(tasks, device=task.device).unsqueeze(1)
    counts = of_task.sum(1)
    widest = int(counts.max()) if len(task) else 0
    index = torch.zeros(tasks, widest, dtype=torch.int64, device=task.device)
    present = torch.arange(widest, device=task.device) < counts.unsqueeze(1)
    index[present] = of_task.nonzero()[:, 1]
    return index, present
