"""Features are declared once. From the declaration come the embedding tables, the keys of the KeyedJaggedTensor, the
dense slots, the check of incoming data and the serving signature; training and serving read the same declaration."""

from collections.abc import Iterable
from itertools import accumulate
from typing import Literal

from torch import nn

from coldrank.models.feature import Feature, Input, Kind, Mapping, Role, Table, Transform
from coldrank.models.feature_checks import check_cross, check_feature, check_table, unique

__all__ = ["Feature", "FeatureSet", "Input", "Kind", "Mapping", "Role", "Table", "Transform"]


class FeatureSet:
    """The checked declaration of a model's inputs.

    Raises ValueError, naming the feature and the field, for a declaration that cannot work.
    """

    def __init__(self, features: Iterable[Feature], tables: Iterable[Table] = ()) -> None:
        self.features = tuple(features)
        declared = tuple(tables)
        unique("feature", [f.name for f in self.features])
        unique("table", [t.name for t in declared])
        shared = {t.name: t for t in declared}
        for table in declared:
            check_table(table)
        for feature in self.features:
            check_feature(feature, shared)
        self.by_name = {f.name: f for f in self.features}
        for feature in (f for f in self.features if f.kind == "cross"):
            check_cross(feature, self.by_name)
        owned = {f.name: _own_table(f) for f in self.features if f.owns_table}
        unique("table", [*shared, *owned])
        for name in (*shared, *(f.name for f in self.features)):
            if hasattr(nn.ModuleDict, name):
                raise ValueError(f"name {name!r} is taken by torch.nn.ModuleDict; choose another")
        fixed = [f for f in self.features if f.role not in ("sequence", "pc") and f.has_table]
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
        """Features that read a table, in the order of their keys: table by table, as tables are looked up on one rank,
        so that TorchRec has nothing to put in order at every step."""
        return tuple(f for table in self.tables for f in self.by_table[table.name])

    @property
    def codes(self) -> tuple[Feature, ...]:
        """Personalization codes, in order."""
        return tuple(f for f in self.features if f.role == "pc")

    @property
    def embedded(self) -> tuple[Feature, ...]:
        """Features that a model reads as vectors, in order: all but numbers outside sequences."""
        return tuple(f for f in self.features if f.kind != "number" or f.role == "sequence")

    @property
    def floats(self) -> tuple[Feature, ...]:
        """Those of them that read no table: vectors, and numbers of sequences."""
        return tuple(f for f in self.embedded if not f.has_table)

    @property
    def float_spans(self) -> dict[str, slice]:
        """Feature of `floats` -> its columns in `Batch.floats`: of a vector its numbers and, where it is missing, a 1;
        of a sequence a number for each position."""
        widths = [f.length + int(f.kind == "vector") for f in self.floats]
        ends = list(accumulate(widths))
        return {f.name: slice(end - width, end) for f, width, end in zip(self.floats, widths, ends, strict=True)}

    @property
    def weighted(self) -> tuple[Feature, ...]:
        """Features of many ids with weights."""
        return tuple(f for f in self.features if f.weights)

    @property
    def numbers(self) -> tuple[Feature, ...]:
        """Features with a dense slot, in the order of the slots: those of one transform together."""
        plain = (f for f in self.features if f.kind == "number" and f.role != "sequence")
        return tuple(sorted(plain, key=lambda f: f.transform))

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
            for new in self._inputs(f):
                if inputs.setdefault(new.name, new) != new:
                    raise ValueError(
                        f"feature {f.name!r}: column {new.name!r} is read in another way by another feature"
                    )
        return tuple(inputs.values())

    def _inputs(self, f: Feature) -> list[Input]:
        if f.kind == "cross":
            return []
        if f.kind == "vector":
            return [Input(f.raw_columns[0], "float", is_list=True, required=True, width=f.length)]
        low = high = default = None
        if f.kind == "signals":
            low, high = -1, 1
        elif f.kind == "id" and self.table(f.table).mapping == "identity":
            low, high = 0, self.table(f.table).rows - 1
        if f.kind == "id" and not f.is_list:
            default = f.default
        first = self.sequences[f.sequence][0].raw_columns[0] if f.sequence else ""
        like = lambda column: "" if column == first else first
        dtype: Literal["int", "float"] = "int" if f.kind in ("id", "signals") else "float"
        columns = [c for c in f.raw_columns if c != f.weights]
        inputs = [Input(c, dtype, f.is_list, default, low, high, like=like(c)) for c in columns]
        weights = Input(f.weights, "float", is_list=True, required=True, like=columns[0])
        return [*inputs, weights] if f.weights else inputs

    def parts(self, f: Feature) -> tuple[Feature, ...]:
        """The features whose columns a feature reads: of a cross those that it is of, else itself."""
        return tuple(self.by_name[name] for name in f.of) or (f,)

    def columns(self, f: Feature) -> tuple[str, ...]:
        """The raw columns that a feature reads, those of a cross as well."""
        return tuple(dict.fromkeys(c for part in self.parts(f) for c in part.raw_columns))

    def table(self, name: str) -> Table:
        """The table of this name."""
        return next(t for t in self.tables if t.name == name)

    def dim(self, feature: Feature) -> int:
        """Width of what a model reads of a feature; in a sequence, at a position."""
        if feature.has_table:
            return self.table(feature.table_name).dim
        return feature.dim if feature.kind == "vector" else 1


def _own_table(feature: Feature) -> Table:
    if feature.kind == "signals":
        return Table(
            name=feature.name, rows=3 ** len(feature.columns), dim=feature.dim, mapping="identity", init=feature.init
        )
    if feature.kind == "cross":
        return Table(name=feature.name, rows=feature.rows, dim=feature.dim, mapping="identity", init=feature.init)
    rows = (len(feature.edges) or feature.buckets - 1) + 2
    return Table(name=feature.name, rows=rows, dim=feature.dim, mapping="identity", init=feature.init)
