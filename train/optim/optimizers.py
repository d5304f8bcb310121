"""The optimizers of a run and their learning rates: a fused one for the tables, AdamW for the rest."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.optim import AdamW
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from coldrank.modules import PersonalizedGate
from coldrank.train.distributed.tables import table_of
from coldrank.train.optim.table_optimizer import RowDecay, replicated
from coldrank.train.sections import Decay, OptimConfig


@dataclass(frozen=True, slots=True)
class OptimizerPart:
    """An optimizer and the rates of its groups at full rate. what: of the tables, the gates, a hook or the
    other dense parameters."""

    what: str
    optimizer: KeyedOptimizer
    rates: tuple[float, ...]

    def set(self, factor: float) -> None:
        """Sets the rates to a share of the full ones."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor


class Optimizers:
    """All optimizers of a sharded model. While `gates_only` is set, everything but POSO's gates stands still.

    Tables that a sharding plan replicates on every rank (data-parallel) have ordinary gradients. They are found by
    themselves among the parameters, and get the tables' optimizer, rates and schedule.
    """

    def __init__(
        self,
        model: DistributedModelParallel,
        config: OptimConfig,
        hooks: Mapping[str, float | None] = MappingProxyType({}),
    ) -> None:
        """hooks: name -> learning rate of its parameters over the dense one, where they have an optimizer of their
        own."""
        self.config, c = config, config.dense
        self.gates_only = False
        loose = dict(in_backward_optimizer_filter(model.named_parameters()))
        tables = {name: p for name, p in loose.items() if table_of(name)}
        dense = {name: p for name, p in loose.items() if name not in tables}
        self.dense = list(dense.values())
        in_gates = {id(p) for m in model.modules() if isinstance(m, PersonalizedGate) for p in m.parameters()}
        gates = {name: p for name, p in dense.items() if id(p) in in_gates}
        scales = {name: scale for name, scale in hooks.items() if scale is not None}
        of_hooks = {h: {n: p for n, p in dense.items() if n.startswith(f"hooks.{h}.")} for h in scales}
        apart = gates.keys() | {name for params in of_hooks.values() for name in params}
        rest = {name: p for name, p in dense.items() if name not in apart}
        self.fused = model.fused_optimizer
        self.parts = [_part("tables", self.fused)]
        for what, params, rate in (
            ("dense", rest, c.lr),
            ("gates", gates, c.lr * c.gate_lr_scale),
            *((f"hook {h}", of_hooks[h], c.lr * scale) for h, scale in scales.items()),
        ):
            if params:
                adamw = partial(AdamW, lr=rate, betas=c.betas, eps=c.eps, weight_decay=c.weight_decay, fused=True)
                self.parts.append(_part(what, KeyedOptimizerWrapper(params, adamw)))
        names = ["tables", *(f"dense{i}" for i in range(len(self.parts) - 1))]
        self.replicated = list(tables.values())
        if tables:
            by_name = {table_of(name): p for name, p in tables.items()}
            self.parts.append(
                _part("tables", KeyedOptimizerWrapper(tables, lambda _: replicated(by_name, config.tables)))
            )
            names.append("tables")  # as if they were sharded: a checkpoint does not tell
        self.all = CombinedOptimizer([(n, part.optimizer) for n, part in zip(names, self.parts, strict=True)])
        self.row_decay = RowDecay(model, config.tables.weight_decay)
        self._begun = False
        for part in self.parts[1:]:
            part.set(0.0)  # this makes the state by a step, which must not decay weights
            part.optimizer.init_state(set())

    @property
    def dense_parameters(self) -> int:
        """Number of parameters outside the tables."""
        return sum(p.numel() for p in self.dense)

    def begin_step(self, step: int, total: int) -> None:
        """Sets the rates and clears the gradients. The fused optimizer takes its rate now: it acts inside backward."""
        c = self.config
        tables, dense = (factor(step, total, *c.schedule(part)) for part in (c.tables, c.dense))
        for part in self.parts:
            stands = self.gates_only and part.what != "gates"
            part.set(0.0 if stands else tables if part.what == "tables" else dense)
        if not self._begun:  # fused Adam counts its steps outside its state: a run that resumes has to tell it
            self.fused.set_optimizer_step(step)
            self._begun = True
        self.fused.step()
        for part in self.parts[1:]:
            part.optimizer.zero_grad()

    def end_step(self) -> None:
        """Applies the dense gradients (the tables were updated during backward), and the decay of the tables' rows."""
        if limit := self.config.dense.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.dense, limit)
        for part in self.parts[1:]:
            part.optimizer.step()
        self.row_decay.step(self._replicated_rates())

    def _replicated_rates(self) -> list[tuple[Tensor, float]]:
        if not self.replicated:
            return []
        return [(p, group["lr"]) for group in self.parts[-1].optimizer.param_groups for p in group["params"]]


def _part(what: str, optimizer: KeyedOptimizer) -> OptimizerPart:
    return OptimizerPart(what, optimizer, tuple(group["lr"] for group in optimizer.param_groups))


def factor(step: int, total: int, warmup: int, decay: Decay) -> float:
    """Share of a full learning rate in force at a step (0-based) of `total`: linear warm-up, then constant, or down to
    a tenth along a line or half a cosine."""
    # Not torch's LambdaLR, which counts its own calls: here the trainer's step, at which a run resumes, says the rate
    # before backward, and gates may train alone. CosineAnnealingLR goes by recursion, with other roundings.
    if step < warmup:
        return (step + 1) / warmup
    if decay == "constant" or total <= warmup:
        return 1.0
    done = (step - warmup) / (total - warmup)
    return 1.0 - 0.9 * (done if decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * done))
