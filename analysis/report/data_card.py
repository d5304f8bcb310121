"""The data card: what the runs were trained and tested on, from the prepared folder's manifest and samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from coldrank.analysis.report.picture import INK, panel, svg
from coldrank.analysis.report.words import Picture, plain
from coldrank.data import parquet
from coldrank.data.errors import UserError
from coldrank.data.read_manifest import read_manifest

SPLITS = ("train", "valid", "embargo", "test")
MAX_MISSING = 30


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """A split of the data."""

    name: str
    """The split."""
    rows: int
    """Its rows."""
    begin: str
    """Its first day, UTC."""
    end: str
    """Its last day, UTC."""
    rates: list[float | None]
    """Per task the label rate, of numbers and levels the mean; None: no label is known."""
    known: list[int]
    """Per task the number of known labels."""


@dataclass(frozen=True, slots=True)
class DataCard:
    """What the runs were trained and tested on."""

    source: str
    """The kind of log."""
    counts: list[tuple[str, int]]
    """What is counted, and how many."""
    tasks: list[str]
    """The tasks of the data."""
    flags: list[bool]
    """Per task whether its labels are 0 and 1."""
    splits: list[SplitFacts]
    """The splits that have rows."""
    missing: list[tuple[str, list[float]]]
    """Column and, per split, its share of nulls; most first."""
    missing_left_out: int
    """Number of further columns that have nulls."""
    pictures: list[Picture]
    """Rows, new users and label rates by period."""


def data_card(folder: Path, new_user_max_views: int) -> DataCard:
    """Reads the manifest, and of the samples the labels, the views and which values are missing."""
    manifest = read_manifest(folder)
    for name, kind in {"source": str, "tasks": list, "counts": dict, "splits": dict, "label_rates": dict}.items():
        if not isinstance(manifest.get(name), kind):
            raise UserError(f"{folder / 'manifest.json'}: lacks {name!r}, which the report shows")
    tasks, flags = manifest["tasks"], _flags(manifest)
    counts = [(name.replace("_", " "), count) for name, count in manifest["counts"].items()]
    names = [name for name in SPLITS if manifest["splits"].get(name, {}).get("rows")]
    splits = [_split(name, manifest, tasks) for name in names]
    missing = _missing(folder, manifest, names)
    by_period = _by_period(folder, manifest, names, new_user_max_views)
    return DataCard(
        source=manifest["source"],
        counts=counts,
        tasks=tasks,
        flags=[task in flags for task in tasks],
        splits=splits,
        missing=missing[:MAX_MISSING],
        missing_left_out=max(len(missing) - MAX_MISSING, 0),
        pictures=_pictures(by_period, tasks, flags),
    )


def _flags(manifest: dict[str, Any]) -> set[str]:
    """The tasks whose labels are 0 and 1: all in a manifest of before it told."""
    return {t for t in manifest["tasks"] if manifest.get("labels", {}).get(t, "flag") == "flag"}


def _split(name: str, manifest: dict[str, Any], tasks: Sequence[str]) -> SplitFacts:
    split, rates = manifest["splits"][name], manifest["label_rates"][name]
    return SplitFacts(
        name=name,
        rows=split["rows"],
        begin=_day(split["time_min"]),
        end=_day(split["time_max"]),
        rates=[rates[task].get("rate", rates[task].get("mean")) for task in tasks],
        known=[rates[task]["known"] for task in tasks],
    )


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d")


def _files(folder: Path, manifest: dict[str, Any], split: str) -> list[Path]:
    return [folder / part["path"] for part in manifest["partitions"] if part["split"] == split]


def _missing(folder: Path, manifest: dict[str, Any], splits: Sequence[str]) -> list[tuple[str, list[float]]]:
    columns = [c["name"] for c in manifest["columns"] if c["nullable"] and not c["name"].startswith("label_")]
    shares = []
    for split in splits:
        with parquet.scanned(_files(folder, manifest, split)) as frame:
            shares.append(frame.select(pl.col(columns).is_null().mean()).collect(engine="streaming").row(0))
    table = [(name, [share or 0.0 for share in row]) for name, *row in zip(columns, *shares, strict=True)]
    return sorted((line for line in table if any(line[1])), key=lambda line: -max(line[1]))


def _by_period(folder: Path, manifest: dict[str, Any], splits: Sequence[str], new_user_max_views: int) -> pl.DataFrame:
    """A row per period, in order: `period`, `rows`, `new_user` (share of rows) and per task the label rate or mean."""
    parts = [part for part in manifest["partitions"] if part["split"] in splits]
    counted = [pl.len().alias("rows"), (pl.col("user_views") <= new_user_max_views).sum().alias("new_user")]
    for task in manifest["tasks"]:
        label = pl.col(f"label_{task}")
        counted += [label.sum().cast(pl.Float64).alias(f"sum_{task}"), label.count().alias(f"known_{task}")]
    frames = []
    for part in parts:
        with parquet.scanned([folder / part["path"]]) as frame:
            frames.append(frame.select(pl.lit(part["period"]).alias("period"), *counted).collect())
    sums = pl.concat(frames).group_by("period").sum().sort("period")
    rates = [(pl.col(f"sum_{t}") / pl.col(f"known_{t}")).alias(t) for t in manifest["tasks"]]
    return sums.select("period", "rows", pl.col("new_user") / pl.col("rows"), *rates)


def _pictures(frame: pl.DataFrame, tasks: Sequence[str], flags: set[str]) -> list[Picture]:
    wanted = [("rows", "Rows", "rows"), ("new_user", "Rows of new users", "share")]
    wanted += [(task, plain(task), "share" if task in flags else "mean") for task in tasks]
    return [_picture(frame, column, title, unit) for column, title, unit in wanted]


def _picture(frame: pl.DataFrame, column: str, title: str, unit: str) -> Picture:
    """unit: rows, share or mean."""
    values = frame[column].cast(pl.Float64).to_numpy()  # a rate without known labels is nan
    known = np.flatnonzero(np.isfinite(values))
    with panel(150, (unit,)) as (figure, [ax]):
        ax.plot(np.arange(len(values)), values, color=INK, linewidth=1.3, marker="o", markersize=2.2)
        if min(values[known], default=0.0) >= 0:
            ax.set_ylim(0, 1.08 * max(values[known], default=1.0) or 1.0)
        _period_axis(ax, frame["period"].to_list())
        ax.yaxis.set_major_formatter(PercentFormatter(1) if unit == "share" else EngFormatter(sep=""))
        form = {"rows": ",.0f", "share": ".2%", "mean": ".4g"}[unit]
        ends = [f"{frame['period'][i]}: {values[i]:{form}}" for i in (known[[0, -1]].tolist() if len(known) else [])]
        return Picture(title, svg(figure, f"data-{column}", f"{title} by period. {'; '.join(ends) or 'No value'}"))


def _period_axis(ax: Axes, periods: list[str]) -> None:
    every = -(-len(periods) // 4)
    shown = range(0, len(periods), every)
    short = [periods[i][5:] if len(periods[i]) > 7 else periods[i] for i in shown]
    ax.set_xticks(list(shown), short)
    ax.yaxis.set_major_locator(MaxNLocator(3))
