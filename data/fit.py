"""What the encoder learns from the training data before the first step.

That is vocabularies, bucket edges, means and deviations. Only the splits that the run trains on are read. Growing
tables begin empty.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from coldrank.data import parquet
from coldrank.data.errors import UserError
from coldrank.models.encode import Bucketize, FeatureEncoder, PositionNumbers, Standardize
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.models.ids.maps import VocabularyMap

# Quantiles and moments are taken over about this many rows, evenly spaced: their error is far below a bucket's width.
SAMPLE_ROWS = 2_000_000
# Values that are read at once, of as many whole columns: 256 MB; one column always is.
READ_VALUES = 32_000_000


def fit_encoder(encoder: FeatureEncoder, paths: list[Path]) -> None:
    """Sets the encoder's buffers from the Parquet files."""
    with parquet.scanned(paths) as frame:
        _fit(encoder, frame, paths)


def fitted(encoder: FeatureEncoder) -> list[Tensor]:
    """The buffers that `fit_encoder` sets."""
    vocabularies = [m.ids for m in encoder.maps.values() if isinstance(m, VocabularyMap)]
    edges = [m.edges for m in encoder.buckets.values() if isinstance(m, Bucketize)]
    of_positions = [m.standardize.moments for m in encoder.of_floats.values() if isinstance(m, PositionNumbers)]
    return [*vocabularies, *edges, encoder.numbers.moments, *of_positions]


def _fit(encoder: FeatureEncoder, frame: pl.LazyFrame, paths: list[Path]) -> None:
    rows = frame.select(pl.len()).collect().item()
    if rows == 0:
        raise UserError(f"{paths[0].parent}: no rows to train on")
    for table in encoder.features.tables:
        if table.mapping == "vocabulary":
            module = encoder.maps[table.name]
            assert isinstance(module, VocabularyMap)
            module.set(torch.from_numpy(_vocabulary(frame, encoder.features, table)))
    buckets = [f for f in encoder.features.sparse if f.kind == "bucket" and not f.edges]
    numbers = [(f, moments) for f, moments in zip(encoder.features.numbers, encoder.numbers.moments, strict=True)]
    for f in encoder.features.floats:
        module = encoder.of_floats[f.name]
        if isinstance(module, PositionNumbers):
            numbers.append((f, module.standardize.moments[0]))
    for column in _samples(frame, rows, [f.raw_columns[0] for f in (*buckets, *(f for f, _ in numbers))]):
        for f in buckets:
            if f.raw_columns[0] == column.name:
                _fit_edges(encoder.buckets[f.name], column.drop_nulls().to_numpy(), f.buckets)
        for f, moments in numbers:
            if f.raw_columns[0] == column.name:
                _fit_moments(moments, f, column)


def _samples(frame: pl.LazyFrame, rows: int, columns: Iterable[str]) -> Iterator[pl.Series]:
    """Evenly spaced rows of each column, of lists their values, as Float64, null where one is missing.

    Reading opens every file: few columns at a time would take long where files are many, and all of them memory where
    rows are.
    """
    names, at_once = list(dict.fromkeys(columns)), max(1, READ_VALUES // rows)
    for start in range(0, len(names), at_once):
        some = frame.select(names[start : start + at_once]).gather_every(max(1, rows // SAMPLE_ROWS)).collect()
        for column in some:
            if isinstance(column.dtype, pl.List):
                column = column.explode()
                column = column.gather_every(max(1, len(column) // SAMPLE_ROWS))
            yield column.cast(pl.Float64)


def _vocabulary(frame: pl.LazyFrame, features: FeatureSet, table: Table) -> np.ndarray:
    """Ids of the table's features, int64 [N], most frequent first.

    Sequences are not counted: a past item was a candidate once.
    """
    # A column that two features read (an input that is the personalization code as well) counts once.
    used = {f.raw_columns[0]: f for f in features.by_table[table.name] if f.role != "sequence"}
    parts = []
    for f in used.values():
        column = pl.col(f.raw_columns[0])
        parts.append(
            frame.select((column.explode() if f.many else column.fill_null(f.default)).cast(pl.Int64).alias("id"))
        )
    counts = pl.concat(parts).drop_nulls().group_by("id").len().filter(pl.col("len") >= table.min_count)
    kept = counts.sort(["len", "id"], descending=[True, False]).head(table.rows - 1).collect()
    return kept["id"].to_numpy().copy()


def _fit_moments(moments: Tensor, f: Feature, column: pl.Series) -> None:
    """Mean and deviation of a transformed number over the rows that have it."""
    values = torch.from_numpy(column.fill_null(float("nan")).to_numpy(writable=True))
    t = Standardize([f.transform]).transform(values.unsqueeze(1)).squeeze(1)
    mean = torch.nanmean(t)
    deviation = torch.nanmean((t - mean) ** 2).sqrt().clamp(min=1e-6)
    # A column without a single value is 0 wherever it stands.
    moments.copy_(torch.nan_to_num(torch.stack([mean, deviation]), nan=1.0))


def _fit_edges(module: torch.nn.Module, values: np.ndarray, buckets: int) -> None:
    """Quantiles as edges; equal ones are kept once, and the freed buckets stay empty."""
    assert isinstance(module, Bucketize)
    module.edges.fill_(float("inf"))
    if len(values):
        edges = np.unique(np.quantile(values, np.arange(1, buckets) / buckets))
        module.edges[: len(edges)] = torch.from_numpy(edges)
