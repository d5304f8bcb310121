"""The embedding stage of the served model: raw values of a request -> embeddings and dense slots.

Q requests, C candidates, n rows of a side (Q or C), V values of a list, L sequence length, D width, H hashes.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from coldrank.models.encode import FeatureEncoder, joint_state, shares
from coldrank.models.features import Feature, FeatureSet
from coldrank.models.projected import Projected
from coldrank.serving.crosses import Cross
from coldrank.serving.floats import PositionBuckets, PositionReader, VectorReader
from coldrank.serving.lookup import Ids, IdSides, Values
from coldrank.serving.pack import Pack, Packed
from coldrank.serving.store import Store, by_position, places_of
from coldrank.serving.tables import Place, Precision, StoredRows


class Side(NamedTuple):
    """What is known of n requests or candidates: static [n, S] embeddings, dense [n, F] numbers, pc [n, P] codes."""

    static: Tensor
    dense: Tensor
    pc: Tensor


class Looked(NamedTuple):
    """What a request holds. sequences: name -> [Q, L, D], zeros past a sequence's end. lengths: name -> int64 [Q].

    What `Asked` asks for by feature or column: rows, int64 [n], in the feature's own table; codes, the states of
    signals or the rows of ids, int64 [Q, L], -1 past the end; counts, int64 [n].
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
    """What is read beside the embeddings: rows of id features outside sequences, states of signals, and counts by raw
    column."""

    rows: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()


class Order(NamedTuple):
    """Features in the order in which a side has them: embeddings, numbers and codes."""

    static: list[Feature]
    dense: list[Feature]
    pc: list[Feature]


class Lookup(nn.Module):
    """Looks a request up, in the way of FeatureEncoder and EmbeddingStage, whose parts it is made of. Scriptable.

    order: request and candidate: what the columns of their tensors are.
    """

    list_names: list[list[str]]
    signals: dict[str, list[str]]
    signal_starts: dict[str, int]
    code_starts: dict[str, int]
    columns: dict[str, str]
    weights: dict[str, str]
    sequences: dict[str, list[str]]
    positions: dict[str, int]
    asked_rows: list[tuple[str, int, int, int]]
    asked_codes: list[str]

    def __init__(
        self,
        encoder: FeatureEncoder,
        pack: Pack,
        tables: dict[str, Tensor],
        candidate: set[str],
        precision: Precision,
        asked: Asked,
        projected: Projected,
    ) -> None:
        """pack: what puts requests together. tables: name -> float32 [rows, D]. candidate: raw columns that differ
        between candidates. projected: what vectors go through."""
        super().__init__()
        encoder, features = deepcopy(encoder), encoder.features
        members = {n: [t for t in features.tables if t.reads == n] for n in sorted({t.reads for t in features.tables})}
        stores = {n: Store(StoredRows([tables[t.name] for t in ts], precision), n) for n, ts in members.items()}
        tables_at = {t.name: p for n, ts in members.items() for t, p in zip(ts, stores[n].rows.places, strict=True)}
        starts = {name: p[0] for name, p in tables_at.items()}
        self.stores = nn.ModuleList(stores.values())
        groups = _groups(features, candidate)
        self.ids = nn.ModuleList(Ids(g, encoder, pack, kind, starts) for kind, g in groups.items())
        sides = [_sides(features, candidate, per) for per in ("request", "candidate")]
        self.values = nn.ModuleList(Values(fs, encoder, pack.scalars[2 * i + 1], starts) for i, fs in enumerate(sides))
        self.crosses = nn.ModuleList(
            nn.ModuleList(Cross(f, features, pack, sides, starts) for f in fs if f.kind == "cross") for fs in sides
        )
        self.list_names = [[f.name for f in g.lists] for g in groups.values()]
        self.weights = {f.name: f.weights for f in features.weighted}
        self.columns = {f.name: f.raw_columns[0] for f in features.features if f.is_list}
        self.buckets = nn.ModuleList(
            PositionBuckets(f, encoder, starts[f.name]) for f in features.sparse if f.is_list and f.kind == "bucket"
        )
        self.vectors = nn.ModuleList(
            nn.ModuleList(VectorReader(f, encoder, projected) for f in fs if f.kind == "vector") for fs in sides
        )
        of_positions = [f for f in features.floats if f.kind == "number"]
        self.position_numbers = nn.ModuleList(PositionReader(f, encoder) for f in of_positions)
        states = [f for f in features.features if f.kind == "signals"]
        self.signals = {f.name: list(f.columns) for f in states}
        self.signal_starts = {f.name: starts[f.name] for f in states}
        self.sequences = {name: [f.name for f in fs] for name, fs in features.sequences.items()}
        self.positions = {f.name: f.length for fs in features.sequences.values() for f in fs}
        # Of an id feature: its side, its place among the rows that are found there, and where its table starts.
        self.asked_rows = []
        self.asked_codes = list(asked.codes)
        self.code_starts = {f.name: starts[f.table_name] for f in features.features if f.name in asked.codes}
        places = [_found(features, groups, fs, i) for i, fs in enumerate(sides)]
        for i, of_side in enumerate(places):
            place_of = {f.name: (f.name, i, place[0], starts[f.table]) for f, place in of_side if f.name in asked.rows}
            self.asked_rows += place_of.values()
        self.order = [_lay(features, stores, tables_at, places[i], fs) for i, fs in enumerate(sides)]

    def forward(self, packed: Packed) -> Looked:
        """Looks a request up."""
        found_request: list[Tensor] = []
        found_candidate: list[Tensor] = []
        lists: dict[str, Tensor] = {}
        for i, ids in enumerate(self.ids):
            of_lists = ids(packed, found_request, found_candidate)
            for name, rows in zip(self.list_names[i], of_lists):  # noqa: B905 (TorchScript knows no strict=)
                lists[name] = rows
        for name, columns in self.signals.items():
            lists[name] = joint_state([packed.lists[c] for c in columns]).unsqueeze(1) + self.signal_starts[name]
        for of_positions in self.buckets:
            lists[of_positions.name] = of_positions(packed.lists)  # type: ignore[index]
        lengths = {name: packed.lists[column + ".lengths"] for name, column in self.columns.items()}
        dense: list[Tensor] = []
        of_sides: list[Tensor] = []
        for i, values in enumerate(self.values):
            buckets, numbers = values(packed.numbers[i])
            of_sides.append(buckets)
            (found_candidate if i else found_request).append(buckets)
            dense.append(numbers)
        for i, crosses in enumerate(self.crosses):
            for cross in crosses:  # type: ignore[attr-defined]
                (found_candidate if i else found_request).append(cross(packed, of_sides))
        rows_of_sides = [torch.cat(found_request), torch.cat(found_candidate)]
        positions: dict[str, Tensor] = {}
        for features in self.sequences.values():
            places = places_of(lengths[features[0]], self.positions[features[0]])
            for name in features:
                positions[name] = places
        weights: dict[str, Tensor] = {}
        for name, column in self.weights.items():
            weights[name] = shares(packed.lists[column], lengths[name])
        static: list[list[Tensor]] = [[], []]
        codes: list[list[Tensor]] = [[], []]
        read: dict[str, Tensor] = {}
        for store in self.stores:
            plain, code, of_sequences = store(rows_of_sides, lists, lengths, positions, weights)
            for i in range(2):
                static[i].append(plain[i])
                codes[i].append(code[i])
            read.update(of_sequences)
        for i, readers in enumerate(self.vectors):
            for reader in readers:  # type: ignore[attr-defined]
                static[i].append(reader(packed.lists))
        for reader in self.position_numbers:
            read[reader.name] = reader(packed.lists)  # type: ignore[index]
        sides = [Side(torch.cat(static[i], 1), dense[i], torch.cat(codes[i], 1)) for i in range(2)]
        sequences = {name: torch.cat([read[f] for f in fs], 2) for name, fs in self.sequences.items()}
        ends = {name: lengths[fs[0]].clamp(max=self.positions[fs[0]]) for name, fs in self.sequences.items()}
        asked_rows = {name: rows_of_sides[side][place] - start for name, side, place, start in self.asked_rows}
        codes_of: dict[str, Tensor] = {}
        for name in self.asked_codes:
            states = lists[name] - self.code_starts[name]
            codes_of[name] = by_position(states, positions[name], -1).squeeze(2)
        return Looked(sides[0], sides[1], sequences, ends, asked_rows, codes_of, packed.counts)


def _found(
    features: FeatureSet, groups: dict[str, IdSides], side: list[Feature], i: int
) -> list[tuple[Feature, list[int]]]:
    """The features of a side whose rows are found one by one, in their order, and the places of their rows."""
    in_order = [f for g in groups.values() for f in (g.candidate if i else g.request)]
    in_order += [f for f in side if f.kind == "bucket"]
    in_order += [f for f in side if f.kind == "cross"]
    places, start = [], 0
    for f in in_order:
        reads = features.table(f.table_name).reads
        places.append((f, list(range(start, start + reads))))
        start += reads
    return places


def _sides(features: FeatureSet, candidate: set[str], per: str) -> list[Feature]:
    """Features outside sequences whose input is given per request, or, one of those of a cross, per candidate; numbers
    in the order of their slots."""
    differs = lambda f: any(c in candidate for c in features.columns(f))
    kept = [f for f in features.features if f.role != "sequence" and differs(f) == (per == "candidate")]
    numbers = [f for f in features.numbers if f in kept]
    return [f for f in kept if f.kind != "number"] + numbers


def _lay(
    features: FeatureSet,
    stores: dict[int, Store],
    tables: dict[str, Place],
    placed: list[tuple[Feature, list[int]]],
    side: list[Feature],
) -> Order:
    """Tells the stores what is theirs of a side, and returns the order that follows. placed: as `_found` says."""
    static: list[Feature] = []
    pc: list[Feature] = []
    for reads, store in stores.items():
        mine = lambda f, reads=reads: features.table(f.table_name).reads == reads
        plain, codes = ([(f, r) for f, r in placed if mine(f) and (f.role == "pc") == code] for code in (False, True))
        store.lay([(rows, tables[f.table_name]) for f, rows in plain + codes], len(plain))
        many = [f for f in side if f.many and mine(f)]
        store.many.append([f.name for f in many])
        store.sequences = [f.name for f in features.sparse if f.role == "sequence" and mine(f)]
        for f in features.sparse:
            if f.is_list and mine(f):
                store.lay_list(f.name, tables[f.table_name])
        static += [f for f, _ in plain] + many
        pc += [f for f, _ in codes]
    static += [f for f in side if f.kind == "vector"]
    return Order(static, [f for f in side if f.kind == "number"], pc)


def _groups(features: FeatureSet, candidate: set[str]) -> dict[str, IdSides]:
    """Id features by how their ids become rows: `Ids` has the names."""
    groups: dict[str, IdSides] = {}
    for f in features.features:
        if f.kind == "id":
            mapping = features.table(f.table).mapping
            learnt = mapping in ("vocabulary", "growing", "managed")
            kind = "learnt" if learnt else f.table if mapping == "multi_hash" else mapping
            group = groups.setdefault(kind, IdSides(request=[], candidate=[], lists=[]))
            if f.is_list:
                group.lists.append(f)
            else:
                (group.candidate if f.raw_columns[0] in candidate else group.request).append(f)
    return groups
