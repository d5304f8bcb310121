"""The days of the protocol, how much of its log is there, and the samples.

Split by the log's own column `date`: train 2022-04-08 to 04-21, valid to 04-28, test to 05-08. All rows of the standard
log count, equal ones too. Up to an hour before midnight its rows have the date of the day after, so some events of
training are later than the first of validation.

The outcomes of the days under test are hidden from whoever takes part. So in the samples rates and histories hold no
outcome of these days, of validation's neither; that somebody was shown something is known as it comes. `live` samples
hold outcomes as they come, as a system that serves has them: FM, which counts nothing, has the same in both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.data.events import Events, local_day
from coldrank.data.kuairand import open_kuairand
from coldrank.data.log import EventLog, expression
from coldrank.data.prepare import PrepareOptions, prepare
from coldrank.data.split import TEST, TRAIN, VALID

SPLITS = ("train", "valid", "test")
# Of the whole log.
ROWS = {"train": 1_141_112, "valid": 124_909, "test": 170_588}
HISTORY = 50
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class ProtocolDays:
    """Where the days of validation and of test begin. A `Split` by the log's own day of an event alone."""

    valid_from: date = date(2022, 4, 22)
    """The first day of validation."""
    test_from: date = date(2022, 4, 29)
    """The first day of test."""

    def of(self, events: Events) -> NDArray[np.int8]:
        """Index into `split.SPLITS` of each event, int8 [N]."""
        return self.at(events.day)

    def at(self, day: NDArray[np.integer[Any]]) -> NDArray[np.int8]:
        """The same of days since 1970, integers [N]."""
        valid, test = ((d - _EPOCH).days for d in (self.valid_from, self.test_from))
        return np.where(day >= test, TEST, np.where(day >= valid, VALID, TRAIN)).astype(np.int8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """What there is of the protocol's log."""

    files: tuple[str, ...]
    """Names of its files."""
    first: date
    """Its first day."""
    last: date
    """Its last day."""
    rows: Mapping[str, int]
    """Split -> rows."""
    days: ProtocolDays
    """Where the splits begin."""

    @property
    def whole(self) -> bool:
        """Whether it is the protocol's own log, split as the protocol splits it."""
        return self.rows == ROWS and self.days == ProtocolDays()

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {self.rows[split]:,} of {ROWS[split]:,} rows" for split in SPLITS)
        return (
            f"{', '.join(self.files)}: {self.first} to {self.last}; valid from {self.days.valid_from}, test from"
            f" {self.days.test_from}: {counts}"
        )


def survey(log: EventLog, days: ProtocolDays) -> Coverage:
    """Counts the rows of the splits, before anything is prepared. Raises UserError for a split without any."""
    assert log.spec.day is not None  # KuaiRand's is its column `date`
    by_date = expression(log.spec.day).to_physical()
    day = pl.coalesce(by_date, local_day(pl.col("time_ms"), log.spec)).alias("day")
    counted = []
    for file in log.files:
        try:
            counted.append(file.frame.select(day).group_by("day").len().collect())
        except pl.exceptions.PolarsError as error:
            raise file.explain(error) from None
    table = pl.concat(counted)
    number, rows = table["day"].to_numpy(), table["len"].to_numpy()
    split = days.at(number)
    found = Coverage(
        files=tuple(file.path.name for file in log.files),
        first=date.fromordinal(_EPOCH.toordinal() + int(number.min())),
        last=date.fromordinal(_EPOCH.toordinal() + int(number.max())),
        rows={name: int(rows[split == index].sum()) for name, index in zip(SPLITS, (TRAIN, VALID, TEST), strict=True)},
        days=days,
    )
    if empty := next((name for name in SPLITS if not found.rows[name]), ""):
        raise UserError(f"split {empty} has no row: {found}")
    return found


def samples(logs: Path, log: EventLog, out: Path, days: ProtocolDays, *, live: bool) -> DataFolder:
    """The samples of a log in `out`, prepared if they are not there. Raises UserError if `out` holds others.

    live: with outcomes as they come; else those from the first day of validation on are unknown to rates and histories.
    """
    files = {file.path.name: file.path.stat().st_size for file in log.files}
    arguments = {
        "data": str(logs.resolve()),
        "files": files,
        "split": "time",
        "valid_from": str(days.valid_from),
        "test_from": str(days.test_from),
        "test_share": None,
        "history": HISTORY,
        "live": live,
    }
    if (out / "manifest.json").exists():
        data = DataFolder.open(out)
        if (there := data.manifest["arguments"]) != arguments:
            changed = next(n for n in {**arguments, **there} if there.get(n) != arguments.get(n))
            held, asked = there.get(changed), arguments.get(changed)
            raise UserError(f"{out}: holds samples of {changed}={held}, not {asked}; give another --out")
        return data
    options = PrepareOptions(history=HISTORY, arguments=arguments, keep_duplicates=True)
    prepare(log if live else hidden(log, days.valid_from), out, lambda known: days, options)
    return DataFolder.open(out)


def hidden(log: EventLog, since: date) -> EventLog:
    """The log whose outcomes from a day on count in no rate and stand in no history. Its labels stay."""
    is_hidden = pl.col("date") >= int(f"{since:%Y%m%d}")  # unknown, and so not hidden, of earlier events without a date
    known = {name: pl.when(is_hidden.not_().fill_null(True)).then(expression(of)) for name, of in _signals(log)}
    return replace(log, spec=replace(log.spec, signals=known))


def open_log(logs: Path) -> EventLog:
    """The standard log: the randomly shown videos are no part of the protocol."""
    return open_kuairand(logs)


def _signals(log: EventLog) -> list[tuple[str, Any]]:
    return list(log.spec.all_signals().items())
