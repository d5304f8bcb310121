"""The served model for servers that put requests together by themselves: every input padded, a request to a row.

B requests, N candidates of each, n of a side (1 or N), M longest list, T tasks.
"""

import math

import torch
from torch import Tensor, nn

from coldrank.serving.inputs import Served
from coldrank.serving.request_check import plain
from coldrank.serving.twin import Twin


class Batched(nn.Module):
    """An input of the request is [B, 1], one of the candidates [B, N]; a list is padded to [B, M], or [B, N, M] of
    candidates, beside its lengths, [B, 1] or [B, N]; what is past a length is not read. Scriptable.

    Every request of a batch has as many candidates: a server puts those together whose shapes are equal. So a wrong
    shape or type is an error; a wrong value is its own request's fault, and the others are answered.
    """

    inputs: list[str]
    floats: list[bool]
    lists: list[bool]
    candidates: list[int]
    like: list[str]
    widths: list[int]
    finite: list[bool]
    low: list[int]
    high: list[int]
    places: list[int]

    def __init__(self, twin: Twin, inputs: tuple[Served, ...]) -> None:
        super().__init__()
        self.twin = twin
        self.tasks = twin.tasks
        self.inputs = [i.name for i in inputs]
        self.floats = [i.dtype == "float" for i in inputs]
        self.lists = [i.is_list for i in inputs]
        self.candidates = [int(i.per == "candidate") for i in inputs]
        firsts = {i.sequence: i.name for i in reversed(inputs) if i.sequence}
        self.like = [firsts.get(i.sequence, i.name) for i in inputs]
        self.widths = [i.width for i in inputs]
        self.finite = [i.finite for i in inputs]
        bounds = [(i.low, i.high) if i.low is not None and i.high is not None else (1, 0) for i in inputs]
        self.low, self.high = [low for low, _ in bounds], [high for _, high in bounds]
        entries = [name for i in inputs for name in ([i.name, f"{i.name}.lengths"] if i.is_list else [i.name])]
        self.places = [entries.index(i.name) + 1 for i in inputs]
        self.nan = math.nan

    def forward(self, padded: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Answers [B, N, T], and status int64 [B, 1]: 0, or which input of signature.json is at fault, counted
        from 1; that request's answers are NaN."""
        typed, requests, candidates = self._typed(padded)
        status = torch.full((requests,), 1 << 40)
        for i, name in enumerate(self.inputs):
            x, there, place = typed[name], torch.ones(1, dtype=torch.bool), self.places[i]
            if self.lists[i]:
                lengths = typed[name + ".lengths"]
                wrong = (lengths < 0) | (lengths > x.shape[-1]) | (lengths != typed[self.like[i] + ".lengths"])
                if self.widths[i] > 0:
                    wrong = wrong | ((lengths != 0) & (lengths != self.widths[i]))
                status = _at(status, wrong, place + 1)
                read = torch.where(wrong, 0, lengths)
                there = torch.arange(x.shape[-1]) < (read.unsqueeze(2) if x.dim() == 3 else read)
            if self.finite[i]:
                status = _at(status, ~torch.isfinite(x) & there, place)
            if self.low[i] <= self.high[i]:
                status = _at(status, ((x < self.low[i]) | (x > self.high[i])) & there, place)
        right = status == 1 << 40
        raw: dict[str, Tensor] = {}
        for i, name in enumerate(self.inputs):
            x = typed[name]
            if self.low[i] <= self.high[i]:
                x = x.clamp(self.low[i], self.high[i])
            if self.lists[i]:
                lengths = torch.where(right.unsqueeze(1), typed[name + ".lengths"], 0).flatten()
                raw[name + ".lengths"] = lengths
                x = x.reshape(lengths.shape[0], x.shape[-1])
                raw[name] = x[torch.arange(x.shape[1]) < lengths.unsqueeze(1)]
            else:
                raw[name] = x.flatten()
        given = self.twin(raw)
        answers = torch.stack([given[task].view(requests, candidates) for task in self.tasks], 2)
        answers = torch.where(right.view(-1, 1, 1), answers, self.nan)
        return answers, torch.where(right, 0, status).unsqueeze(1)

    def _typed(self, padded: dict[str, Tensor]) -> tuple[dict[str, Tensor], int, int]:
        """The inputs as int64 and float32, and B and N. Raises an error that names an input of the wrong shape or
        type."""
        typed: dict[str, Tensor] = {}
        sizes = [-1, -1, -1]  # B, and n of both sides
        of = ["", "", ""]
        for i, name in enumerate(self.inputs):
            side, column = self.candidates[i], name
            if self.lists[i]:
                typed[name] = plain(padded, name, 2 + side, self.floats[i])
                column = name + ".lengths"
            x = plain(padded, column, 2, self.floats[i] and not self.lists[i])
            typed[column] = x
            if side == 0 and x.shape[1] != 1:
                raise ValueError(f"input '{column}' has shape {list(x.shape)}; must have one column, for the user")
            _fit(sizes, of, 0, column, x.shape[0], "requests")
            _fit(sizes, of, 1 + side, column, x.shape[1], "candidates")
            if self.lists[i] and list(typed[name].shape[:-1]) != list(x.shape)[: 1 + side]:
                raise ValueError(
                    f"input '{name}' has shape {list(typed[name].shape)}; '{column}' has shape {list(x.shape)}"
                )
        return typed, max(sizes[0], 0), sizes[2] if sizes[2] >= 0 else 1


def _fit(sizes: list[int], of: list[str], i: int, name: str, size: int, what: str) -> None:
    """Holds a size of an input against that of those before it."""
    if sizes[i] == -1:
        sizes[i] = size
        of[i] = name
    if sizes[i] != size:
        raise ValueError(f"input '{name}' has {size} {what}; must have {sizes[i]} as '{of[i]}'")


def _at(status: Tensor, wrong: Tensor, place: int) -> Tensor:
    """The first place at fault of each request: status [B], wrong [B, ..]."""
    return torch.where(wrong.flatten(1).any(1), status.clamp(max=place), status)
