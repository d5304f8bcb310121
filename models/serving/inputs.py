"""What a request holds, and the check of it at the door.

A request ranks C candidates for Q users (nearly always one): an input of the request has Q values, one of the candidates C, those
of the first user first; C is a multiple of Q. With Q = C every candidate has a user of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from coldrank.models.features import FeatureSet

Per = Literal["request", "candidate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """An input of the served model. A list `c` comes as `c`, the values of all rows end to end, and `c.lengths`.

    dtype: int (any integer type) or float (any real type). per: whether there is a value for every request or every candidate.
    default: what to send for an id that is missing (a missing number is NaN). low, high: values outside are an error.
    length: the longest list that is read (0: any); what follows is left out. sequence: its columns have equal lengths.
    """

    name: str
    dtype: Literal["int", "float"]
    per: Per
    is_list: bool = False
    default: int | None = None
    low: int | None = None
    high: int | None = None
    length: int = 0
    sequence: str = ""


def served_inputs(features: FeatureSet, candidate: Iterable[str], counts: Iterable[str] = ()) -> tuple[Served, ...]:
    """The inputs of the features, and counts that no feature reads. candidate: the raw columns that differ between the candidates
    of a request; none of a sequence."""
    columns = set(candidate)
    sequences = {c: f for f in features.features if f.role == "sequence" for c in f.raw_columns}
    read = tuple(
        Served(
            name=i.name,
            dtype=i.dtype,
            per="candidate" if i.name in columns else "request",
            is_list=i.is_list,
            default=i.default,
            low=i.low,
            high=i.high,
            length=sequences[i.name].length if i.name in sequences else 0,
            sequence=sequences[i.name].sequence if i.name in sequences else "",
        )
        for i in features.inputs
    )
    more = [name for name in counts if name not in {i.name for i in read}]
    return (
        *read,
        *(Served(name=n, dtype="int", per="candidate" if n in columns else "request", default=0) for n in more),
    )


class Door(nn.Module):
    """Refuses a request that is not as the signature says, in a line that names the input. Scriptable."""

    names: list[str]
    floats: list[bool]
    candidates: list[bool]
    lists: list[str]
    list_candidates: list[bool]
    like: list[str]
    bounded: list[str]
    low: list[int]
    high: list[int]

    def __init__(self, inputs: tuple[Served, ...]) -> None:
        super().__init__()
        scalars = [i for i in inputs if not i.is_list]
        lists = [i for i in inputs if i.is_list]
        # A sequence's first column speaks for the lengths of all.
        firsts = {i.sequence: i.name for i in reversed(lists) if i.sequence}
        self.names = [i.name for i in scalars]
        self.floats = [i.dtype == "float" for i in scalars]
        self.candidates = [i.per == "candidate" for i in scalars]
        self.lists = [i.name for i in lists]
        self.list_candidates = [i.per == "candidate" for i in lists]
        self.like = [firsts.get(i.sequence, i.name) for i in lists]
        bounded = [i for i in inputs if i.low is not None and i.high is not None]
        self.bounded = [i.name for i in bounded]
        self.low = [i.low or 0 for i in bounded]
        self.high = [i.high or 0 for i in bounded]

    def forward(self, raw: dict[str, Tensor]) -> tuple[int, int]:
        """Checks everything and returns Q and C."""
        sizes = [-1, -1]
        of = ["", ""]
        for i, name in enumerate(self.names):
            x = self._vector(raw, name, self.floats[i])
            self._fit(sizes, of, name, x.shape[0], self.candidates[i])
        for i, name in enumerate(self.lists):
            self._vector(raw, name, False)
            lengths = self._vector(raw, name + ".lengths", False)
            self._fit(sizes, of, name + ".lengths", lengths.shape[0], self.list_candidates[i])
            self._list(raw, name, lengths, self.like[i])
        for i, name in enumerate(self.bounded):
            low, high = self.low[i], self.high[i]
            x = raw[name]
            if x.numel() > 0 and bool(((x < low) | (x > high)).any()):
                raise ValueError(f"input '{name}' has {int(x.min())} to {int(x.max())}; must be in {low} to {high}")
        requests, candidates = sizes[0], sizes[1]
        if requests < 0:
            requests = min(candidates, 1)
        if candidates < 0:
            candidates = requests
        if candidates > 0 and (requests == 0 or candidates % requests != 0):
            raise ValueError(
                f"input '{of[1]}' has {candidates} values, one per candidate; must be a multiple of the {requests} of input "
                f"'{of[0]}', one per request"
            )
        return requests, candidates

    def _vector(self, raw: dict[str, Tensor], name: str, floating: bool) -> Tensor:
        if name not in raw:
            raise ValueError(f"input '{name}' is missing")
        x = raw[name]
        if x.dim() != 1:
            raise ValueError(f"input '{name}' has shape {list(x.shape)}; must have one dimension")
        if x.is_complex() or (not floating and (x.is_floating_point() or x.dtype == torch.bool)):
            what = "real numbers" if floating else "integers"
            raise ValueError(f"input '{name}' has values of another type; must be {what}")
        return x

    def _fit(self, sizes: list[int], of: list[str], name: str, size: int, candidate: bool) -> None:
        """Holds the number of an input's values against those before it, of the same side."""
        side = int(candidate)
        if sizes[side] == -1:
            sizes[side] = size
            of[side] = name
        if sizes[side] != size:
            what = "candidate" if candidate else "request"
            raise ValueError(
                f"input '{name}' has {size} values; must have {sizes[side]} as '{of[side]}', one per {what}"
            )

    def _list(self, raw: dict[str, Tensor], name: str, lengths: Tensor, like: str) -> None:
        """Holds a list's values against its lengths, and these against those of the sequence."""
        if like != name and not torch.equal(lengths, raw[like + ".lengths"]):
            raise ValueError(
                f"input '{name}.lengths' differs from '{like}.lengths'; a sequence's lists are equally long"
            )
        values = raw[name].shape[0]
        if like == name and lengths.numel() > 0 and (int(lengths.min()) < 0 or int(lengths.max()) > values):
            low, high = int(lengths.min()), int(lengths.max())
            raise ValueError(
                f"input '{name}.lengths' has {low} to {high}; must be in 0 to {values}, the values of '{name}'"
            )
        if int(lengths.sum()) != values:
            raise ValueError(f"input '{name}' has {values} values; its lengths say {int(lengths.sum())}")
