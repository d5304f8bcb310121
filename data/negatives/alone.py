"""Events without the sampled negatives beside them."""

import polars as pl

from coldrank.data.log import SAMPLED


def events_alone(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows that are events of the log: all, where there is no column `sampled`."""
    return frame.filter(pl.col(SAMPLED) == 0) if SAMPLED in frame.columns else frame
