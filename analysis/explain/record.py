"""What passes through a ranker while it scores a batch, read by hooks on its modules: no equation is written twice.

B rows, T tasks, E experts, G gates.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from coldrank.data.errors import UserError
from coldrank.models.batch import Batch
from coldrank.models.ranker import RankerModule
from coldrank.modules.gate import PersonalizedGate
from coldrank.train.task import RankingTask


@dataclass(slots=True)
class Recording:
    """What passed through the ranker for one batch, on the CPU but for the arguments."""

    layers: dict[str, Tensor] = field(default_factory=dict)
    """Name of a layer -> activations, [B, ..]."""
    gates: dict[str, Tensor] = field(default_factory=dict)
    """Name of a gate's module -> outputs, [B, G]."""
    attention: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Sequence -> arguments of its attention."""
    mixture: tuple[Tensor, ...] = ()
    """Arguments of the mixture of experts."""


def ranker_of(task: RankingTask) -> RankerModule:
    """The ranker. Raises UserError for another model: what is drawn are the ranker's parts."""
    if not isinstance(task.ranker, RankerModule):
        raise UserError(f"explain draws the parts of the ranker; this run has a {type(task.ranker).__name__}")
    return task.ranker


@torch.no_grad()
def record(task: RankingTask, batch: Batch) -> Recording:
    """Scores a batch.

    Its layers, from the input to the output: `attention NAME` of every sequence, `experts I` after layer I, `mixture`
    of the experts per task, `towers I`, `logits`.
    """
    recording = Recording()
    with _hooks(ranker_of(task), recording):
        task(batch)
    return recording


@contextmanager
def _hooks(ranker: RankerModule, recording: Recording) -> Iterator[None]:
    layers = recording.layers
    handles = [module.register_forward_hook(_keep(layers, f"attention {n}")) for n, module in ranker.attention.items()]
    # Dropout is the module that every layer of experts and towers ends with; it does nothing here but pass them on.
    handles += [
        ranker.mmoe.experts.dropout.register_forward_hook(_keep_each(layers, "experts")),
        ranker.mmoe.register_forward_hook(_keep(layers, "mixture")),
        ranker.towers.dropout.register_forward_hook(_keep_each(layers, "towers")),
        ranker.towers.register_forward_hook(_keep(layers, "logits")),
    ]
    for name, module in ranker.named_modules():
        if isinstance(module, PersonalizedGate):
            handles.append(module.register_forward_hook(_keep(recording.gates, name)))

    def keep_arguments(sequence: str) -> Callable[[nn.Module, Any], None]:
        def hook(_: nn.Module, arguments: Any) -> None:
            recording.attention[sequence] = arguments

        return hook

    def keep_mixture(_: nn.Module, arguments: Any) -> None:
        recording.mixture = arguments

    handles += [m.register_forward_pre_hook(keep_arguments(name)) for name, m in ranker.attention.items()]
    handles.append(ranker.mmoe.register_forward_pre_hook(keep_mixture))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keep(into: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
    def hook(_: nn.Module, __: Any, output: Tensor) -> None:
        into[name] = output.cpu()

    return hook


def _keep_each(into: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
    """Numbers the calls."""
    calls = 0

    def hook(_: nn.Module, __: Any, output: Tensor) -> None:
        nonlocal calls
        calls += 1
        into[f"{name} {calls}"] = output.cpu()

    return hook
