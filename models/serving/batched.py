"""The served model for servers that put requests together by themselves: every input padded, a request to a row.

B requests, N candidates of each, M longest list, T tasks.
"""

import torch
from torch import Tensor, nn

from coldrank.models.serving.inputs import Served
from coldrank.models.serving.twin import Twin


class Batched(nn.Module):
    """An input of the request is [B, 1], one of the candidates [B, N]; a list is padded to [B, M], or [B, N, M] of candidates,
    beside its lengths, [B, 1] or [B, N]; what is past a length is not read. Scriptable.

    Every request of a batch has as many candidates: a server puts those together whose shapes are equal.
    """

    scalars: list[str]
    lists: list[str]

    def __init__(self, twin: Twin, inputs: tuple[Served, ...]) -> None:
        super().__init__()
        self.twin = twin
        self.tasks = twin.tasks
        self.scalars = [i.name for i in inputs if not i.is_list]
        self.lists = [i.name for i in inputs if i.is_list]

    def forward(self, padded: dict[str, Tensor]) -> Tensor:
        """Probabilities [B, N, T]."""
        raw: dict[str, Tensor] = {}
        requests, candidates = 0, 0
        for name in self.scalars:
            x = _matrix(padded, name, 2)
            requests, candidates = x.shape[0], max(candidates, x.shape[1])
            raw[name] = x.flatten()
        for name in self.lists:
            lengths = _matrix(padded, name + ".lengths", 2).flatten()
            x = padded.get(name, lengths)
            if x.dim() < 2:
                raise ValueError(f"input '{name}' is missing, or not padded to one length; it has {x.dim()} dimensions")
            x = x.flatten(0, -2)
            if lengths.shape[0] != x.shape[0]:
                raise ValueError(f"input '{name}' has {x.shape[0]} lists; its lengths are {lengths.shape[0]}")
            if lengths.numel() > 0 and (int(lengths.min()) < 0 or int(lengths.max()) > x.shape[1]):
                low, high = int(lengths.min()), int(lengths.max())
                raise ValueError(
                    f"input '{name}.lengths' has {low} to {high}; must be in 0 to {x.shape[1]}, as it is padded"
                )
            raw[name] = x[torch.arange(x.shape[1]) < lengths.unsqueeze(1)]
            raw[name + ".lengths"] = lengths
        given = self.twin(raw)
        return torch.stack([given[task].view(requests, candidates) for task in self.tasks], 2)


def _matrix(padded: dict[str, Tensor], name: str, dims: int) -> Tensor:
    if name not in padded:
        raise ValueError(f"input '{name}' is missing")
    if padded[name].dim() != dims:
        raise ValueError(f"input '{name}' has shape {list(padded[name].shape)}; must have {dims} dimensions")
    return padded[name]
