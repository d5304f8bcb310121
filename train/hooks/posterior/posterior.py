"""The posterior of cold ids in a model: the evidence of each batch, and what becomes of it (ids.py has the equations).

B batch, n cold events, T tasks, D width of an ID embedding.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded, rows_of_embedded
from coldrank.models.heads.heads import Heads
from coldrank.models.model import Outputs
from coldrank.train.hooks.hook import HookModule, Rest, RunView
from coldrank.train.hooks.posterior.ids import ColdIds, Evidence
from coldrank.train.optim.micro_batches import rows_of
from coldrank.train.stepping import Taken


class PosteriorModule(HookModule):
    """Cold ids have their posterior means, in training and evaluation; a side pass over their events gives the
    evidence.

    An event counts in the first pass over the data alone, once, and in a stream in the one pass of its period.
    """

    micro_batches: ClassVar[bool] = False  # what `embed` has kept waits for `dense`, whole
    steps: Tensor

    def __init__(self, ids: dict[str, ColdIds], tasks: list[int], refresh: int) -> None:
        """ids: by role. tasks: numbers of those whose labels are evidence. refresh: steps between fits of the
        priors."""
        super().__init__()
        self.tasks, self.refresh = tasks, refresh
        self.ids = nn.ModuleDict(ids)
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self._counts = False
        self._evidence: dict[str, Evidence] = {}

    @property
    def in_order(self) -> dict[str, ColdIds]:
        """The ids by role."""
        return {role: ids for role, ids in self.ids.items() if isinstance(ids, ColdIds)}

    def embed(self, batch: Batch, embedded: Embedded) -> Embedded:
        learns = self.training and torch.is_grad_enabled()
        for ids in self.in_order.values():
            embedded = ids.embed(batch, embedded, learns=learns)
        return embedded

    def dense(self, rest: Rest, batch: Batch, embedded: Embedded) -> Outputs:
        """The pass as it is. Training: beside it one over the cold rows, from which evidence is kept and no
        gradient."""
        out = rest(batch, embedded)
        seen = {role: ids.seen for role, ids in self.in_order.items() if ids.seen is not None}
        if rest.side or not seen or not (self._counts and self.training and torch.is_grad_enabled()):
            return out
        if not any(ids.is_fitted for ids in self.in_order.values()):
            return out
        labels = batch.labels[:, self.tasks]
        known = (~torch.isnan(labels)).any(1)
        cold = {role: of.cold & known for role, of in seen.items()}
        counted = torch.stack(list(cold.values())).any(0)
        if rest.by_rows and not counted.any():
            return out
        # Where rows meet, all pass, on every rank; those that are not cold are no evidence.
        rows = (counted if rest.by_rows else torch.ones_like(counted)).nonzero().squeeze(1)
        some = rows_of(batch, rows) if rest.by_rows else batch
        part = rows_of_embedded(embedded, rows)
        leaves = {role: part[ids.name].detach().requires_grad_() for role, ids in self.in_order.items()}
        # A view: torch's counter of FLOPs takes no leaf as a module's input.
        part |= {ids.name: leaves[role].view_as(leaves[role]) for role, ids in self.in_order.items()}
        with torch.random.fork_rng(devices=[counted.device] if counted.is_cuda else []):
            logits = rest.aside(some, part).logits
        first, second = derivatives(rest.heads, logits, some.labels, some.weights)
        slopes = slopes_of([logits[:, t] for t in self.tasks], list(leaves.values()))
        for (role, of), of_ids in zip(seen.items(), slopes, strict=True):
            mine = cold[role][rows]
            of_losses = (x[mine][:, self.tasks] for x in (first, second))
            self._evidence[role] = Evidence(of.rows[rows][mine], of.means[rows][mine], of_ids[mine], *of_losses)
        return out

    def placed(self, run: RunView) -> None:
        for ids in self.in_order.values():
            ids.placed(run.model)

    def before_step(self, run: RunView, taken: Taken) -> None:
        """Fits the priors every `refresh` steps."""
        self._counts = run.config.train.mode == "periods" or taken.epoch == 0
        fits = bool(self.steps > 0) and bool(self.steps % self.refresh == 0)
        for ids in self.in_order.values():
            ids.before_step(run, taken, fits=fits)

    def after_step(self, run: RunView) -> None:
        """Takes the evidence of all ranks into the posteriors, and writes their means into the tables."""
        evidence, self._evidence = self._evidence, {}
        for role, ids in self.in_order.items():
            ids.after_step(evidence.get(role) or self._nothing(ids))
        self.steps += 1

    def _nothing(self, ids: ColdIds) -> Evidence:
        of = ids.weight[:0]
        no_slopes = of.new_zeros(0, len(self.tasks), of.shape[1])
        return Evidence(of.new_zeros(0, dtype=torch.int64), of, no_slopes, no_slopes[:, :, 0], no_slopes[:, :, 0])


def derivatives(heads: Heads, logits: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """First and second derivatives, [B, T] each, of the losses by the logits [B, T], by the weights of the tasks and of
    the samples [B] (None: 1 each); 0 where the label [B, T] is unknown. A second one below 0 is taken for 0."""
    z = logits.detach().requires_grad_()
    losses = heads.losses(z, labels) * heads.weights
    total = losses.sum() if weights is None else (weights @ losses).sum()
    (first,) = torch.autograd.grad(total, z, create_graph=True)
    second = torch.zeros_like(first)
    if first.requires_grad:  # not of a loss that is linear
        (second,) = torch.autograd.grad(first.sum(), z)
    return first.detach(), second.clamp(min=0.0)


def slopes_of(logits: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """Derivatives of the logits of T tasks, [n] each, by the leaves [n, D]: [n, T, D] of each leaf."""
    by_task = [
        torch.autograd.grad(of_task.sum(), leaves, retain_graph=t + 1 < len(logits), materialize_grads=True)
        for t, of_task in enumerate(logits)
    ]
    return [torch.stack(of_leaf, 1) for of_leaf in zip(*by_task, strict=True)]
