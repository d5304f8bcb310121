"""Features are declared once. From the declaration come the embedding tables, the keys of the KeyedJaggedTensor, the
dense slots, the check of incoming data and the serving signature; training and serving read the same declaration.

A raw value is a 64-bit id or a number. What becomes of it:

    id      int64            -> row of `table`, by the table's mapping                  one or many values per sample
    signals int8 x columns   -> one row for the joint state, 3 ** len(columns) rows     sequences only
    bucket  float            -> bucket of the edges (0: missing) -> row of `table`      one value per sample
    number  float            -> transformed, standardised -> one dense slot             one value per sample
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

Kind = Literal["id", "signals", "bucket", "number"]
Role = Literal["user", "item", "context", "sequence", "pc"]
Mapping = Literal["hash", "multi_hash", "vocabulary", "growing", "managed", "identity"]
Transform = Literal["none", "log1p", "logit"]
_HASHES = 2
_COUNTERS = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """An embedding table of `rows` x `dim` float32."""

    name: str
    """Of the table."""
    rows: int
    """Its height."""
    dim: int
    """Its width."""
    mapping: Mapping = "hash"
    """How a raw id becomes a row. `hash`: mixed and reduced modulo rows. `multi_hash`: the sum of the rows of `hashes`
    hashes. `vocabulary`: ids seen at least `min_count` times in the training data get a row of their own (the most
    frequent first when there are too many), all others share row 0. `growing`: an id gets a row of its own when
    training first reads it; ids that training has not read, or that find the table full, share row 0. `managed`: the
    same, but in a full table new ids take the rows of old ones. `identity`: the id is the row; ids outside 0..rows-1
    are refused when data is read."""
    min_count: int = 1
    """How often an id is seen, outside sequences, before it has a row of its own: of `vocabulary` in the training data,
    of `growing` and `managed` as training reads it. The other mappings have 1."""
    admission: Literal["exact", "sketch"] = "exact"
    """Of `growing` and `managed` with `min_count`: how the ids that wait are counted. `exact`: 16 bytes for each.
    `sketch`: with `counters` for all, so that some get their row early, and none late."""
    counters: int = _COUNTERS
    """Of a sketch: its bytes, a multiple of 4,096."""
    hashes: int = _HASHES
    """Of `multi_hash`: rows that are read for an id."""
    eviction: Literal["lru", "lfu", "distance_lfu"] = "lru"
    """Of `managed`, whose row goes: of the id read longest ago (`lru`); or, where a batch holds the new one more often,
    of the one read least (`lfu`), or least for the batches since it was read last (`distance_lfu`)."""
    blocks: int = 1
    """Of `managed`: parts by a hash of the id, with as many rows each, whose ids compete among themselves. On several
    ranks a block lies with one of them: several per rank share out memory and work."""
    init: float = 0.0
    """Standard deviation of the first weights (0: `optim.tables.init`)."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights."""
        return self.rows * self.dim * 4

    @property
    def is_dynamic(self) -> bool:
        """Whether ids get their rows while training."""
        return self.mapping in ("growing", "managed")

    @property
    def reads(self) -> int:
        """Rows that are read for an id."""
        return self.hashes if self.mapping == "multi_hash" else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """One input of the model."""

    name: str
    """Of the feature."""
    role: Role
    """Whose it is: the user's, the item's, the event's (context); part of a sequence; or a personalization code
    (pc)."""
    kind: Kind
    """What becomes of a raw value: see the head of this file."""
    column: str = ""
    """The raw column ('': the feature's name)."""
    columns: tuple[str, ...] = ()
    """Of kind `signals`: the raw columns whose joint state is read."""
    table: str = ""
    """Of kind `id`: its table; several features may share one. Buckets and signals own a table of the feature's
    name."""
    dim: int = 0
    """Of buckets and signals: the width of their table."""
    init: float = 0.0
    """Of buckets and signals: standard deviation of their table's first weights (0: `optim.tables.init`)."""
    edges: tuple[float, ...] = ()
    """Of buckets: the edges, ascending (empty: `buckets` quantiles taken from the training data)."""
    buckets: int = 0
    """Of buckets without edges: how many."""
    transform: Transform = "none"
    """Of a number, before it is standardised."""
    default: int = 0
    """The value of a missing id. A missing number or bucket has a place of its own (0 after standardising, bucket
    0)."""
    salted: bool = False
    """An id of this feature is not that of another, though they share the table: the name enters the hash."""
    many: bool = False
    """An id feature with any number of values per sample, averaged."""
    sequence: str = ""
    """Of role `sequence`: the name of the group of aligned columns."""
    length: int = 0
    """Of role `sequence`: the longest sequence."""

    @property
    def raw_columns(self) -> tuple[str, ...]:
        """The raw columns that the feature reads."""
        return self.columns or (self.column or self.name,)

    @property
    def is_list(self) -> bool:
        """Whether the raw column holds a list per sample."""
        return self.many or self.role == "sequence"

    @property
    def table_name(self) -> str:
        """The table that holds the feature's embeddings ('' for numbers)."""
        return "" if self.kind == "number" else self.table or self.name

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys in the KeyedJaggedTensor: one per position for a sequence, so that every position is a bag of at most
        one."""
        if self.kind == "number":
            return ()
        return tuple(f"{self.name}.{i}" for i in range(self.length)) if self.role == "sequence" else (self.name,)


@dataclass(frozen=True, slots=True)
class Input:
    """A raw column: what is read in training and sent in serving.

    dtype: int is int64, and a missing value is `default`; float is float32, and a missing value NaN. is_list: any
    number of values per sample, none missing. low, high: values outside low..high are refused. problem: of a number,
    which of some values [N] cannot be, bool [N], and why, in words that follow the value. required: a number that is
    missing is refused.
    """

    name: str
    dtype: Literal["int", "float"]
    is_list: bool = False
    default: int | None = None
    low: int | None = None
    high: int | None = None
    # Not compared: methods of equal heads of two runs are different ones.
    problem: Callable[[NDArray[np.floating[Any]]], tuple[NDArray[np.bool_], str]] | None = field(
        default=None, compare=False
    )
    required: bool = False


class FeatureSet:
    """The checked declaration of a model's inputs.

    Raises ValueError, naming the feature and the field, for a declaration that cannot work.
    """

    def __init__(self, features: Iterable[Feature], tables: Iterable[Table] = ()) -> None:
        self.features = tuple(features)
        declared = tuple(tables)
        _unique("feature", [f.name for f in self.features])
        _unique("table", [t.name for t in declared])
        shared = {t.name: t for t in declared}
        for table in declared:
            _check_table(table)
        for feature in self.features:
            _check(feature, shared)
        owned = {f.name: _own_table(f) for f in self.features if f.kind in ("bucket", "signals")}
        _unique("table", [*shared, *owned])
        for name in (*shared, *(f.name for f in self.features)):
            if hasattr(nn.ModuleDict, name):
                raise ValueError(f"name {name!r} is taken by torch.nn.ModuleDict; choose another")
        fixed = [f for f in self.features if f.role not in ("sequence", "pc") and f.kind != "number"]
        if not fixed:
            raise ValueError("no embedded feature outside sequences; the ranker needs at least one id or bucket")
        used = {f.table_name for f in self.features}
        self.tables = tuple(t for t in (*declared, *owned.values()) if t.name in used)
        self.by_table = {t.name: tuple(f for f in self.features if f.table_name == t.name) for t in self.tables}
        for t in self.tables:
            counts = t.mapping == "vocabulary" or (t.is_dynamic and t.min_count > 1)
            if counts and all(f.role == "sequence" for f in self.by_table[t.name]):
                what = "its vocabulary is taken" if t.mapping == "vocabulary" else f"min_count={t.min_count} is counted"
                raise ValueError(f"table {t.name!r}: {what} from features outside sequences; it has none")
        for name, aligned in self.sequences.items():
            lengths = {f.length for f in aligned}
            if len(lengths) > 1:
                raise ValueError(f"features of sequence {name!r} differ in length: {sorted(lengths)}")
        _ = self.inputs

    @property
    def sparse(self) -> tuple[Feature, ...]:
        """Features with an embedding, in the order of their keys."""
        return tuple(f for f in self.features if f.kind != "number")

    @property
    def numbers(self) -> tuple[Feature, ...]:
        """Features with a dense slot, in the order of the slots: those of one transform together."""
        return tuple(sorted((f for f in self.features if f.kind == "number"), key=lambda f: f.transform))

    @property
    def sequences(self) -> dict[str, tuple[Feature, ...]]:
        """Sequence name -> its aligned features."""
        names = dict.fromkeys(f.sequence for f in self.features if f.role == "sequence")
        return {name: tuple(f for f in self.features if f.sequence == name) for name in names}

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Every raw column, once: the check of incoming data and the serving signature."""
        inputs: dict[str, Input] = {}
        for f in self.features:
            low = high = None
            if f.kind == "signals":
                low, high = -1, 1
            elif f.kind == "id" and self.table(f.table).mapping == "identity":
                low, high = 0, self.table(f.table).rows - 1
            dtype: Literal["int", "float"] = "int" if f.kind in ("id", "signals") else "float"
            for column in f.raw_columns:
                new = Input(
                    column, dtype, f.is_list, f.default if dtype == "int" and not f.is_list else None, low, high
                )
                if inputs.setdefault(column, new) != new:
                    raise ValueError(f"feature {f.name!r}: column {column!r} is read in another way by another feature")
        return tuple(inputs.values())

    def table(self, name: str) -> Table:
        """The table of this name."""
        return next(t for t in self.tables if t.name == name)

    def dim(self, feature: Feature) -> int:
        """Width of a feature's embedding."""
        return self.table(feature.table_name).dim


def _own_table(feature: Feature) -> Table:
    if feature.kind == "signals":
        return Table(
            name=feature.name, rows=3 ** len(feature.columns), dim=feature.dim, mapping="identity", init=feature.init
        )
    rows = (len(feature.edges) or feature.buckets - 1) + 2
    return Table(name=feature.name, rows=rows, dim=feature.dim, mapping="identity", init=feature.init)


def _unique(what: str, names: list[str]) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"{what} declared twice: {', '.join(twice)}")


def _check_table(t: Table) -> None:
    rules = [
        (t.mapping == "multi_hash" and t.hashes < 2, f"hashes={t.hashes}: must be 2 or more; one is mapping 'hash'"),
        (t.mapping != "multi_hash" and t.hashes != _HASHES, f"hashes={t.hashes} is for mapping 'multi_hash'"),
        (t.is_dynamic and t.rows < 2, f"rows={t.rows}: row 0 is for unknown ids, so 2 or more are needed"),
        (t.min_count < 1, f"min_count={t.min_count}: must be 1 or more"),
        (
            t.min_count > 1 and t.mapping != "vocabulary" and not t.is_dynamic,
            f"min_count={t.min_count} is for mappings 'vocabulary', 'growing' and 'managed', not {t.mapping!r}",
        ),
        (
            t.admission != "exact" and not (t.is_dynamic and t.min_count > 1),
            f"admission={t.admission!r} is for mappings 'growing' and 'managed' with min_count above 1",
        ),
        (
            t.counters != _COUNTERS and t.admission != "sketch",
            f"counters={t.counters} is for admission 'sketch'",
        ),
        (
            t.admission == "sketch" and (t.counters < 4096 or t.counters % 4096 > 0),
            f"counters={t.counters}: must be a multiple of 4,096",
        ),
        (t.admission == "sketch" and t.min_count > 255, f"min_count={t.min_count}: a sketch counts up to 255"),
        (t.mapping != "managed" and t.eviction != "lru", f"eviction={t.eviction!r} is for mapping 'managed'"),
        (t.mapping != "managed" and t.blocks != 1, f"blocks={t.blocks} is for mapping 'managed'"),
        (
            not 1 <= t.blocks <= min(1024, max(1, t.rows - 1)),
            f"blocks={t.blocks}: must be 1 to 1024 and below rows={t.rows}",
        ),
    ]
    for broken, message in rules:
        if broken:
            raise ValueError(f"table {t.name!r}: {message}")


def _check(f: Feature, tables: dict[str, Table]) -> None:
    rules = [
        (not f.name.isidentifier(), "the name must be letters, digits and _, it names tables and serving inputs"),
        (f.kind == "id" and f.table not in tables, f"table={f.table!r} is not declared; have {sorted(tables)}"),
        (
            f.salted and (f.table not in tables or tables[f.table].mapping not in ("hash", "multi_hash")),
            "salted is for ids of a hashed table",
        ),
        (f.kind != "id" and f.table != "", f"table={f.table!r}: only kind 'id' names a table"),
        (
            f.kind in ("bucket", "signals") and f.dim < 1,
            f"dim={f.dim}: a {f.kind} feature needs the width of its table",
        ),
        (f.kind == "bucket" and not f.edges and f.buckets < 2, "a bucket feature needs edges, or buckets >= 2"),
        (list(f.edges) != sorted(set(f.edges)), f"edges={f.edges}: must ascend"),
        (f.kind == "signals" and (f.role != "sequence" or not f.columns), "signals need role 'sequence' and columns"),
        (f.kind != "signals" and bool(f.columns), "columns are for kind 'signals'; others read one column"),
        (
            f.role == "sequence" and (f.length < 1 or not f.sequence),
            "a sequence feature needs length >= 1 and sequence",
        ),
        (f.role == "sequence" and f.kind not in ("id", "signals"), f"kind={f.kind!r}: a sequence holds ids or signals"),
        (f.role != "sequence" and bool(f.sequence or f.length), "sequence and length are for role 'sequence'"),
        (f.many and (f.kind != "id" or f.role in ("sequence", "pc")), "many is for ids outside sequences"),
        (f.role == "pc" and f.kind == "number", "a personalization code is embedded: use kind 'bucket' or 'id'"),
    ]
    for broken, message in rules:
        if broken:
            raise ValueError(f"feature {f.name!r}: {message}")
