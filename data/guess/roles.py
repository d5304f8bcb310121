"""What the columns of a log are: a guess by their names and their values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import polars as pl

from coldrank.data.audit.features import crossed_auc, encodings
from coldrank.data.guess import names
from coldrank.data.guess.moments import Clock, clock
from coldrank.data.ids import is_text
from coldrank.data.vectors import is_vector
from coldrank.data.weighted import ids_of, is_weighted

Kind = Literal["category", "number", "count", "list", "split", "vector", "weighted"]
# Up to so many values an integer is a category, whatever its name says.
_FEW = 20
# Above this share of values of their own, a column names its row: a request, a text.
_OWN = 0.5
_EACH = 0.95
# From here on a number is large.
_FAR = 50
# Alone it ranks an outcome so well: it is rather known with it, or after it.
_TELLS = 0.9
# An owner shows whether a column is his if so many of his events do.
_OWNERS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A column that is an input."""

    name: str
    """Without the prefix of its table."""
    source: str
    """The column."""
    kind: Kind
    """What it is."""
    values: int
    """How many distinct ones it has."""
    separator: str = ""
    """Of `split`: what stands between the parts of its text."""
    length: int = 0
    """Of `vector`: how many numbers it has."""


@dataclass(kw_only=True, slots=True)
class Outcomes:
    """Labels."""

    flags: dict[str, str] = field(default_factory=dict)
    """Task -> its column of 0 and 1."""
    events: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Task -> the column and its value that mean 1."""
    ratings: dict[str, float] = field(default_factory=dict)
    """Column of a rating -> from where on it is a good one."""
    numbers: dict[str, str] = field(default_factory=dict)
    """Task -> its column of numbers."""

    @property
    def sources(self) -> set[str]:
        """All columns."""
        return {*self.flags.values(), *self.numbers.values(), *self.ratings, *(c for c, _ in self.events.values())}

    def __bool__(self) -> bool:
        return bool(self.sources)


def find_id(rows: pl.DataFrame, wanted: tuple[str, ...], taken: set[str]) -> str | None:
    """The column whose name says that it is an id of `wanted`; None: no name does."""
    ranks = {
        n: r
        for n in rows.columns
        if n not in taken and _may_be_id(rows[n]) and (r := names.rank(n, wanted)) is not None
    }
    return min(ranks, key=lambda n: ranks[n]) if ranks else None


def likely_item(rows: pl.DataFrame, taken: set[str]) -> str | None:
    """Where no name says what is shown: the id with the most values, of those that come back; None: nothing is."""
    counts = {n: rows[n].n_unique() for n in rows.columns if n not in taken and _may_be_id(rows[n])}
    counts = {n: c for n, c in counts.items() if _FEW < c <= _OWN * len(rows)}
    coded = {n: c for n, c in counts.items() if is_text(rows[n].dtype) or names.CODE & set(names.words(n))}
    counts = coded or counts
    return max(counts, key=lambda n: counts[n]) if counts else None


def _may_be_id(values: pl.Series) -> bool:
    """Text, and whole numbers: pandas writes integers beside empty cells as floats."""
    if values.null_count() == len(values):
        return False
    return is_text(values.dtype) or (values.dtype.is_numeric() and _is_whole(values))


def _is_whole(values: pl.Series) -> bool:
    """Whether all numbers are integers, however they are stored."""
    if values.dtype.is_integer():
        return True
    known = values.cast(pl.Float64).drop_nulls()
    return bool(len(known) and (known.is_finite() & (known == known.round())).all())


def find_time(rows: pl.DataFrame, taken: set[str]) -> tuple[str, Clock] | None:
    """The column that says when an event was: of those whose names or values say so, the one with the most values."""
    free = [n for n in rows.columns if n not in taken and names.words(n)[-1:] != ("id",)]
    found = {n: how for n in free if (how := clock(rows[n]))}
    said = {n: bool(names.TIME & set(names.words(n))) for n in found}
    # A number may be anything; a text that is a time throughout is one.
    sure = [n for n in found if said[n] or not rows[n].dtype.is_numeric()]
    if not found:
        return None

    def order(name: str) -> tuple[bool, bool, bool, int]:
        born = bool(names.BIRTH & set(names.words(name)))
        return not rows[name].null_count(), said[name], not born, rows[name].n_unique()

    best = max(sure or found, key=order)
    return best, found[best]


def outcomes(rows: pl.DataFrame, taken: set[str]) -> Outcomes:
    """What the names and the values say are outcomes."""
    found = Outcomes()
    for name in (n for n in rows.columns if n not in taken):
        values, said = rows[name], set(names.words(name))
        if (yes := _yes(values)) and said <= names.FLAG | names.DONE:
            found.events[names.plain_name(name, "is")] = (name, yes)
        elif _is_flag(values) and said & names.FLAG and not said & {"user", "item"}:
            found.flags[names.plain_name(name, "is")] = name
        elif values.dtype.is_numeric() and said & names.RATING and 2 < values.n_unique() <= 2 * _FEW + 1:
            found.ratings[name] = _good_from(values)
        elif is_text(values.dtype) and said & names.EVENT and 2 <= values.drop_nulls().n_unique() <= 12:
            found.events |= _events(name, values)
        elif values.dtype.is_numeric() and said & names.NUMBER | said & names.RATING and values.n_unique() > _FEW:
            found.numbers[names.plain_name(name)] = name
    if not found:
        flags = [n for n in rows.columns if n not in taken and _is_flag(rows[n])]
        prefixed = [n for n in flags if names.words(n)[:1] == ("is",)]
        found.flags = {names.plain_name(n, "is"): n for n in (prefixed or flags)[:1]}
    return found


def odd_outcome(rows: pl.DataFrame, taken: set[str]) -> str:
    """A column with the name of an outcome that is not 0 and 1, and what it is; empty: there is none, or it is 1
    throughout, as in a log of positives."""
    named = (n for n in rows.columns if n not in taken and set(names.words(n)) <= names.FLAG | names.DONE)
    for name in named:
        values = rows[name].drop_nulls()
        if not (values.dtype in (pl.Boolean, pl.String) or values.dtype.is_numeric()):
            continue
        few = values.unique().sort()
        if len(few) == 2 or (len(few) == 1 and not few[0]):
            return f"column {name} is {' or '.join(str(v) for v in few)} in all {len(rows):,} rows that were looked at"
    return ""


def _yes(values: pl.Series) -> str:
    """Which of two texts means 1; empty: these are no such texts."""
    if not is_text(values.dtype) or values.dtype == pl.Binary:
        return ""
    found = values.cast(pl.String).drop_nulls().unique().to_list()
    return next(
        (v for v in found if len(found) == 2 and {w.lower() for w in found} in names.YES_NO and v.lower() in names.YES),
        "",
    )


def _is_flag(values: pl.Series) -> bool:
    if values.dtype == pl.Boolean:
        return values.n_unique() > 1
    known = values.drop_nulls()
    return bool(values.dtype.is_numeric() and set(known.unique().to_list()) == {0, 1})


def _good_from(values: pl.Series) -> float:
    """From where on a rating is nearest to being one of the better half."""
    steps = values.drop_nulls().unique().sort()[1:]
    shares = [abs(float((values >= step).mean() or 0) - 0.5) for step in steps]
    return float(steps[int(np.argmin(shares))])


def _events(name: str, values: pl.Series) -> dict[str, tuple[str, str]]:
    known = values.cast(pl.String).drop_nulls().unique().sort().to_list()
    shown = [v for v in known if set(names.words(v)) & names.SHOWN]
    return {names.plain_name(v): (name, v) for v in known if v not in shown}


def find_weight(rows: pl.DataFrame, taken: set[str]) -> str | None:
    """A column of weights: numbers not below 0, of every event."""
    named = [n for n in rows.columns if n not in taken and names.WEIGHT & set(names.words(n))]
    fits = [n for n in named if rows[n].dtype.is_numeric() and not rows[n].null_count() and (rows[n] >= 0).all()]
    return fits[0] if fits else None


def find_birth(rows: pl.DataFrame, taken: set[str], item: str, *, whole: bool = False) -> str | None:
    """A column that says when an item appeared. whole: the rows are the items', once each."""
    for name in (n for n in rows.columns if n not in taken):
        if names.BIRTH & set(names.words(name)) and (how := clock(rows[name])) and how.layout is None:
            is_text_or_date = not rows[name].dtype.is_numeric() or how.unit == "ms"
            if is_text_or_date and (whole or owned(rows, item, name)):
                return name
    return None


def owned(rows: pl.DataFrame, owner: str, column: str) -> bool:
    """Whether a column is the owner's: the same in all of his events, of enough owners with several."""
    counts = (
        rows.select(owner, column).drop_nulls(owner).group_by(owner).agg(pl.len(), pl.col(column).n_unique().alias("n"))
    )
    several = counts.filter(pl.col("len") > 1)
    return len(several) >= _OWNERS and bool((several["n"] == 1).all())


def inputs(rows: pl.DataFrame, taken: set[str], prefix: str = "") -> tuple[list[Found], dict[str, str]]:
    """The columns that may be inputs, and why the others are not."""
    found, left = [], {}
    for name in (n for n in rows.columns if n not in taken):
        kind = _kind(rows[name], name) if name.strip() else "without a name: the number of its row?"
        if kind in get_args(Kind):
            separator = _separator(rows[name]) if kind == "split" else ""
            column = Found(
                name=names.plain_name(name, prefix),
                source=name,
                kind=kind,  # type: ignore[arg-type]
                values=_parts(rows[name], separator),
                separator=separator,
                length=_lengths(rows[name])[0] if kind == "vector" else 0,
            )
            found.append(column)
        else:
            left[name] = kind
    return found, left


def tells(rows: pl.DataFrame, column: str, labels: Outcomes) -> str:
    """Why a column is rather known with an outcome than before it; empty: nothing says so."""
    values, said = rows[column], names.words(column)
    if set(said) & (names.NUMBER | names.AFTER):
        return "an outcome, by its name"
    if said[:1] in (("is",), ("has",), ("did",)) and _is_flag(values):
        return "0 and 1 like the outcomes: is it known before them?"
    if values.dtype.is_nested():
        return ""
    flags = {t: rows[n].cast(pl.Int8) for t, n in labels.flags.items()}
    flags |= {t: (rows[n].cast(pl.String) == value).cast(pl.Int8) for t, (n, value) in labels.events.items()}
    flags |= {n: (rows[n] >= good).cast(pl.Int8) for n, good in labels.ratings.items()}
    for task, flag in flags.items():
        y = flag.fill_null(-1).to_numpy()
        if min((y == 1).sum(), (y == 0).sum()) < _OWNERS:
            continue
        auc = max(crossed_auc(codes, y) for codes in encodings(values))
        if auc >= _TELLS:
            return f"alone it ranks {task} with an AUC of {auc:.2f}: is it known before?"
    return ""


def _lengths(values: pl.Series) -> list[int]:
    """How long the vectors of a column are, each length once; none of those that are not known."""
    lists = values.arr.to_list() if isinstance(values.dtype, pl.Array) else values
    return sorted(set(lists.list.len().drop_nulls().to_list()) - {0})


def _parts(values: pl.Series, separator: str) -> int:
    if separator:
        values = values.str.split(separator)
    if is_vector(values.dtype):
        return 0
    if is_weighted(values.dtype):
        values = ids_of(values)
    if isinstance(values.dtype, pl.List | pl.Array):
        values = values.explode()
    return values.drop_nulls().n_unique()


def _kind(values: pl.Series, name: str) -> str:
    """The kind of an input, or why it is none."""
    kind, known = values.dtype, values.drop_nulls()
    if is_weighted(kind):
        inner = kind if isinstance(kind, pl.Struct) else kind.inner  # type: ignore[attr-defined]
        return "weighted" if len(inner.fields) == 2 else f"of type {kind}"
    if isinstance(kind, pl.List | pl.Array):
        if is_vector(kind):
            lengths = _lengths(values)
            return "vector" if len(lengths) == 1 else f"lists of {len(lengths)} lengths"
        inner = kind.inner
        assert isinstance(inner, pl.DataType)
        return "list" if inner.is_integer() or is_text(inner) else f"a list of {inner}"
    if known.n_unique() <= 1:
        return "the same everywhere" if len(known) else "empty"
    said, distinct = set(names.words(name)), known.n_unique()
    if kind.is_temporal() or (said & (names.TIME | names.BIRTH) and clock(known)):
        return "a time; an expression makes a feature of it"
    if not (is_text(kind) or kind.is_numeric() or kind == pl.Boolean):
        return f"of type {kind}"
    if is_text(kind):
        if _separator(values):
            return "split"
        if distinct > _OWN * len(known) and distinct > _FEW:
            return "another in nearly every row: a text, or the id of a request"
        return "category"
    if kind.is_float() and not bool((known == known.round()).all()):
        return _scale(known)
    if distinct > _EACH * len(known) and distinct > _FEW and said & names.CODE:
        return "another in nearly every row"
    if said & names.CODE or distinct <= _FEW or kind == pl.Boolean:
        return "category"
    return _scale(known)


def _scale(known: pl.Series) -> str:
    """Numbers from 0 on that reach far are taken by their logarithm."""
    return "count" if (known >= 0).all() and (known >= _FAR).any() else "number"


def _separator(values: pl.Series) -> str:
    """What stands between the parts of texts like `Comedy|Drama`; empty: nothing."""
    if not is_text(values.dtype) or values.dtype == pl.Binary:
        return ""
    known = values.cast(pl.String).drop_nulls()
    for separator, share in (("|", 1.0), (";", 0.5), (",", 0.5)):
        holds = known.str.contains(separator, literal=True).sum() / max(1, len(known))
        parts = known.str.split(separator).explode().n_unique()
        if holds > 0.2 and parts < share * known.n_unique():
            return separator
    return ""


def groups_of(found: Mapping[str, Found], items: int) -> list[str]:
    """Which features of items part them into groups worth counting: few enough, and more than two."""
    fits = [n for n, f in found.items() if f.kind == "category" and 2 < f.values <= max(3, items // 2)]
    return sorted(fits, key=lambda n: -found[n].values)[:3]
