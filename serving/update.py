"""Changes of a served model's state: how one state is told from another, and what a delta holds.

A delta is name -> tensor: for every tensor of the state that changed, `rows:NAME` int64 [K] and `values:NAME` [K, ..];
`from` and `to`, the versions of the models between which it leads; and `sum`, its own digest.
"""

import torch
from torch import Tensor

from coldrank.models.ids.mixing import mix64

State = dict[str, Tensor]


def digest(tensors: dict[str, Tensor], leave_out: str) -> Tensor:
    """int64 []: tells contents apart, by the value of every element and its place. Scriptable."""
    total = torch.zeros((), dtype=torch.int64)
    names = list(tensors.keys())
    names.sort()
    if leave_out in names:
        names.remove(leave_out)
    for i, name in enumerate(names):
        data = tensors[name].reshape(-1)
        size = 1 << 22  # elements at a time
        for start in range(0, data.shape[0], size):
            numbers = _whole(data[start : start + size])
            # Each is mixed with its place, so that exchanged or missing ones show.
            place = torch.arange(numbers.shape[0]) + (start + (i << 40))
            total = total + mix64(numbers ^ mix64(place)).sum() + numbers.shape[0]
    return mix64(total)


def _whole(values: Tensor) -> Tensor:
    """Numbers of any type -> int64, different ones to different ones. A script cannot read the bits of a float: its
    mantissa and exponent stand for them."""
    if not values.is_floating_point():
        return values.to(torch.int64)
    mantissa, exponent = torch.frexp(values.to(torch.float64))
    return mix64((mantissa * 9007199254740992.0).to(torch.int64)) + exponent  # 2 ** 53


def rows_of(tensor: Tensor) -> Tensor:
    """A tensor as rows, sharing its memory: [R, ..]; a number is one row. Scriptable."""
    return tensor.view(1) if tensor.dim() == 0 else tensor


def version_of(state: State, structure: str) -> Tensor:
    """int64 []: tells models apart by all that their answers depend on: their state, and `structure`, a digest in
    hexadecimal of the rest."""
    rest = torch.tensor([int(structure[i : i + 8], 16) for i in range(0, len(structure), 8)])
    return digest({"rest": rest, "state": digest(state, "")}, "")


def delta(before: State, version: Tensor, after: State, new_version: Tensor) -> State:
    """What leads from one state to another of the same names, types and shapes. version, new_version: of the models,
    int64 []."""
    changed: State = {}
    for name, new in after.items():
        old, new = rows_of(before[name]), rows_of(new)
        differs = _differ(old, new) if old.dim() == 1 else _differ(old, new).flatten(1).any(1)
        rows = differs.nonzero().squeeze(1)
        if len(rows):
            changed[f"rows:{name}"], changed[f"values:{name}"] = rows, new[rows]
    changed["from"], changed["to"] = version.clone(), new_version.clone()
    changed["sum"] = digest(changed, "sum")
    return changed


def _differ(old: Tensor, new: Tensor) -> Tensor:
    """Which elements have other bits: -0.0 is another than 0.0, and NaN the same as itself."""
    if not old.is_floating_point():
        return old != new
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[old.element_size()]
    return old.contiguous().view(whole) != new.contiguous().view(whole)


def check(state: dict[str, Tensor], version: Tensor, delta: dict[str, Tensor]) -> None:
    """Refuses a delta that is not whole, or not from this state, before anything is changed. Scriptable."""
    for name in ["from", "to", "sum"]:
        if name not in delta or delta[name].dtype != torch.int64 or delta[name].dim() != 0:
            raise ValueError(f"delta: '{name}' is missing; this is no delta, or half of one")
    if int(digest(delta, "sum")) != int(delta["sum"]):
        raise ValueError("delta: its contents differ from what was written; fetch it again")
    if int(delta["from"]) != int(version):
        raise ValueError(f"delta: is for the model of version {int(delta['from'])}; this one has {int(version)}")
    for name, rows in delta.items():
        if name.startswith("rows:"):
            name = name[5:]
            if name not in state or "values:" + name not in delta:
                raise ValueError(f"delta: tensor '{name}' is not of this model")
            old, new = rows_of(state[name]), delta["values:" + name]
            if old.dtype != new.dtype or old.shape[1:] != new.shape[1:] or new.shape[0] != rows.shape[0]:
                raise ValueError(f"delta: tensor '{name}' has another shape or type than this model's")
            if rows.numel() > 0 and (int(rows.min()) < 0 or int(rows.max()) >= old.shape[0]):
                raise ValueError(
                    f"delta: tensor '{name}' has rows to {int(rows.max())}; this model's has {old.shape[0]}"
                )


def apply(state: dict[str, Tensor], delta: dict[str, Tensor]) -> None:
    """Writes a checked delta into the state, in place. Scriptable."""
    for name, rows in delta.items():
        if name.startswith("rows:"):
            rows_of(state[name[5:]]).index_copy_(0, rows, delta["values:" + name[5:]])
