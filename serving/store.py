"""Rows of the tables -> the embeddings of a side, in one read for all features.

Q requests, C candidates, n rows of a side (Q or C), V values of a list, L sequence length, D width, H hashes, P pieces,
g width of a piece.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coldrank.serving.tables import Place, StoredRows


class Store(nn.Module):
    """The tables with H reads for an id, and the features that are read from them. Scriptable.

    picks: per side, for each of the H reads and each piece of the features the place of its row among all that were
    found; those of codes last. factors, offsets: per side, of each piece: it is row * factor + offset. cuts: per side,
    how many columns are of no codes. many: per side, lists whose mean is taken. sequences: lists that are read by
    position.
    """

    picks: list[Tensor]
    factors: list[Tensor]
    offsets: list[Tensor]
    cuts: list[int]
    many: list[list[str]]
    sequences: list[str]
    list_factors: dict[str, int]
    list_offsets: dict[str, Tensor]

    def __init__(self, rows: StoredRows, reads: int) -> None:
        super().__init__()
        self.rows, self.reads = rows, reads
        self.picks, self.factors, self.offsets, self.cuts = [], [], [], []
        self.many, self.sequences = [], []
        self.list_factors, self.list_offsets = {}, {}

    def lay(self, placed: Sequence[tuple[list[int], Place]], plain: int) -> None:
        """Takes the features of the next side. placed: of each, where its H rows are found, and its table; the first
        `plain` are no codes."""
        pieces = [(columns, place, j) for columns, place in placed for j in range(place.pieces)]
        self.picks.append(torch.tensor([c[h] for h in range(self.reads) for c, _, _ in pieces], dtype=torch.int64))
        self.factors.append(torch.tensor([place.pieces for _, place, _ in pieces], dtype=torch.int64))
        self.offsets.append(torch.tensor([place.offset + j for _, place, j in pieces], dtype=torch.int64))
        self.cuts.append(sum(place.pieces for _, place in placed[:plain]) * self.rows.weight.shape[1])

    def lay_list(self, name: str, place: Place) -> None:
        """Takes a list feature."""
        self.list_factors[name] = place.pieces
        self.list_offsets[name] = torch.arange(place.pieces) + place.offset

    def forward(
        self,
        rows_of_sides: list[Tensor],
        lists: dict[str, Tensor],
        lengths: dict[str, Tensor],
        positions: dict[str, Tensor],
        shares: dict[str, Tensor],
    ) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
        """rows_of_sides: [F * H, n] per side. lists: name -> rows [V, H]; their lengths; positions: places of the
        values of sequences; shares: of the values of lists with weights, float32 [V].

        Returns per side static part [n, ..] and code part [n, ..], and sequence features [Q, L, D].
        """
        static: list[Tensor] = []
        codes: list[Tensor] = []
        for side, pick in enumerate(self.picks):
            rows = rows_of_sides[side].index_select(0, pick)
            rows = rows.view(self.reads, self.factors[side].shape[0], rows.shape[1]).transpose(1, 2)
            read = self.rows(rows * self.factors[side] + self.offsets[side], rows)
            flat = (read.sum(0) if self.reads > 1 else read.squeeze(0)).flatten(1)
            cut = self.cuts[side]
            plain = flat[:, :cut]
            if len(self.many[side]) > 0:
                plain = torch.cat(
                    [plain] + [self.mean(name, lists[name], lengths[name], shares) for name in self.many[side]], 1
                )
            static.append(plain)
            codes.append(flat[:, cut:])
        sequences = {f: self.read(f, by_position(lists[f], positions[f], self.rows.zero)) for f in self.sequences}
        return static, codes, sequences

    def read(self, name: str, rows: Tensor) -> Tensor:
        """Rows int64 [.., H] of a list's table, or `zero` -> [.., D], the sum over the hashes."""
        rows = rows.unsqueeze(-1)
        pieces = rows * self.list_factors[name] + self.list_offsets[name]
        pieces = torch.where(rows == self.rows.zero, self.rows.zero_piece, pieces)
        read = self.rows(pieces, rows.expand_as(pieces))
        return (read.sum(-3) if self.reads > 1 else read.squeeze(-3)).flatten(-2)

    def mean(self, name: str, rows: Tensor, lengths: Tensor, shares: dict[str, Tensor]) -> Tensor:
        """rows int64 [V, H] of n lists end to end -> the mean of each, by its shares if it has any, [n, D]; 0 of an
        empty one."""
        owner = torch.repeat_interleave(lengths, output_size=rows.shape[0])
        read = self.read(name, rows)
        if name in shares:
            of_value = read * shares[name].unsqueeze(1)
            return torch.zeros(lengths.shape[0], read.shape[1]).index_add(0, owner, of_value)
        total = torch.zeros(lengths.shape[0], read.shape[1]).index_add(0, owner, read)
        return total / lengths.clamp(min=1).unsqueeze(1)


def places_of(lengths: Tensor, positions: int) -> Tensor:
    """lengths int64 [Q] of lists end to end -> where the value at each position is, int64 [Q, L], counted from 1; 0
    past a list's end. Scriptable."""
    position = torch.arange(positions)
    there = (lengths.cumsum(0) - lengths).unsqueeze(1) + position + 1
    return torch.where(position < lengths.unsqueeze(1), there, 0)


def by_position(values: Tensor, positions: Tensor, fill: int) -> Tensor:
    """Values int64 [V, H] at `places_of` [Q, L] -> [Q, L, H]; `fill` where there is none. Scriptable."""
    return torch.cat([torch.full((1, values.shape[1]), fill), values])[positions]
