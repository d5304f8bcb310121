"""The check of a request."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coldrank.serving.inputs import Served
from coldrank.serving.pack import Pack, Packed


def plain(raw: dict[str, Tensor], name: str, dims: int, floating: bool) -> Tensor:
    """An input as int64, or float32 if it is `floating`: any integers, or any real numbers and bool. Refuses what is
    missing, no plain tensor of the CPU, or of other than so many dimensions. Scriptable."""
    if name not in raw:
        raise ValueError(f"input '{name}' is missing")
    x = raw[name]
    if not x.is_cpu or x.is_meta:
        raise ValueError(f"input '{name}' is no tensor of the CPU")
    if x.layout != torch.strided or x.is_nested or x.is_quantized:
        raise ValueError(f"input '{name}' is sparse, nested or quantized; must be a plain tensor")
    if x.dim() != dims:
        must = "one dimension" if dims == 1 else f"{dims} dimensions"
        raise ValueError(f"input '{name}' has shape {list(x.shape)}; must have {must}")
    whole = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
    real = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool]
    if not (x.dtype in whole or (floating and x.dtype in real)):
        what = "real numbers" if floating else "integers"
        raise ValueError(f"input '{name}' has values of another type; must be {what}")
    if floating:
        return x.to(torch.float32)
    typed = x.to(torch.int64)
    if x.dtype == torch.uint64 and typed.numel() > 0 and int(typed.min()) < 0:
        raise ValueError(f"input '{name}' has values from 2 ** 63 on; must be less")
    return typed


class RequestCheck(nn.Module):
    """Takes a request, and refuses one that is not as the signature says, in a line that names the input. Scriptable.

    pack: takes nearly all requests; the rest is looked at input by input.
    """

    names: list[str]
    floats: list[bool]
    candidates: list[bool]
    lists: list[str]
    list_candidates: list[bool]
    list_floats: list[bool]
    like: list[str]
    widths: list[tuple[str, int]]
    finite: list[str]
    bounded: list[str]
    low: list[int]
    high: list[int]

    def __init__(self, inputs: tuple[Served, ...], counts: Sequence[str]) -> None:
        """counts: inputs that are read as counts as well."""
        super().__init__()
        self.pack = Pack(inputs, counts)
        scalars = [i for i in inputs if not i.is_list]
        lists = [i for i in inputs if i.is_list]
        # A sequence's first column speaks for the lengths of all.
        firsts = {i.sequence: i.name for i in reversed(lists) if i.sequence}
        self.names = [i.name for i in scalars]
        self.floats = [i.dtype == "float" for i in scalars]
        self.candidates = [i.per == "candidate" for i in scalars]
        self.lists = [i.name for i in lists]
        self.list_candidates = [i.per == "candidate" for i in lists]
        self.list_floats = [i.dtype == "float" for i in lists]
        self.widths, self.finite = self.pack.widths, self.pack.finite
        self.like = [firsts.get(i.sequence, i.name) for i in lists]
        bounded = [i for i in inputs if i.low is not None and i.high is not None]
        self.bounded = [i.name for i in bounded]
        self.low = [i.low or 0 for i in bounded]
        self.high = [i.high or 0 for i in bounded]

    def forward(self, raw: dict[str, Tensor]) -> Packed:
        """Raises an error that names the input at fault."""
        right, packed = self.pack(raw)
        if not right:
            typed = self._of_types(raw)
            self._values(typed)
            right, packed = self.pack(typed)
            if not right:
                raise ValueError("the request cannot be put together")
        return packed

    def _of_types(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inputs as int64 and float32; refuses what is missing, of another kind or another number of dimensions."""
        typed: dict[str, Tensor] = {}
        for i, name in enumerate(self.names):
            typed[name] = plain(raw, name, 1, self.floats[i])
        for i, name in enumerate(self.lists):
            typed[name] = plain(raw, name, 1, self.list_floats[i])
            typed[name + ".lengths"] = plain(raw, name + ".lengths", 1, False)
        return typed

    def _values(self, raw: dict[str, Tensor]) -> None:
        sizes = [-1, -1]
        of = ["", ""]
        for i, name in enumerate(self.names):
            self._fit(sizes, of, name, raw[name].shape[0], self.candidates[i])
        for i, name in enumerate(self.lists):
            lengths = raw[name + ".lengths"]
            self._fit(sizes, of, name + ".lengths", lengths.shape[0], self.list_candidates[i])
            self._list(raw, name, lengths, self.like[i])
        for name, width in self.widths:
            lengths = raw[name + ".lengths"]
            wrong = lengths[(lengths != 0) & (lengths != width)]
            if wrong.numel() > 0:
                raise ValueError(f"input '{name}' has a vector of {int(wrong[0])} numbers; must have {width}, or none")
        for name in self.finite:
            if not bool(torch.isfinite(raw[name]).all()):
                raise ValueError(f"input '{name}' has a number that is NaN or infinite; leave the list empty instead")
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
                f"input '{of[1]}' has {candidates} values, one per candidate; must be a multiple of the "
                f"{requests} of input "
                f"'{of[0]}', one per request"
            )

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
