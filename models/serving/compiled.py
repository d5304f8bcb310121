"""The served model as torch.export takes it: a request of one user, without the checks, which are a script beside it.

C candidates, V values of a list.
"""

import torch
from torch import Tensor, nn
from torch.export import Dim

from coldrank.models.serving.inputs import Door, Served
from coldrank.models.serving.twin import Twin

_TYPES = {"int": torch.int64, "float": torch.float32}


class OneUser(nn.Module):
    """The model behind the door, for inputs as `Ready` gives them."""

    def __init__(self, twin: Twin) -> None:
        super().__init__()
        self.core, self.tasks = twin.core, twin.tasks
        # An input whose size is C; none: every candidate is the same, and there is one.
        names = [f"{i.name}.lengths" if i.is_list else i.name for i in twin.inputs if i.per == "candidate"]
        self.candidate = names[0] if names else ""

    def forward(self, ready: dict[str, Tensor]) -> dict[str, Tensor]:
        """Inputs of one user and C candidates -> task: probabilities float32 [C]."""
        candidates = ready[self.candidate].shape[0] if self.candidate else 1
        return dict(zip(self.tasks, self.core(ready, 1, candidates).unbind(1), strict=True))


class Ready(nn.Module):
    """Refuses what `Door` refuses, and requests of other than one user; gives the inputs that the compiled model takes, in its order
    and types. Scriptable."""

    names: list[str]
    floats: list[bool]

    def __init__(self, inputs: tuple[Served, ...]) -> None:
        super().__init__()
        self.door = Door(inputs)
        columns = [(n, i.dtype == "float" and n == i.name) for i in inputs for n in _columns(i)]
        self.names = [name for name, _ in columns]
        self.floats = [floating for _, floating in columns]

    def forward(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Raises an error that names the input at fault."""
        users = self.door(raw)[0]
        if users != 1:
            raise ValueError(f"the request has {users} users; the compiled model takes one")
        ready: dict[str, Tensor] = {}
        for i, name in enumerate(self.names):
            ready[name] = raw[name].to(torch.float32 if self.floats[i] else torch.int64)
        return ready


def example(inputs: tuple[Served, ...], candidates: int = 7) -> dict[str, Tensor]:
    """A request with sizes that all differ, in the order and types of `Ready`."""
    made: dict[str, Tensor] = {}
    for i in inputs:
        rows = candidates if i.per == "candidate" else 1
        low = i.low or 0
        if i.is_list:
            made[i.name] = torch.full((3 * rows,), low, dtype=torch.int64)
            made[f"{i.name}.lengths"] = torch.full((rows,), 3)
        else:
            made[i.name] = torch.full((rows,), low, dtype=_TYPES[i.dtype])
    return made


def shapes(inputs: tuple[Served, ...]) -> dict[str, dict[int, Dim]]:
    """Which sizes of a request are free: those of a sequence's columns are one."""
    found: dict[str, dict[int, Dim]] = {}
    # From 2 on the compiler knows which sizes spread over others; what it makes holds for 1 and 0 as well.
    free = {"min": 2, "max": 2**31 - 1}
    candidates = Dim("candidates", **free)
    values: dict[str, Dim] = {}
    for i in inputs:
        rows = {0: candidates} if i.per == "candidate" else {}
        if i.is_list:
            found[i.name] = {0: values.setdefault(i.sequence or i.name, Dim(f"values_{i.sequence or i.name}", **free))}
            found[f"{i.name}.lengths"] = rows
        else:
            found[i.name] = rows
    return found


def _columns(i: Served) -> list[str]:
    return [i.name, f"{i.name}.lengths"] if i.is_list else [i.name]
