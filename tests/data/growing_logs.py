"""Logs that grow: their parts, and `prepare` called on the folder that they lie in."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from event_logs import random_log

from coldrank.cli.main import main


def log(seed: int, rows: int = 160) -> pl.DataFrame:
    """Days in another clock: an event is dated up to three hours before or after its time."""
    frame = random_log(seed, rows).sort("time", maintain_order=True)
    shift = pl.Series(np.random.default_rng(seed).integers(-3, 4, rows) * 3_600_000)
    return frame.with_columns(dated=pl.from_epoch(pl.col("time") + shift, time_unit="ms").dt.date())


def write(frame: pl.DataFrame, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / f"{name}.parquet")


def cut(frame: pl.DataFrame, times: list[int]) -> list[pl.DataFrame]:
    """The frame's events up to each time, and those after the last."""
    bounds = [-1, *times, 2**62]
    return [frame.filter(pl.col("time") > a, pl.col("time") <= b) for a, b in pairwise(bounds)]


SPEC_FILE = """
from coldrank.data.log import LogSpec
spec = LogSpec(user="user", item="item", time="time", tasks={"click": "click"}, context={"place": "%s"})
"""


def command(folder: Path, *more: str, place: str = "tag") -> int:
    (folder / "spec.py").write_text(SPEC_FILE % place)
    paths = ["--data", str(folder / "log"), "--spec", str(folder / "spec.py"), "--out", str(folder / "out")]
    return main(["prepare", "log", *paths, *more])
