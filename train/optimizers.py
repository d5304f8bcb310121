"""The optimizers of a run and their learning rates: fused row-wise Adagrad for the tables, Adam for the rest."""

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from coldrank.modules import PersonalizedGate
from coldrank.train.config import OptimConfig


class Optimizers:
    """All optimizers of a sharded model, with one schedule. While `gates_only` is set, everything but POSO's gates stands still."""

    def __init__(self, model: DistributedModelParallel, config: OptimConfig) -> None:
        self.config = config
        dense = dict(in_backward_optimizer_filter(model.named_parameters()))
        self.dense_parameters = sum(p.numel() for p in dense.values())
        in_gates = {id(p) for m in model.modules() if isinstance(m, PersonalizedGate) for p in m.parameters()}
        gates = {name: p for name, p in dense.items() if id(p) in in_gates}
        rest = {name: p for name, p in dense.items() if name not in gates}
        self.gates_only = False
        self.parts: list[tuple[float, KeyedOptimizerWrapper]] = []
        for params, rate in ((rest, config.dense_lr), (gates, config.dense_lr * config.gate_lr_scale)):
            if params:
                make = lambda p, rate=rate: torch.optim.Adam(p, lr=rate, weight_decay=config.weight_decay)
                self.parts.append((rate, KeyedOptimizerWrapper(params, make)))
        self.gates = self.parts[-1][1] if gates else None
        self.fused = model.fused_optimizer
        self.all = CombinedOptimizer(
            [("tables", self.fused), *((f"dense{i}", o) for i, (_, o) in enumerate(self.parts))]
        )
        for _, optimizer in self.parts:
            optimizer.init_state(set())

    def factor(self, step: int, total: int) -> float:
        """Share of the learning rates in force at a step (0-based): linear warm-up, then constant or linear to a tenth."""
        c = self.config
        if step < c.warmup_steps:
            return (step + 1) / c.warmup_steps
        if c.decay == "constant" or total <= c.warmup_steps:
            return 1.0
        return 1.0 - 0.9 * (step - c.warmup_steps) / (total - c.warmup_steps)

    def begin_step(self, step: int, total: int) -> None:
        """Sets the rates and clears the gradients. The fused optimizer takes its rate now: it acts inside backward."""
        factor = self.factor(step, total)
        for group in self.fused.param_groups:
            group["lr"] = 0.0 if self.gates_only else self.config.sparse_lr * factor
        self.fused.step()
        for rate, optimizer in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = 0.0 if self.gates_only and optimizer is not self.gates else rate * factor
            optimizer.zero_grad()

    def end_step(self) -> None:
        """Applies the dense gradients (the tables were updated during backward)."""
        for _, optimizer in self.parts:
            optimizer.step()
