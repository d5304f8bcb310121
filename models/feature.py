"""What is declared of a feature, of a table and of a raw column. docs/features.md says what becomes of each kind.

A raw value is a 64-bit id or a number. What becomes of it:

    id      int64            -> row of `table`, by the table's mapping                  one or many values per sample,
                                                                                        these also with weights
    signals int8 x columns   -> one row for the joint state, 3 ** len(columns) rows     sequences only
    bucket  float            -> bucket of the edges (0: missing) -> row of its table    one value per sample or position
    number  float            -> transformed, standardised -> one dense slot             one value per sample or position
    vector  float x length   -> scaled to length 1 -> linear map to `dim` numbers       one vector per sample
    cross   ids and buckets  -> row of the hash of them all, of a table of its own      one row per sample
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["id", "signals", "bucket", "number", "vector", "cross"]
Role = Literal["user", "item", "context", "sequence", "pc"]
Mapping = Literal["hash", "multi_hash", "vocabulary", "growing", "managed", "identity"]
Transform = Literal["none", "log1p", "logit"]
HASHES = 2
COUNTERS = 1 << 22


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
    counters: int = COUNTERS
    """Of a sketch: its bytes, a multiple of 4,096."""
    hashes: int = HASHES
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
    """Of kind `id`: its table; several features may share one. Buckets, signals and crosses own a table of the
    feature's name."""
    dim: int = 0
    """Of buckets, signals and crosses: the width of their table. Of a vector: that of what it is mapped to."""
    init: float = 0.0
    """Of buckets, signals and crosses: standard deviation of their table's first weights (0: `optim.tables.init`)."""
    edges: tuple[float, ...] = ()
    """Of buckets: the edges, ascending (empty: `buckets` quantiles taken from the training data)."""
    buckets: int = 0
    """Of buckets without edges: how many."""
    of: tuple[str, ...] = ()
    """Of a cross: the features, ids and buckets, whose values are hashed together."""
    rows: int = 0
    """Of a cross: the rows of its table."""
    transform: Transform = "none"
    """Of a number, before it is standardised."""
    unit: bool = True
    """Of a vector: whether it is scaled to length 1 before it is mapped; one of zeros stays."""
    default: int = 0
    """The value of a missing id. What else is missing has a place of its own: a number is 0 after standardising, a
    bucket 0, a vector what is learnt for it."""
    salted: bool = False
    """An id of this feature is not that of another, though they share the table: the name enters the hash."""
    many: bool = False
    """An id feature with any number of values per sample, averaged."""
    weights: str = ""
    """Of many ids: the raw column with a weight for each, of which the average is; empty: they weigh alike."""
    sequence: str = ""
    """Of role `sequence`: the name of the group of aligned columns."""
    length: int = 0
    """Of role `sequence`: the longest sequence. Of a vector: how many numbers it has."""

    @property
    def raw_columns(self) -> tuple[str, ...]:
        """The raw columns that the feature reads; weights come last. A cross reads those of its features."""
        if self.kind == "cross":
            return ()
        return self.columns or (self.column or self.name, *filter(None, [self.weights]))

    @property
    def is_list(self) -> bool:
        """Whether the raw column holds a list per sample."""
        return self.many or self.role == "sequence" or self.kind == "vector"

    @property
    def has_table(self) -> bool:
        """Whether it reads rows of a table; numbers and vectors do not."""
        return self.kind not in ("number", "vector")

    @property
    def owns_table(self) -> bool:
        """Whether its table has its name and is its own."""
        return self.has_table and self.kind != "id"

    @property
    def table_name(self) -> str:
        """The table that holds the feature's embeddings ('' for numbers and vectors)."""
        return (self.table or self.name) if self.has_table else ""

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys in the KeyedJaggedTensor: one per position for a sequence, so that every position is a bag of at most
        one."""
        if not self.has_table:
            return ()
        return tuple(f"{self.name}.{i}" for i in range(self.length)) if self.role == "sequence" else (self.name,)


@dataclass(frozen=True, slots=True)
class Input:
    """A raw column: what is read in training and sent in serving.

    dtype: int is int64, and a missing value is `default`; float is float32, and a missing value NaN. is_list: any
    number of values per sample, none missing. low, high: values outside low..high are refused. problem: of a number,
    which of some values [N] cannot be, bool [N], and why, in words that follow the value. required: a number that is
    missing is refused. width: of a list, how many values it has if it has any (0: any number). like: a list that has as
    many values in every row.
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
    width: int = 0
    # Not compared: of a column that two features read, the first says it.
    like: str = field(default="", compare=False)
