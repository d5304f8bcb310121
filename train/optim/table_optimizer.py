"""The tables' optimizer: FBGEMM's, fused with the backward pass; its stand-in for tables that every rank holds; weight
decay."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor
from torchrec.distributed.batched_embedding_kernel import BatchedFusedEmbedding, BatchedFusedEmbeddingBag
from torchrec.distributed.embedding import ShardedEmbeddingCollection
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.optim import RowWiseAdagrad

from coldrank.data.errors import UserError
from coldrank.train.sections import TablesConfig

_FUSED = {
    "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "sgd": EmbOptimType.EXACT_SGD,
    "adam": EmbOptimType.ADAM,
}
_Kernel: TypeAlias = BatchedFusedEmbeddingBag | BatchedFusedEmbedding
_UNFUSED: dict[str, type[torch.optim.Optimizer]] = {
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
}


def fused_params(tables: TablesConfig, device: torch.device) -> dict[str, object]:
    """What TorchRec's sharders take for the tables. Raises UserError for an optimizer that the device does not have.

    FBGEMM's own weight decay is left at 0: its CPU kernels take the argument and ignore it. `RowDecay` stands in.
    """
    if device.type == "cpu" and tables.kind == "adam":
        have = ", ".join(name for name in _FUSED if name != "adam")
        raise UserError(f"optim.tables.kind='adam' needs a GPU; on the CPU there are {have}")
    clip = {"gradient_clipping": True, "max_gradient": tables.clip_value} if tables.clip_value else {}
    betas = dict(zip(("beta1", "beta2"), tables.betas, strict=True)) if tables.kind == "adam" else {}
    return {"optimizer": _FUSED[tables.kind], "learning_rate": tables.lr, "eps": tables.eps, **betas, **clip}


def scale_rates(modules: Mapping[str, nn.Module], tables: TablesConfig) -> None:
    """Gives the tables of `lr_scale` their own rate, before sharding. Tables of one rate share a kernel; those of
    another get one of their own, and with it a parameter group. modules: table -> what holds its weight."""
    for name, scale in tables.lr_scale.items():
        if name in modules:  # else a table that this arm does not read
            _set_rate(modules[name], _UNFUSED[tables.kind], tables.lr * scale)


def _set_rate(table: nn.Module, optimizer: type[torch.optim.Optimizer], rate: float) -> None:
    # Imported where it is used: its package compiles optimizers, which takes a quarter of a second.
    from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward as in_backward

    # TorchRec changes the arguments: fresh ones for every table. Nothing runs in this backward, hence no hook.
    in_backward(optimizer, table.parameters(), {"lr": rate}, register_hook=False)


def replicated(tables: dict[str, Tensor], config: TablesConfig) -> torch.optim.Optimizer:
    """The optimizer of data-parallel tables, whose gradients are dense: the fused one's rule, one group per table.

    tables: name -> parameter [rows, dim]. A row without gradient stays, as it does in the fused kernels; for Adam,
    whose moments would move it on, there is no such rule: UserError. Nor is there one for `clip_value`, which looks at
    single reads.
    """
    for field, value in (("kind", config.kind), ("clip_value", config.clip_value)):
        if value not in ("rowwise_adagrad", "adagrad", "sgd", 0):
            raise UserError(f"optim.tables.{field}={value!r}: not for data-parallel tables ({', '.join(tables)})")
    rates = {name: config.lr * config.lr_scale.get(name, 1.0) for name in tables}
    if config.kind == "rowwise_adagrad":
        return _RowWiseAdagrad(tables, rates, config.eps)
    groups = [{"params": [p], "lr": rates[name]} for name, p in tables.items()]
    arguments: dict[str, Any] = {} if config.kind == "sgd" else {"eps": config.eps}
    return _UNFUSED[config.kind](groups, **arguments)


class _RowWiseAdagrad(torch.optim.Optimizer):
    """FBGEMM's row-wise Adagrad for dense gradients, its state under FBGEMM's name: a checkpoint can be loaded whether
    a table is copied or sharded. A row without gradient stays."""

    def __init__(self, tables: dict[str, Tensor], rates: dict[str, float], eps: float) -> None:
        groups = [{"params": [p], "lr": rates[name], "table": name} for name, p in tables.items()]
        super().__init__(groups, {"eps": eps})
        for name, p in tables.items():
            self.state[p][f"{name}.momentum1"] = torch.zeros(p.shape[0], device=p.device)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; there is no closure."""
        for group in self.param_groups:
            (p,) = group["params"]
            if p.grad is not None:
                sums = self.state[p][f"{group['table']}.momentum1"]
                sums += p.grad.square().mean(1)
                p.addcdiv_(p.grad, (sums.sqrt() + group["eps"]).unsqueeze(1), value=-group["lr"])


class RowDecay:
    """Decoupled weight decay of the rows that a step has read: after the step, w <- (1 - rate * decay) w, once for a
    row however often it was read. Rows that no sample reads stay: decaying them would touch whole tables at every step.

    The rate is that of the row's table in this step, warm-up and scale included.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Raises UserError for tables that are cached on the device, whose rows cannot be reached."""
        self.decay = decay
        self.read: list[tuple[_Kernel, KeyedJaggedTensor]] = []
        kinds = ShardedEmbeddingBagCollection | ShardedEmbeddingCollection
        sharded = [m for m in model.modules() if decay and isinstance(m, kinds)]
        # The lookups are no registered children.
        for bag in (m for collection in sharded for lookup in collection._lookups for m in lookup.modules()):
            if isinstance(bag, _Kernel):
                if getattr(bag.emb_module, "lxu_cache_weights", torch.empty(0)).numel():
                    names = ", ".join(t.name for t in bag.config.embedding_tables)
                    raise UserError(f"optim.tables.weight_decay={decay}: not for cached tables ({names}); set it to 0")
                bag.register_forward_pre_hook(self._note)

    def _note(self, bag: _Kernel, args: tuple[KeyedJaggedTensor, ...]) -> None:
        if torch.is_grad_enabled():
            self.read.append((bag, args[0]))

    @torch.no_grad()
    def step(self, replicated: Iterable[tuple[Tensor, float]]) -> None:
        """Decays what was read since the last step. replicated: data-parallel tables, whose gradients tell their rows,
        and their rates."""
        read, self.read = self.read, []
        for bag, features in read:
            keep = 1.0 - bag.emb_module.get_learning_rate() * self.decay
            tables = bag.config.embedding_tables
            by_table = features.split([t.num_features() for t in tables])
            for weights, part in zip(bag.emb_module.split_embedding_weights(), by_table, strict=True):
                _shrink(weights, part.values().unique(), keep)
        for table, rate in replicated:
            if self.decay and table.grad is not None:
                _shrink(table, table.grad.any(1).nonzero().squeeze(1), 1.0 - rate * self.decay)


def _shrink(weights: Tensor, rows: Tensor, factor: float) -> None:
    weights[rows] = weights[rows] * factor
