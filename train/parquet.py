"""Parquet as polars frames: a path is one file, whatever characters it holds, and names of folders give no columns."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl


def scan_parquet(paths: Path | Sequence[Path]) -> pl.LazyFrame:
    """The rows of some files, lazily. Raises polars' errors."""
    return pl.scan_parquet(_absolute(paths), glob=False, hive_partitioning=False)


def read_parquet(paths: Path | Sequence[Path], columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The rows of some files. columns: None for all. Raises polars' errors."""
    wanted = None if columns is None else list(columns)
    return pl.read_parquet(_absolute(paths), columns=wanted, glob=False, hive_partitioning=False)


def _absolute(paths: Path | Sequence[Path]) -> Path | list[Path]:
    """polars takes a relative path that begins with ~ for a home."""
    return paths.absolute() if isinstance(paths, Path) else [p.absolute() for p in paths]
