"""The served model as torch.export takes it: a request of one user, without the checks, which are a script beside it.

C candidates, V values of a list.
"""

import torch
from torch import Tensor, nn
from torch.export import Dim

from coldrank.serving.inputs import Served
from coldrank.serving.pack import Packed
from coldrank.serving.twin import Twin

_TYPES = {"int": torch.int64, "float": torch.float32}


class OneUser(nn.Module):
    """The model without the request check, for what `Ready` gives."""

    def __init__(self, twin: Twin) -> None:
        super().__init__()
        self.core, self.lists, self.counts = twin.core, twin.request_check.pack.lists, twin.request_check.pack.counts

    def forward(self, *ready: Tensor) -> tuple[Tensor, ...]:
        """What each task's head gives, float32 [C]."""
        end = 4 + len(self.lists)
        lists, counts = (
            dict(zip(self.lists, ready[4:end], strict=True)),
            dict(zip(self.counts, ready[end:], strict=True)),
        )
        return self.core(Packed(list(ready[:2]), list(ready[2:4]), lists, counts)).unbind(1)


class Ready(nn.Module):
    """Refuses what `RequestCheck` refuses, and requests of other than one user; gives what the compiled model takes.
    Scriptable."""

    lists: list[str]
    counts: list[str]
    tasks: list[str]

    def __init__(self, twin: Twin) -> None:
        super().__init__()
        self.request_check, self.tasks = twin.request_check, twin.tasks
        self.lists, self.counts = twin.request_check.pack.lists, twin.request_check.pack.counts

    def forward(self, raw: dict[str, Tensor]) -> list[Tensor]:
        """Raises an error that names the input at fault."""
        packed: Packed = self.request_check(raw)
        users = packed.integers[0].shape[1]
        if users != 1:
            raise ValueError(f"the request has {users} users; the compiled model takes one")
        ready: list[Tensor] = packed.integers + packed.numbers
        for name in self.lists:
            ready.append(packed.lists[name])
        for name in self.counts:
            ready.append(packed.counts[name])
        return ready


def example(inputs: tuple[Served, ...], candidates: int = 7) -> dict[str, Tensor]:
    """A request with sizes that all differ, of zeros, which no input refuses."""
    made: dict[str, Tensor] = {}
    for i in inputs:
        rows = candidates if i.per == "candidate" else 1
        if i.is_list:
            length = i.width or 3
            made[i.name] = torch.zeros(length * rows, dtype=_TYPES[i.dtype])
            made[f"{i.name}.lengths"] = torch.full((rows,), length)
        else:
            made[i.name] = torch.zeros(rows, dtype=_TYPES[i.dtype])
    return made


def shapes(twin: Twin) -> tuple[dict[int, Dim], ...]:
    """Which sizes of what `Ready` gives are free: those of a sequence's columns are one."""
    # From 2 on the compiler knows which sizes spread over others; what it makes holds for 1 and 0 as well.
    free = {"min": 2, "max": 2**31 - 1}
    candidates = Dim("candidates", **free)
    values: dict[str, Dim] = {}
    shapes: list[dict[int, Dim]] = [{}, {1: candidates}, {}, {1: candidates}]
    inputs = {i.name: i for i in twin.inputs}
    for i in twin.inputs:
        if i.is_list:
            shapes.append({0: values.setdefault(i.sequence or i.name, Dim(f"values_{i.sequence or i.name}", **free))})
            shapes.append({0: candidates} if i.per == "candidate" else {})
    return *shapes, *(
        {0: candidates} if inputs[name].per == "candidate" else {} for name in twin.request_check.pack.counts
    )
