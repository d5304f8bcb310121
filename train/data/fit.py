"""What the encoder learns from the training data before the first step: vocabularies, bucket edges, means and deviations.

Only the splits that the run trains on are read.
"""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from coldrank.models.encode import Bucketize, FeatureEncoder, Standardize, VocabularyMap
from coldrank.models.features import FeatureSet, Table
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
    for f in numbers:
        values = sample[f.raw_columns[0]].drop_nulls().to_numpy().astype(np.float64)
        if f.kind == "number":
            _fit_moments(encoder.numbers[f.name], values)
        elif not f.edges:
            _fit_edges(encoder.buckets[f.name], values, f.buckets)


def _vocabulary(frame: pl.LazyFrame, features: FeatureSet, table: Table) -> np.ndarray:
    """Ids of the table's features outside sequences (a past item was a candidate once), most frequent first."""
    used = [f for f in features.by_table[table.name] if f.role != "sequence"]
    parts = []
    for f in used:
        column = pl.col(f.raw_columns[0])
        parts.append(frame.select((column.explode() if f.many else column.fill_null(f.default)).cast(pl.Int64).alias("id")))
    counts = pl.concat(parts).drop_nulls().group_by("id").len().filter(pl.col("len") >= table.min_count)
    kept = counts.sort(["len", "id"], descending=[True, False]).head(table.rows - 1).collect()
    return kept["id"].to_numpy().copy()


def _fit_moments(module: torch.nn.Module, values: np.ndarray) -> None:
    assert isinstance(module, Standardize)
    t = module.transform(torch.from_numpy(values))
    if len(t):
        module.moments.copy_(torch.stack([t.mean(), t.std(correction=0).clamp(min=1e-6)]))


def _fit_edges(module: torch.nn.Module, values: np.ndarray, buckets: int) -> None:
    """Quantiles as edges; equal ones are kept once, and the freed buckets stay empty."""
    assert isinstance(module, Bucketize)
    module.edges.fill_(float("inf"))
    if len(values):
        edges = np.unique(np.quantile(values, np.arange(1, buckets) / buckets))
        module.edges[: len(edges)] = torch.from_numpy(edges)
