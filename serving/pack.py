"""A request put together: a few wide tensors in the place of a tensor for every input.

Q requests, C candidates, n rows of a side (Q or C), V values of a list, F inputs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from coldrank.serving.inputs import Served


class Packed(NamedTuple):
    """integers: int64 [F, n], of the request and of the candidates; numbers: float32 [F, n], likewise. lists: `c`,
    int64 or float32 [V], and `c.lengths`, int64 [n], of each list. counts: int64 [n], by input."""

    integers: list[Tensor]
    numbers: list[Tensor]
    lists: dict[str, Tensor]
    counts: dict[str, Tensor]


def count_of(values: Tensor) -> Tensor:
    """A raw count, a number of any type, as int64; what is not finite is missing: 0. Scriptable."""
    exact = values.to(torch.float64)
    return torch.where(torch.isfinite(exact), exact, 0.0).clamp(-9007199254740992.0, 9007199254740992.0).to(torch.int64)


def spread(x: Tensor, rows: int) -> Tensor:
    """Rows of requests [Q, ..] for the candidates [C, ..]; those of a single request are left to spread by
    themselves."""
    return x if x.shape[0] == rows or x.shape[0] == 1 else x.repeat_interleave(rows // max(1, x.shape[0]), 0)


def _plain(x: Tensor, kind: torch.dtype) -> bool:
    """Whether it is a vector of such values, of the CPU, and neither sparse nor nested."""
    # What is None in Python has no device; asked for anything else in the very first request, it breaks the script for
    # good.
    return x.is_cpu and x.dim() == 1 and x.dtype == kind and x.layout == torch.strided and not x.is_nested


class Pack(nn.Module):
    """A request -> `Packed`, if it is right and of int64 and float32 throughout. Scriptable.

    scalars: names of the integers and of the numbers of the request, then of those of the candidates; their order is
    that of the rows. firsts: lists that speak for themselves, and which side they are of; others: further lists of a
    sequence, beside its first. bounded: inputs with their least and largest value. widths: lists that have so many
    values, or none. finite: lists without NaN and infinite numbers.
    """

    scalars: list[list[str]]
    firsts: list[tuple[str, int]]
    others: list[tuple[str, str]]
    bounded: list[tuple[str, int, int]]
    widths: list[tuple[str, int]]
    finite: list[str]
    lists: list[str]
    of_floats: list[bool]
    counts: list[str]

    def __init__(self, inputs: tuple[Served, ...], counts: Sequence[str]) -> None:
        """counts: inputs that are read as counts as well."""
        super().__init__()
        kinds = [(per, dtype) for per in ("request", "candidate") for dtype in ("int", "float")]
        self.scalars = [[i.name for i in inputs if (i.per, i.dtype) == k and not i.is_list] for k in kinds]
        self.firsts, self.others = [], []
        speaks: dict[str, str] = {}
        for i in (i for i in inputs if i.is_list):
            first = speaks.setdefault(i.sequence, i.name) if i.sequence else i.name
            if first == i.name:
                self.firsts.append((i.name, int(i.per == "candidate")))
            else:
                self.others.append((i.name, first))
        self.bounded = [(i.name, i.low, i.high) for i in inputs if i.low is not None and i.high is not None]
        self.widths = [(i.name, i.width) for i in inputs if i.width]
        self.finite = [i.name for i in inputs if i.finite]
        self.lists = [name for i in inputs if i.is_list for name in (i.name, f"{i.name}.lengths")]
        self.of_floats = [part and i.dtype == "float" for i in inputs if i.is_list for part in (True, False)]
        self.counts = list(counts)

    def forward(self, raw: dict[str, Tensor]) -> tuple[bool, Packed]:
        """False, and nothing, for a request that is wrong or of other types: `RequestCheck` says what is wrong."""
        # Without a return amid the loops: a script carries what would be returned through every turn.
        right = True
        sizes = [-1, -1]
        scalars: list[list[Tensor]] = []
        for k, names in enumerate(self.scalars):
            kind, size = torch.float32 if k % 2 == 1 else torch.int64, sizes[k // 2]
            found: list[Tensor] = []
            for name in names:
                if name in raw:
                    found.append(raw[name])
            right = right and len(found) == len(names)
            for x in found:
                right = right and _plain(x, kind)
                if right and size < 0:
                    size = x.size(0)
                right = right and x.size(0) == size
            sizes[k // 2] = size
            scalars.append(found)
        lists: dict[str, Tensor] = {}
        for i, name in enumerate(self.lists):
            kind = torch.float32 if self.of_floats[i] else torch.int64
            right = right and name in raw and _plain(raw[name], kind)
            if right:
                lists[name] = raw[name].detach() if self.of_floats[i] else raw[name]
        if right and self._fit(lists, sizes) and self._within(raw):
            return self._wide(scalars, lists, sizes, {name: count_of(raw[name]) for name in self.counts})
        return False, Packed([], [], {}, {})

    def _wide(
        self, scalars: list[list[Tensor]], lists: dict[str, Tensor], sizes: list[int], counts: dict[str, Tensor]
    ) -> tuple[bool, Packed]:
        requests = sizes[0] if sizes[0] >= 0 else min(sizes[1], 1)
        candidates = sizes[1] if sizes[1] >= 0 else requests
        wide: list[Tensor] = []
        for k, found in enumerate(scalars):
            none = torch.zeros(0, candidates if k > 1 else requests)
            wide.append(
                torch.stack(found).detach() if len(found) > 0 else none.to(torch.float32 if k % 2 else torch.int64)
            )
        right = candidates == 0 or (requests > 0 and candidates % requests == 0)
        return right, Packed([wide[0], wide[2]], [wide[1], wide[3]], lists, counts)

    def _fit(self, lists: dict[str, Tensor], sizes: list[int]) -> bool:
        """Whether the lists fit their lengths, and these the sizes of the sides, where they are known."""
        right = True
        for name, side in self.firsts:
            values, lengths = lists[name].size(0), lists[name + ".lengths"]
            if sizes[side] < 0:
                sizes[side] = lengths.size(0)
            right = right and lengths.size(0) == sizes[side] and int(lengths.sum()) == values
            if lengths.size(0) > 0:
                least, most = torch.aminmax(lengths)
                right = right and int(least) >= 0 and int(most) <= values
        for name, first in self.others:
            right = right and lists[name].size(0) == lists[first].size(0)
            right = right and torch.equal(lists[name + ".lengths"], lists[first + ".lengths"])
        for name, width in self.widths:
            lengths = lists[name + ".lengths"]
            right = right and bool(((lengths == 0) | (lengths == width)).all())
        for name in self.finite:
            right = right and bool(torch.isfinite(lists[name]).all())
        return right

    def _within(self, raw: dict[str, Tensor]) -> bool:
        """Whether the values are within their bounds."""
        right = True
        for name, low, high in self.bounded:
            if raw[name].size(0) > 0:
                least, most = torch.aminmax(raw[name])
                right = right and int(least) >= low and int(most) <= high
        return right
