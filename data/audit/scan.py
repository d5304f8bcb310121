"""One pass over prepared data: figures of every column and file, the keys of all rows, and a sample of whole rows.

Memory: a batch of rows, some 50 bytes per row for the keys and labels, and the sample.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm

from coldrank.data import parquet
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.data.log import SAMPLED

LabelProblem = Callable[[NDArray[np.floating[Any]]], tuple[NDArray[np.bool_], str]]
# Rows decoded at a time.
BATCH_ROWS = 65_536
# Rows of each split that are kept whole, evenly spaced.
SAMPLE_ROWS = 200_000
# Columns of the sampled rows: the row in `keys`, and how often the history holds the row's item.
ROW, SELF = "row:", "self:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What a column may hold."""

    low: float | None = None
    """The least value; None: any."""
    high: float | None = None
    """The greatest value; None: any."""
    nullable: bool = True
    """Whether a value may be missing."""
    default: int | None = None
    """The value that stands for a missing one."""
    binary: bool = False
    """Whether it holds nothing but 0 and 1."""
    whole: bool = False
    """Whether it holds whole numbers alone, in a column of any type."""
    problem: LabelProblem | None = None
    """Of a label whose head is known: which values [N] cannot be, bool [N], and why."""


@dataclass(slots=True)
class ColumnStats:
    """Figures of a column."""

    rows: int = 0
    """Rows."""
    values: int = 0
    """Values; of a list column its elements."""
    nulls: int = 0
    """Missing values."""
    nans: int = 0
    """NaN."""
    infinite: int = 0
    """Infinite values."""
    outside: int = 0
    """Values outside the rule."""
    defaults: int = 0
    """Values equal to the default."""
    low: Any = None
    """The least value."""
    high: Any = None
    """The greatest value."""
    first_bad: int | None = None
    """The file's first row that breaks the rule, counted from 1."""

    def add(self, other: "ColumnStats") -> None:
        """Takes in the figures of more rows of the column."""
        for name in ("rows", "values", "nulls", "nans", "infinite", "outside", "defaults"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.low is not None:
            self.low = other.low if self.low is None else min(self.low, other.low)
            self.high = other.high if self.high is None else max(self.high, other.high)
        self.first_bad = other.first_bad if self.first_bad is None else self.first_bad


@dataclass(slots=True)
class Scan:
    """What the checks look at: first the plan, then, after `scan`, the figures as well."""

    folder: DataFolder
    """The data."""
    parts: list[dict[str, Any]]
    """The manifest's partitions."""
    rules: dict[str, Rule]
    """Column -> what it may hold."""
    features: list[str]
    """The columns examined as inputs of a model."""
    tasks: list[str]
    """The tasks whose labels are examined, of 0 and 1."""
    fit: tuple[str, ...]
    """The splits trained on."""
    evaluate: str
    """The split reported."""
    numbers: list[str] = field(default_factory=list)
    """The tasks whose labels are numbers or levels."""
    stats: dict[tuple[int, str], ColumnStats] = field(default_factory=dict)
    """Number of a partition and column -> figures."""
    keys: pl.DataFrame = field(default_factory=pl.DataFrame)
    """user_id, item_id, time int64, label_<task> int8 (of numbers float32), part uint32, and sampled bool, whether it
    is a sampled negative, of all rows in the order of the files."""
    sample: pl.DataFrame = field(default_factory=pl.DataFrame)
    """The rows of every split that are kept.

    Scalar columns are as they are. Of a list column `c` there are its first element `c[0]` and its length `c.len`.
    `row:` is the row in `keys`. `self:` is how often the history holds the item of the sample.
    """
    unordered: dict[int, int] = field(default_factory=dict)
    """Number of a partition -> its first row whose time is before that of the row above."""
    aligned: dict[str, tuple[str, str]] = field(default_factory=dict)
    """List column -> what it shares the lengths of its lists with, and what findings call these columns."""
    misaligned: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    """Number of a partition, and such columns -> the first row, and how many, whose lists differ in length."""

    def events(self) -> "Scan":
        """The rows that are events of the log, without sampled negatives."""
        is_event = ~self.keys[SAMPLED]
        if is_event.all():
            return self
        sample = self.sample.filter(is_event[self.sample[ROW]])
        place = (is_event.cast(pl.Int64).cum_sum() - 1)[sample[ROW]]
        return replace(self, keys=self.keys.filter(is_event), sample=sample.with_columns(place.alias(ROW)))

    def figures(self, column: str, *splits: str) -> ColumnStats:
        """Figures of a column in the splits; without any, in all."""
        total = ColumnStats()
        for i, part in enumerate(self.parts):
            if (i, column) in self.stats and (not splits or part["split"] in splits):
                total.add(self.stats[i, column])
        return total

    def cell(self, name: str) -> pl.Expr:
        """A field of the partitions (split, period) by the column `part`."""
        values = [str(p[name]) for p in self.parts]
        return pl.col("part").replace_strict(list(range(len(values))), values, return_dtype=pl.String)

    def high(self, task: str) -> pl.Expr:
        """Whether a label is high, null where it is unknown: 1, or of numbers above `bound`."""
        label = pl.col(f"label_{task}")
        return label == 1 if task in self.tasks else label > self.bound(task)

    def bound(self, task: str) -> float:
        """Mean of a number's known labels in the splits trained on; nan without any."""
        trained = self.cell("split").is_in(list(self.fit))
        mean = self.keys.filter(trained)[f"label_{task}"].cast(pl.Float64).mean()
        return float(mean) if isinstance(mean, float) else float("nan")

    def sampled(self, *splits: str) -> pl.DataFrame:
        """The sampled rows of the splits, with their labels."""
        labels = [f"label_{t}" for t in [*self.tasks, *self.numbers]]
        keys = self.keys.select("part", *labels)[self.sample[ROW]]
        inside = keys.select(self.cell("split").is_in(list(splits))).to_series()
        return self.sample.drop(labels).hstack(keys.select(labels)).filter(inside)


def scan(plan: Scan) -> Scan:
    """Reads all files of the plan, once, and fills in its figures. Raises UserError if they hold no sample."""
    sizes = [parquet.rows(plan.folder.path / p["path"]) for p in plan.parts]
    by_split: dict[str, int] = {}
    for part, size in zip(plan.parts, sizes, strict=True):
        by_split[part["split"]] = by_split.get(part["split"], 0) + size
    keys: list[pl.DataFrame] = []
    sample: list[pl.DataFrame] = []
    row = 0
    with tqdm(total=sum(sizes), desc="checking", unit="row", unit_scale=True, disable=None) as bar:
        for index, part in enumerate(plan.parts):
            step = spacing(by_split[part["split"]], plan.folder.manifest.get("negatives"))
            last, start = None, 0
            with parquet.opened(plan.folder.path / part["path"]) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=list(plan.rules)):
                    keys.append(_keys(batch, plan, index))
                    sample.append(_sample(batch, plan, row, step))
                    _measure_batch(batch, plan, index, start)
                    last = _check_order(keys[-1]["time"], last, plan, index, start)
                    start, row = start + len(batch), row + len(batch)
                    bar.update(len(batch))
    if not row:
        raise UserError(f"{plan.folder.path}: no samples in its {len(plan.parts)} files")
    plan.keys, plan.sample = pl.concat(keys), pl.concat(sample, how="vertical_relaxed")
    return plan


def spacing(rows: int, negatives: Mapping[str, Any] | None) -> int:
    """Every so many-th row of a split is kept, of events and of their negatives, which come in a rhythm, alike."""
    step = -(-rows // SAMPLE_ROWS)
    while negatives and math.gcd(step, 1 + negatives["per_positive"]) > 1:
        step += 1
    return step


def _keys(batch: pa.RecordBatch, plan: Scan, index: int) -> pl.DataFrame:
    kinds = {f"label_{t}": pl.Int8 for t in plan.tasks} | {f"label_{t}": pl.Float32 for t in plan.numbers}
    names = ["user_id", "item_id", "time", *kinds]
    frame = pl.DataFrame(pl.from_arrow(pa.table([batch.column(n) for n in names], names)))
    labels = [pl.col(n).cast(pl.Float64).fill_nan(None).cast(kind, strict=False) for n, kind in kinds.items()]
    ids = [pl.col(n).cast(pl.Int64).fill_null(0) for n in names[:3]]
    sampled = batch.column(SAMPLED).to_numpy() == 1 if SAMPLED in plan.rules else np.zeros(len(frame), bool)
    return frame.select(*ids, *labels, pl.lit(index, pl.UInt32).alias("part"), pl.Series(SAMPLED, sampled))


def _sample(batch: pa.RecordBatch, plan: Scan, row: int, step: int) -> pl.DataFrame:
    index = pa.array(range(-row % step, len(batch), step), pa.int64())
    taken = batch.take(index)
    frame = pl.DataFrame(pl.from_arrow(taken))
    lists = [n for n, kind in frame.schema.items() if isinstance(kind, pl.List)]
    columns: list[pl.Expr | pl.Series] = [pl.col(n).list.first().alias(f"{n}[0]") for n in lists]
    columns += [pl.col(n).list.len().alias(f"{n}.len") for n in lists]
    if "hist_item_id" in lists:
        columns.append(_times_in_history(taken.column("hist_item_id"), frame["item_id"]))
    rows = pl.Series(ROW, row + index.to_numpy(), pl.Int64)
    return frame.select(pl.exclude(lists), *columns).with_columns(rows)


def _times_in_history(histories: pa.Array, item: pl.Series) -> pl.Series:
    """How often each history holds the item of its sample: int64 [N]."""
    lengths = pl.Series(pl.from_arrow(pc.list_value_length(histories))).fill_null(0).to_numpy()
    row = np.repeat(np.arange(len(item)), lengths)
    hits = row[histories.flatten().to_numpy(zero_copy_only=False) == item.to_numpy()[row]]
    return pl.Series(SELF, np.bincount(hits, minlength=len(item)), pl.Int64)


def _measure_batch(batch: pa.RecordBatch, plan: Scan, index: int, start: int) -> None:
    lengths: dict[str, np.ndarray] = {}
    for name, rule in plan.rules.items():
        array = batch.column(name)
        ends = None
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            ends = np.asarray(array.offsets)[1:] - array.offsets[0].as_py()
            lengths[name] = np.diff(ends, prepend=0)
            array = array.flatten()
        figures = measure(pl.Series(pl.from_arrow(array)), rule, start, ends)
        figures.rows = len(batch)
        plan.stats.setdefault((index, name), ColumnStats()).add(figures)
    first: dict[str, np.ndarray] = {}
    differ: dict[str, np.ndarray] = {}
    for name, (group, where) in ((n, plan.aligned[n]) for n in lengths if n in plan.aligned):
        unlike = lengths[name] != first.setdefault(group, lengths[name])
        differ[where] = differ.get(where, unlike) | unlike
    for where, unlike in ((where, unlike) for where, unlike in differ.items() if unlike.any()):
        row, rows = plan.misaligned.get((index, where), (start + int(unlike.argmax()) + 1, 0))
        plan.misaligned[index, where] = row, rows + int(unlike.sum())


def measure(values: pl.Series, rule: Rule, start: int, ends: np.ndarray | None) -> ColumnStats:
    """Figures of some values [V].

    start: rows of the file before. ends: of a list column, where each row's values end, int64 [N]; else None.
    """
    figures = ColumnStats(values=len(values), nulls=values.null_count(), low=values.min(), high=values.max())
    if values.dtype.is_float():
        figures.nans, figures.infinite = int(values.is_nan().sum()), int(values.is_infinite().sum())
        known = values.filter(values.is_finite())
        figures.low, figures.high = known.min(), known.max()
    if rule.default is not None:
        figures.defaults = int((values == rule.default).sum())
    if _all_good(figures, rule):
        return figures
    bad = _bad(values, rule)
    if bad.any():
        figures.outside = int(bad.sum()) - figures.nans - figures.infinite - (0 if rule.nullable else figures.nulls)
        first = int(bad.arg_true()[0])
        row = first if ends is None else int(np.searchsorted(ends, first, side="right"))
        figures.first_bad = start + 1 + row
    return figures


def _all_good(figures: ColumnStats, rule: Rule) -> bool:
    """Whether the figures alone show that no value breaks the rule, without a look at each."""
    if figures.nans or figures.infinite or (figures.nulls and not rule.nullable):
        return False
    if figures.low is None:
        return True
    low, high = (0, 1) if rule.binary else (rule.low, rule.high)
    return (
        (low is None or figures.low >= low)
        and (high is None or figures.high <= high)
        and not (rule.binary and isinstance(figures.low, float))
        and not (rule.whole and isinstance(figures.low, float))
        and rule.problem is None
    )


def _bad(values: pl.Series, rule: Rule) -> pl.Series:
    """Which values break the rule: bool, as long as the values."""
    bad = values.is_null() if not rule.nullable else pl.repeat(False, len(values), eager=True)
    if values.dtype.is_float():
        bad = bad | (~values.is_finite()).fill_null(False)
    if rule.low is not None:
        bad = bad | (values < rule.low).fill_null(False)
    if rule.high is not None:
        bad = bad | (values > rule.high).fill_null(False)
    if rule.binary:
        bad = bad | ((values != 0) & (values != 1)).fill_null(False)
    if rule.whole:
        bad = bad | (values != values.round()).fill_null(False)
    if rule.problem is not None:
        known = values.cast(pl.Float64).fill_null(float("nan"))
        wrong = pl.Series(rule.problem(known.to_numpy())[0])
        bad = bad | (wrong & known.is_finite())
    return bad


def _check_order(time: pl.Series, last: int | None, plan: Scan, index: int, start: int) -> int | None:
    line = time if last is None else pl.concat([pl.Series("time", [last], pl.Int64), time])
    back = (line.diff() < 0).arg_true()
    if len(back) and index not in plan.unordered:
        plan.unordered[index] = start + int(back[0]) + (1 if last is None else 0)
    return int(time[-1]) if len(time) else last
