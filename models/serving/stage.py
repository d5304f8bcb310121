"""The embedding stage of the served model: raw values of a request -> embeddings and dense slots.

Q requests, C candidates, n rows of a side (Q or C), V values of a list, L sequence length, D width, H hashes.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from coldrank.models.encode import FeatureEncoder, joint_state
from coldrank.models.features import Feature, FeatureSet
from coldrank.models.maps import VocabularyMap
from coldrank.models.serving.lookup import Buckets, Ids, Numbers, Sides
from coldrank.models.serving.tables import Precision, Rows


class Side(NamedTuple):
    """What is known of n requests or candidates: static [n, S] embeddings, dense [n, F] numbers, pc [n, P] codes."""

    static: Tensor
    dense: Tensor
    pc: Tensor


class Looked(NamedTuple):
    """What a request holds. sequences: name -> [Q, L, D], zeros past a sequence's end. lengths: name -> int64 [Q].

    What `Asked` asks for by feature or column: rows, int64 [n], in the feature's own table; codes, the states of signals, int64
    [Q, L], -1 past the end; counts, int64 [n].
    """

    request: Side
    candidate: Side
    sequences: dict[str, Tensor]
    lengths: dict[str, Tensor]
    rows: dict[str, Tensor]
    codes: dict[str, Tensor]
    counts: dict[str, Tensor]


def with_sides(looked: Looked, request: Side, candidate: Side) -> Looked:
    """The same with other sides. Scriptable."""
    return Looked(request, candidate, looked.sequences, looked.lengths, looked.rows, looked.codes, looked.counts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is read beside the embeddings: rows of id features outside sequences, states of signals, and counts by raw column."""

    rows: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()


class Order(NamedTuple):
    """Features in the order in which a side has them: embeddings, numbers and codes."""

    static: list[Feature]
    dense: list[Feature]
    pc: list[Feature]


class Store(nn.Module):
    """The tables of one width and number of hashes, and the features that are read from them. Scriptable.

    picks: per side, places of the features' rows among all that were found, those of codes last. cuts: per side, how many
    features are no codes. many: per side, lists whose mean is taken. sequences: lists that are read by position.
    """

    picks: list[Tensor]
    cuts: list[int]
    many: list[list[str]]
    sequences: list[str]

    def __init__(self, rows: Rows, reads: int) -> None:
        super().__init__()
        self.rows, self.reads = rows, reads
        self.picks, self.cuts, self.many, self.sequences = [], [], [], []

    def forward(
        self, found: list[Tensor], lists: dict[str, Tensor], lengths: dict[str, Tensor], positions: dict[str, int]
    ) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
        """found: rows [F * H, n] per side. lists: name -> rows [V, H]; their lengths; positions: L of those of sequences.

        Returns per side static part [n, ..] and code part [n, ..], and sequence features [Q, L, D].
        """
        static: list[Tensor] = []
        codes: list[Tensor] = []
        for side, pick in enumerate(self.picks):
            rows = found[side][pick]
            read = self.read(
                rows.view(rows.shape[0] // self.reads, self.reads, rows.shape[1]).transpose(1, 2)
            ).transpose(0, 1)
            cut = self.cuts[side]
            means = [self.mean(lists[name], lengths[name]) for name in self.many[side]]
            static.append(torch.cat([read[:, :cut].flatten(1)] + means, 1))
            codes.append(read[:, cut:].flatten(1))
        sequences = {f: self.by_position(lists[f], lengths[f], positions[f]) for f in self.sequences}
        return static, codes, sequences

    def read(self, rows: Tensor) -> Tensor:
        """rows int64 [.., H] -> [.., D], the sum over the hashes."""
        read: Tensor = self.rows(rows)
        return read.sum(-2) if self.reads > 1 else read.squeeze(-2)

    def mean(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """rows int64 [V, H] of n lists end to end -> the mean of each, [n, D]; 0 of an empty one."""
        owner = torch.repeat_interleave(lengths, output_size=rows.shape[0])
        read = self.read(rows)
        total = torch.zeros(lengths.shape[0], read.shape[1]).index_add(0, owner, read)
        return total / lengths.clamp(min=1).unsqueeze(1)

    def by_position(self, rows: Tensor, lengths: Tensor, positions: int) -> Tensor:
        """rows int64 [V, H] of Q lists end to end -> [Q, L, D]; what is past L is left out, as in training."""
        return self.read(by_position(rows, lengths, positions, self.rows.zero))


def by_position(values: Tensor, lengths: Tensor, positions: int, fill: int) -> Tensor:
    """Values int64 [V, H] of Q lists end to end -> [Q, L, H], filled up past a list's end. Scriptable."""
    position = torch.arange(positions)
    present = position < lengths.unsqueeze(1)
    at = torch.where(present, (lengths.cumsum(0) - lengths).unsqueeze(1) + position, values.shape[0])
    return torch.cat([values, torch.full((1, values.shape[1]), fill)])[at]


def count_of(values: Tensor) -> Tensor:
    """A raw count, a number of any type, as int64; what is not finite is missing: 0. Scriptable."""
    exact = values.to(torch.float64)
    return torch.where(torch.isfinite(exact), exact, 0.0).clamp(-9007199254740992.0, 9007199254740992.0).to(torch.int64)


class Stage(nn.Module):
    """Looks a request up, in the way of FeatureEncoder and EmbeddingStage, whose parts it is made of. Scriptable.

    order: request and candidate: what the columns of their tensors are.
    """

    list_names: list[list[str]]
    signals: dict[str, list[str]]
    signal_starts: dict[str, int]
    columns: dict[str, str]
    sequences: dict[str, list[str]]
    positions: dict[str, int]
    asked_rows: list[tuple[str, int, int, int]]
    asked_codes: list[str]
    asked_counts: list[str]

    def __init__(
        self,
        encoder: FeatureEncoder,
        tables: dict[str, Tensor],
        candidate: set[str],
        precision: Precision,
        asked: Asked,
    ) -> None:
        """tables: name -> float32 [rows, D]. candidate: raw columns that differ between candidates."""
        super().__init__()
        encoder, features = deepcopy(encoder), encoder.features
        for module in encoder.maps.values():
            if isinstance(module, VocabularyMap):
                module.forget()
        kinds = dict.fromkeys((t.dim, t.reads) for t in features.tables)
        members = {kind: [t for t in features.tables if (t.dim, t.reads) == kind] for kind in kinds}
        starts: dict[str, int] = {}
        for of_kind in members.values():
            ends = torch.tensor([0] + [t.rows for t in of_kind]).cumsum(0).tolist()
            starts |= {t.name: start for t, start in zip(of_kind, ends, strict=False)}
        rows = [Rows([tables[t.name] for t in of_kind], precision) for of_kind in members.values()]
        stores = [Store(r, reads) for r, (_, reads) in zip(rows, kinds, strict=True)]
        self.stores = nn.ModuleList(stores)
        groups = _groups(features, candidate)
        self.ids = nn.ModuleList(Ids(g, encoder, encoder.maps[n] if n else None, starts) for n, g in groups.items())
        sides = [_sides(features, candidate, per) for per in ("request", "candidate")]
        self.buckets = nn.ModuleList(Buckets([f for f in fs if f.kind == "bucket"], encoder, starts) for fs in sides)
        self.numbers = nn.ModuleList(Numbers([f for f in fs if f.kind == "number"], encoder) for fs in sides)
        self.list_names = [[f.name for f in g.lists] for g in groups.values()]
        self.columns = {f.name: f.raw_columns[0] for f in features.features if f.is_list}
        states = [f for f in features.features if f.kind == "signals"]
        self.signals = {f.name: list(f.columns) for f in states}
        self.signal_starts = {f.name: starts[f.name] for f in states}
        self.sequences = {name: [f.name for f in fs] for name, fs in features.sequences.items()}
        self.positions = {f.name: f.length for fs in features.sequences.values() for f in fs}
        # Of an id feature: its side, its place among the rows that are found there, and where its table starts.
        self.asked_rows = []
        self.asked_codes, self.asked_counts = list(asked.codes), list(asked.counts)
        places = [_found(features, groups, fs, i) for i, fs in enumerate(sides)]
        for i, of_side in enumerate(places):
            at = {f.name: (f.name, i, place[0], starts[f.table]) for f, place in of_side if f.name in asked.rows}
            self.asked_rows += at.values()
        self.order = [self._lay(features, list(kinds), places[i], fs, i) for i, fs in enumerate(sides)]

    def _lay(
        self,
        features: FeatureSet,
        kinds: list[tuple[int, int]],
        at: list[tuple[Feature, list[int]]],
        side: list[Feature],
        i: int,
    ) -> Order:
        """Tells the stores what is theirs of a side, and returns the order that follows. at: as `_found` says."""
        found, places = [f for f, _ in at], {f.name: place for f, place in at}
        static: list[Feature] = []
        pc: list[Feature] = []
        for kind, store in zip(kinds, self.stores, strict=True):
            assert isinstance(store, Store)
            of_kind = lambda f, kind=kind: (features.dim(f), features.table(f.table_name).reads) == kind
            plain = [f for f in found if f.role != "pc" and of_kind(f)]
            codes = [f for f in found if f.role == "pc" and of_kind(f)]
            store.picks.append(torch.tensor([p for f in plain + codes for p in places[f.name]], dtype=torch.int64))
            store.cuts.append(len(plain))
            many = [f for f in side if f.many and of_kind(f)]
            store.many.append([f.name for f in many])
            if i == 0:
                store.sequences = [f.name for f in features.features if f.role == "sequence" and of_kind(f)]
            static += plain + many
            pc += codes
        return Order(static, [f for f in side if f.kind == "number"], pc)

    def forward(self, raw: dict[str, Tensor], requests: int, candidates: int) -> Looked:
        """raw: a request that `Door` has let in; Q and C as it says."""
        found_request: list[Tensor] = []
        found_candidate: list[Tensor] = []
        lists: dict[str, Tensor] = {}
        for i, ids in enumerate(self.ids):
            of_request, of_candidate, of_lists = ids(raw, requests, candidates)
            found_request.append(of_request.flatten(0, 1))
            found_candidate.append(of_candidate.flatten(0, 1))
            for name, rows in zip(self.list_names[i], of_lists):  # noqa: B905 (TorchScript knows no strict=)
                lists[name] = rows
        for name, columns in self.signals.items():
            lists[name] = joint_state([raw[c] for c in columns]).unsqueeze(1) + self.signal_starts[name]
        lengths = {name: raw[column + ".lengths"].to(torch.int64) for name, column in self.columns.items()}
        found: list[Tensor] = []
        dense: list[Tensor] = []
        for i, (buckets, numbers) in enumerate(zip(self.buckets, self.numbers)):  # noqa: B905
            rows = candidates if i else requests
            ids_of_side = found_candidate if i else found_request
            found.append(torch.cat(ids_of_side + [buckets(raw, rows).flatten(0, 1)]))
            dense.append(numbers(raw, rows))
        static: list[list[Tensor]] = [[], []]
        codes: list[list[Tensor]] = [[], []]
        read: dict[str, Tensor] = {}
        for store in self.stores:
            plain, code, of_sequences = store(found, lists, lengths, self.positions)
            for i in range(2):
                static[i].append(plain[i])
                codes[i].append(code[i])
            read.update(of_sequences)
        sides = [Side(torch.cat(static[i], 1), dense[i], torch.cat(codes[i], 1)) for i in range(2)]
        sequences = {name: torch.cat([read[f] for f in fs], 2) for name, fs in self.sequences.items()}
        ends = {name: lengths[fs[0]].clamp(max=self.positions[fs[0]]) for name, fs in self.sequences.items()}
        own = {name: found[side][place] - start for name, side, place, start in self.asked_rows}
        codes_of: dict[str, Tensor] = {}
        for name in self.asked_codes:
            states = lists[name] - self.signal_starts[name]
            codes_of[name] = by_position(states, lengths[name], self.positions[name], -1).squeeze(2)
        counts = {name: count_of(raw[name]) for name in self.asked_counts}
        return Looked(sides[0], sides[1], sequences, ends, own, codes_of, counts)


def _found(
    features: FeatureSet, groups: dict[str, Sides], side: list[Feature], i: int
) -> list[tuple[Feature, list[int]]]:
    """The features of a side whose rows are found one by one, in their order, and the places of their rows."""
    found = [f for g in groups.values() for f in (g.candidate if i else g.request)]
    found += [f for f in side if f.kind == "bucket"]
    places, at = [], 0
    for f in found:
        reads = features.table(f.table_name).reads
        places.append((f, list(range(at, at + reads))))
        at += reads
    return places


def _sides(features: FeatureSet, candidate: set[str], per: str) -> list[Feature]:
    """Features outside sequences whose input is given per request, or per candidate; numbers in the order of their slots."""
    kept = [
        f for f in features.features if f.role != "sequence" and (f.raw_columns[0] in candidate) == (per == "candidate")
    ]
    numbers = [f for f in features.numbers if f in kept]
    return [f for f in kept if f.kind != "number"] + numbers


def _groups(features: FeatureSet, candidate: set[str]) -> dict[str, Sides]:
    """Id features by the map that they share: the table's, or '' for all hashed tables."""
    groups: dict[str, Sides] = {}
    for f in features.features:
        if f.kind == "id":
            hashed = features.table(f.table).mapping == "hash"
            group = groups.setdefault("" if hashed else f.table, Sides(request=[], candidate=[], lists=[]))
            if f.is_list:
                group.lists.append(f)
            else:
                (group.candidate if f.raw_columns[0] in candidate else group.request).append(f)
    return groups
