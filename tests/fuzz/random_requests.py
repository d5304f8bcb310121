"""Random requests, right and wrong, and what they say when read as docs/serving.md says, in plain Python."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coldrank.serving.inputs import Served

Request = dict[str, Any]
INTEGERS = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64}
WIDE = {torch.uint16, torch.uint32, torch.uint64}
REALS = {torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool}
NARROW = (INTEGERS | REALS) - WIDE - {torch.bool}


@dataclass
class Reading:
    """What a request says."""

    faults: set[str] = field(default_factory=set)
    """Inputs, one of which a refusal has to name; empty: the request is right."""
    users: int = 0
    """Number of users."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """For each candidate its plain values, as training has them."""


def read(request: Request, inputs: tuple[Served, ...]) -> Reading:
    """Reads a request."""
    result = Reading()
    values: dict[str, list[Any]] = {}
    for i in inputs:
        for name in (i.name, f"{i.name}.lengths") if i.is_list else (i.name,):
            vector = _vector(request.get(name), real=i.dtype == "float" and name == i.name)
            if vector is None:
                result.faults.add(name)
            else:
                values[name] = vector
    if result.faults:
        return result
    sizes: dict[str, dict[str, int]] = {"request": {}, "candidate": {}}
    for i in inputs:
        name = f"{i.name}.lengths" if i.is_list else i.name
        sizes[i.per][name] = len(values[name])
        if i.is_list:
            _check_list(i, inputs, values, result)
        if i.low is not None and i.high is not None and any(not i.low <= v <= i.high for v in values[i.name]):
            result.faults.add(i.name)
    for side in sizes.values():
        if len(set(side.values())) > 1:
            result.faults |= set(side)
    if result.faults:
        return result
    users, candidates = (next(iter(side.values())) for side in sizes.values())
    result.users = users
    if candidates and (users == 0 or candidates % users):
        result.faults = set(sizes["candidate"]) | set(sizes["request"])
        return result
    result.rows = [_row(c * users // candidates, c, inputs, values) for c in range(candidates)]
    return result


def _vector(x: Any, real: bool) -> list[Any] | None:
    """The values of a plain vector of the right type; None of another."""
    if (
        not isinstance(x, Tensor)
        or x.device.type != "cpu"
        or x.layout != torch.strided
        or x.is_nested
        or x.is_quantized
    ):
        return None
    if x.dim() != 1 or x.dtype not in (INTEGERS | REALS if real else INTEGERS):
        return None
    vector = x.detach().tolist()
    if not real:
        return None if any(v >= 2**63 for v in vector) else vector
    with np.errstate(over="ignore"):
        return [v if math.isfinite(v) else math.nan for v in np.array(vector, dtype=np.float32).tolist()]


def _check_list(i: Served, inputs: tuple[Served, ...], values: dict[str, list[Any]], result: Reading) -> None:
    lengths, n = values[f"{i.name}.lengths"], len(values[i.name])
    if any(not 0 <= length <= n for length in lengths) or sum(lengths) != n:
        result.faults |= {i.name, f"{i.name}.lengths"}
    alike = [o for o in inputs if o.is_list and o.sequence and o.sequence == i.sequence]
    if any(values[f"{o.name}.lengths"] != lengths for o in alike):
        result.faults |= {f"{o.name}.lengths" for o in alike}


def _row(user: int, candidate: int, inputs: tuple[Served, ...], values: dict[str, list[Any]]) -> dict[str, Any]:
    row = {}
    for i in inputs:
        place = candidate if i.per == "candidate" else user
        if i.is_list:
            lengths = values[f"{i.name}.lengths"]
            start = sum(lengths[:place])
            entries = values[i.name][start : start + lengths[place]]
            row[i.name] = entries[: i.length] if i.length else entries
        else:
            row[i.name] = values[i.name][place]
    return row


def right(rng: np.random.Generator, inputs: tuple[Served, ...], counts: tuple[int, int] | None = None) -> Request:
    """A request as the signature says: mostly of one user, sometimes with no candidates.

    counts: users, and candidates of each; None: drawn.
    """
    users, each = counts or (int(rng.choice([1, 1, 1, 1, 2, 3])), int(rng.integers(0, 5)))
    sizes = {"request": users, "candidate": users * each}
    lengths: dict[str, Tensor] = {}
    request: Request = {}
    for i in inputs:
        n = sizes[i.per]
        low, high = (i.low, i.high) if i.low is not None and i.high is not None else (0, 60)
        if i.is_list:
            lists = lengths.setdefault(i.sequence or i.name, torch.from_numpy(rng.integers(0, 10, n)))
            request[f"{i.name}.lengths"] = lists.clone()
            n = int(lists.sum())
        if i.dtype == "int":
            request[i.name] = torch.from_numpy(rng.integers(low, high + 1, n))
        else:
            request[i.name] = torch.from_numpy((rng.random(n) * rng.choice([1, 30, 200])).astype(np.float32))
    return request


def _whole(value: int) -> Callable[[Tensor, np.random.Generator], Any]:
    return lambda t, _: torch.full(t.shape, value, dtype=torch.int64) if not t.is_floating_point() else t


CHANGES: dict[str, Callable[[Tensor, np.random.Generator], Any]] = {
    "cut": lambda t, rng: t[: rng.integers(0, len(t) + 1)],
    "repeated": lambda t, rng: t.repeat(int(rng.integers(2, 4))),
    "empty": lambda t, _: t[:0],
    "column": lambda t, _: t.unsqueeze(1),
    "row": lambda t, _: t.unsqueeze(0),
    "0-d": lambda t, _: t.sum(),
    "less by one": lambda t, _: t - 1,
    "one is more": lambda t, rng: t + (torch.arange(len(t)) == rng.integers(0, len(t) + 1)).to(t.dtype),
    "reversed": lambda t, _: t.flip(0),
    "largest": _whole(2**63 - 1),
    "smallest": _whole(-(2**63)),
    "any id": lambda t, rng: t if t.is_floating_point() else torch.from_numpy(rng.integers(-(2**62), 2**62, len(t))),
    "not finite": lambda t, rng: torch.full(t.shape, float(rng.choice([math.nan, math.inf, -math.inf]))),
    "large": lambda t, rng: torch.full(t.shape, float(rng.choice([1e300, -1e300, 1e38, 5e-324])), dtype=torch.float64),
    "complex": lambda t, _: t + 0j,
    "bool": lambda t, _: t > 0,
    "not contiguous": lambda t, _: torch.stack([t, t], 1)[:, 0],
    "one value": lambda t, _: t[:1].expand(t.shape) if len(t) else t,
    "with a gradient": lambda t, _: t.clone().requires_grad_() if t.is_floating_point() else t,
    **{str(k): lambda t, _, k=k: t.clamp(0, 100).to(k) for k in sorted(NARROW, key=str)},
}
# What torch.save writes and LibTorch does not read.
ODD: dict[str, Callable[[Tensor, np.random.Generator], Any]] = {
    "beyond int64": lambda t, _: torch.full(t.shape, 2**64 - 1, dtype=torch.uint64),
    "float8": lambda t, _: t.to(torch.float8_e4m3fn),
    "sparse": lambda t, _: t.to_sparse(),
    "oneDNN": lambda t, _: t.float().to_mkldnn() if len(t) else t,
    "meta": lambda t, _: t.to("meta"),
    "nested": lambda t, _: torch.nested.nested_tensor([x.float() for x in t]),
    "jagged": lambda t, _: torch.nested.nested_tensor([t, t], layout=torch.jagged),
    "quantized": lambda t, _: torch.quantize_per_tensor(t.float().clamp(0, 100), 1.0, 0, torch.quint8),
    "None": lambda t, _: None,
    **{str(k): lambda t, _, k=k: t.clamp(0, 100).to(k) for k in sorted(WIDE, key=str)},
}


def _is_simple(x: Any) -> bool:
    """Whether it is as the signature says, by its type, so that every change can be made to it."""
    plain = isinstance(x, Tensor) and x.layout == torch.strided and x.device.type == "cpu" and not x.is_nested
    return plain and x.dim() == 1 and x.dtype in (torch.int64, torch.float32)


def changed(request: Request, rng: np.random.Generator, odd: bool) -> Request:
    """A request with none to three changes, as a broken caller would send it."""
    sent = dict(request)
    for _ in range(rng.integers(0, 4)):
        name = str(rng.choice(list(request)))
        kind = rng.integers(0, 20)
        if kind == 0:
            sent.pop(name, None)
        elif kind == 1:
            sent["session"] = torch.zeros(2, 2)
        elif _is_simple(sent.get(name)):
            choice = CHANGES | ODD if odd else CHANGES
            sent[name] = choice[str(rng.choice(list(choice)))](sent[name], rng)
    return sent


def padded(requests: list[Request], inputs: tuple[Served, ...]) -> dict[str, Tensor]:
    """Right requests of one user and equally many candidates, as a server batches them; what is past a list is -9."""
    sent: dict[str, Tensor] = {}
    for i in inputs:
        if not i.is_list:
            sent[i.name] = torch.stack([r[i.name] for r in requests])
            continue
        lengths = torch.stack([r[f"{i.name}.lengths"] for r in requests])
        whole = torch.full((*lengths.shape, 12), -9)
        for row, r in zip(whole, requests, strict=True):
            for cells, entries in zip(row, r[i.name].split(r[f"{i.name}.lengths"].tolist()), strict=True):
                cells[: len(entries)] = entries
        sent[i.name] = whole if i.per == "candidate" else whole.squeeze(1)
        sent[f"{i.name}.lengths"] = lengths
    return sent


def disturbed(sent: dict[str, Tensor], rng: np.random.Generator) -> None:
    """Sets single values, of some requests, to what may be wrong."""
    for _ in range(rng.integers(0, 60)):
        x = sent[str(rng.choice(list(sent)))]
        if x.numel() and x.is_floating_point():
            x.view(-1)[rng.integers(x.numel())] = float(rng.choice([math.nan, math.inf, -math.inf, 1e38, -5.0]))
        elif x.numel():
            x.view(-1)[rng.integers(x.numel())] = int(rng.choice([-1, 0, 1, 2, 12, 13, 64, 2**62, -(2**63)]))


def read_padded(row: dict[str, Tensor], inputs: tuple[Served, ...]) -> Reading:
    """Reads a request of a padded batch."""
    request: Request = {}
    wrong = set()
    for i in inputs:
        request[i.name] = row[i.name]
        if not i.is_list:
            continue
        name, values = f"{i.name}.lengths", row[i.name].reshape(-1, row[i.name].shape[-1]).tolist()
        lengths = row[name].tolist()
        if any(not 0 <= n <= 12 for n in lengths):
            wrong |= {
                o.name + ".lengths"
                for o in inputs
                if o.is_list and (o is i or (o.sequence and o.sequence == i.sequence))
            }
            lengths = [min(max(n, 0), 12) for n in lengths]
        entries = [v for one, n in zip(values, lengths, strict=True) for v in one[:n]]
        request |= {i.name: torch.tensor(entries, dtype=torch.int64), name: torch.tensor(lengths, dtype=torch.int64)}
    reading = read(request, inputs)
    reading.faults |= wrong
    if reading.faults:
        reading.rows = []
    return reading
