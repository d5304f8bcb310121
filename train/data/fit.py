"""What the encoder learns from the training data before the first step: vocabularies, bucket edges, means and deviations.

Only the splits that the run trains on are read. Growing tables begin empty.
"""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from coldrank.models.encode import Bucketize, FeatureEncoder
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.models.maps import VocabularyMap
from coldrank.train.errors import UserError

# Quantiles and moments are taken over about this many rows, evenly spaced: their error is far below a bucket's width.
SAMPLE_ROWS = 2_000_000


def fit_encoder(encoder: FeatureEncoder, paths: list[Path]) -> None:
    """Sets the encoder's buffers from the Parquet files."""
    frame = pl.scan_parquet(paths, hive_partitioning=False)
    rows = frame.select(pl.len()).collect().item()
    if rows == 0:
        raise UserError(f"{paths[0].parent}: no rows to train on")
    for table in encoder.features.tables:
        if table.mapping == "vocabulary":
            module = encoder.maps[table.name]
            assert isinstance(module, VocabularyMap)
            module.set(torch.from_numpy(_vocabulary(frame, encoder.features, table)))
    numbers = [f for f in encoder.features.features if f.kind in ("number", "bucket")]
    columns = sorted({f.raw_columns[0] for f in numbers})
    sample = frame.select(columns).gather_every(max(1, rows // SAMPLE_ROWS)).collect()
    for f in encoder.features.sparse:
        if f.kind == "bucket" and not f.edges:
            _fit_edges(encoder.buckets[f.name], _known(sample, f), f.buckets)
    _fit_moments(encoder, sample)


def _known(sample: pl.DataFrame, f: Feature) -> np.ndarray:
    return sample[f.raw_columns[0]].drop_nulls().to_numpy().astype(np.float64)


def _vocabulary(frame: pl.LazyFrame, features: FeatureSet, table: Table) -> np.ndarray:
    """Ids of the table's features outside sequences (a past item was a candidate once), most frequent first."""
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


def _fit_moments(encoder: FeatureEncoder, sample: pl.DataFrame) -> None:
    """Mean and deviation of each transformed number over the rows that have it."""
    numbers = encoder.features.numbers
    if not numbers:
        return
    columns = [pl.col(f.raw_columns[0]).cast(pl.Float64).fill_null(float("nan")).alias(f.name) for f in numbers]
    t = encoder.numbers.transform(torch.from_numpy(sample.select(columns).to_numpy(writable=True)))
    mean = torch.nanmean(t, 0)
    deviation = torch.nanmean((t - mean) ** 2, 0).sqrt().clamp(min=1e-6)
    # A column without a single value is 0 wherever it stands.
    encoder.numbers.moments.copy_(torch.nan_to_num(torch.stack([mean, deviation], 1), nan=1.0))


def _fit_edges(module: torch.nn.Module, values: np.ndarray, buckets: int) -> None:
    """Quantiles as edges; equal ones are kept once, and the freed buckets stay empty."""
    assert isinstance(module, Bucketize)
    module.edges.fill_(float("inf"))
    if len(values):
        edges = np.unique(np.quantile(values, np.arange(1, buckets) / buckets))
        module.edges[: len(edges)] = torch.from_numpy(edges)
