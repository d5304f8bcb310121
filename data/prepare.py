"""An event log -> samples as of the time of each event: Parquet, sorted by time, one partition per split and period.

In passes, so that memory holds a chunk of events and what the state has of their groups, however long the log. The
files are read in slices onto the disk. They are sorted, chunk by chunk, which tells what the splits rest on. Then each
chunk in order is made into samples by the state before it, which it advances.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from coldrank.data.append import Prepared, check_same, digests, late_events, origin, replay, same_types
from coldrank.data.errors import UserError
from coldrank.data.events import Events, static_table
from coldrank.data.finish import Finished, warn
from coldrank.data.log import EventLog, check_spec
from coldrank.data.manifest import Content, Population, table_ids
from coldrank.data.negatives.sampler import NegativeSampler
from coldrank.data.negatives.sources import check_sources
from coldrank.data.partitions import DatedPeriods, EqualPeriods, Periods, places
from coldrank.data.place import check_out, staging
from coldrank.data.samples import SampleBuilder
from coldrank.data.split import SPLITS, Split
from coldrank.data.spool import ROWS, Chunks, Spool, check_any
from coldrank.data.state.ledger import items_file, times_file
from coldrank.data.state.state import Shape, State
from coldrank.data.statistics import compute_statistics
from coldrank.data.warn import about_times
from coldrank.data.whole import Known, Whole, read_times, write_times
from coldrank.data.writers import Writers

# From what a log is as a whole to the split of its events.
SplitRule = Callable[[Known], Split]


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareOptions:
    """What the samples hold and how they are cut."""

    history: int
    """Longest history of a user, in events."""
    arguments: dict[str, Any]
    """What the caller asked for. Noted in the manifest once the split is made, which may add to it."""
    item_history: int = 0
    """Longest history of an item, in events; 0: none."""
    periods: int = 0
    """Number of periods of equally many events; 0: days or months, as the spec says."""
    keep_duplicates: bool = False
    """Whether equal rows are events of their own."""
    chunk_rows: int = ROWS
    """How many events are in memory at most, unless one hour has more. Changes no value."""


def prepare(log: EventLog, out: Path, split: SplitRule, options: PrepareOptions) -> dict[str, Any]:
    """Writes the samples of a log to `out`, in full or not at all; returns the manifest.

    Raises UserError for a wrong spec or wrong data, and if `out` holds something else than prepared data.
    """
    check_spec(log.spec)
    check_out(out)
    check_sources(log)
    made_by = origin(log, options.arguments)
    with staging(out) as staged:
        spool = Spool(log, staged / "spool", chunk_rows=_chunk_rows(log, options))
        spool.read(log.files)
        check_any(spool)
        job = _Job(log=spool.log, out=out, staged=staged, options=options, made_by=made_by)
        return job.run(spool, split, digests(log.files), 0)


def append(log: EventLog, out: Path, split: SplitRule, options: PrepareOptions) -> dict[str, Any] | None:
    """Adds the events of a log that are later than all of a prepared folder; returns the manifest.

    None: there were none, and the folder is as it was. What is there afterwards is what `prepare` makes of all events
    at once. Events that are not later and not among the samples are left out and counted.
    Raises UserError as `prepare` does, and for a log, a spec or options that do not go with what was prepared.
    """
    check_spec(log.spec)
    check_out(out)
    base = Prepared.open(out)
    made_by = origin(log, options.arguments)
    check_same(base, made_by)
    if Shape.of(log.spec, options.history, options.item_history) != base.ledger.shape:
        raise UserError(f"--append: {out} was prepared with other groups, signals or histories; prepare the data anew")
    found = zip(digests(log.files), log.files, strict=True)
    new = [(digest, file) for digest, file in found if digest not in base.ledger.files]
    if not new:
        return None
    with staging(out) as staged:
        spool = Spool(log, staged / "spool", chunk_rows=_chunk_rows(log, options), before=base.ledger.origin)
        spool.read([file for _, file in new], after=base.ledger.whole.last)
        same_types(spool, base.ledger.origin)
        late = late_events(spool, base)
        if not (spool.rows or late):
            return None
        job = _Job(log=spool.log, out=out, staged=staged, options=options, made_by=made_by, base=base)
        return job.run(spool, split, [digest for digest, _ in new], late)


@dataclass(kw_only=True, slots=True)
class _Job:
    """A preparation on its way."""

    log: EventLog
    out: Path
    staged: Path
    options: PrepareOptions
    made_by: dict[str, Any]
    base: Prepared | None = None
    _chunk_days: list[NDArray[np.int32]] = field(default_factory=list)

    def run(self, spool: Spool, split: SplitRule, digests: list[str], late: int) -> dict[str, Any]:
        base, options = self.base, self.options
        shape = Shape.of(self.log.spec, options.history, options.item_history)
        state = base.ledger.state(base.data, self.staged / "state") if base else State(shape, self.staged / "state")
        chunks = spool.chunks(options.keep_duplicates)
        known = self._survey(chunks, spool.rows)
        warn(about_times(self.log, known.whole))
        rule = split(known)
        sampler = self._sampler(spool.kinds)
        content = self._write(chunks, state, known, rule, sampler)
        if sampler:
            sampler.write(items_file(self.staged))
        return Finished(
            out=self.out,
            staged=self.staged,
            spool=spool,
            content=content,
            state=state,
            history=options.history,
            arguments=options.arguments,
            made_by=self.made_by,
            digests=digests,
            late=late,
            base=base,
        ).put()

    def _survey(self, chunks: Chunks, rows: int) -> Known:
        """What the log is as a whole. rows: of those read."""
        base = self.base
        whole = replace(base.ledger.whole) if base else Whole()
        users = np.empty(0, np.int64)
        for events in (chunks.load(n, coded=False) for n in range(len(chunks))):
            whole.see(events, self.log)
            users = np.union1d(users, events.known_users)
            write_times(times_file(self.staged), events.time)
            self._chunk_days.append(np.unique(events.day))
        whole.events_read += rows
        whole.duplicates += chunks.duplicates
        paths = [base.data / name for name in base.ledger.times] if base else []
        times = read_times(paths + ([times_file(self.staged)] if len(chunks) else []))
        return Known(whole=whole, times=times, users=users)

    def _sampler(self, kinds: dict[str, pl.DataType]) -> NegativeSampler | None:
        if self.log.spec.negatives is None:
            return None
        file = self.base.data / self.base.ledger.items[0] if self.base else None
        try:
            return NegativeSampler(self.log, kinds, file)
        except (OSError, ValueError) as error:  # Arrow's errors are ValueErrors
            raise UserError(f"{file}: is damaged ({error}); prepare the data anew") from None

    def _write(
        self, chunks: Chunks, state: State, known: Known, rule: Split, sampler: NegativeSampler | None
    ) -> Content:
        log, n = self.log, self.options.periods
        periods: Periods = (
            EqualPeriods(n, known.whole.events) if n else DatedPeriods(10 if log.spec.period == "day" else 7)
        )
        last = self._last_chunks(chunks, periods)
        writers = Writers(self.staged, log.spec.labels())
        if self.base:
            replay(self.base, log.spec, rule, set(last), writers)
            for place in (p for p in writers.places() if p[1] not in last):
                writers.close(place)
        tables = tuple(
            None if table is None else static_table(table, f"{name}_id", f"{name} features")
            for name, table in (("user", log.users), ("item", log.items))
        )
        schema = self.base.schema() if self.base else None
        bar = tqdm(total=sum(chunks.rows), desc="writing", unit="row", unit_scale=True, disable=None)
        waiting: list[Future[None]] = []
        first = 0
        with bar, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for number, rows in enumerate(chunks.rows):
                # While the one before is written.
                frame = chunks.frame(number)
                events = chunks.events(sampler.beside(frame, state) if sampler else frame)
                bar.total += len(events.time) - rows
                statistics = compute_statistics(events, state)
                samples = SampleBuilder.from_events(log.spec, events, statistics, *tables)
                schema = _same_schema(schema, samples.schema)
                jobs = list(places(rule.of(events), *_periods(periods, events, first)))
                _wait(waiting)
                whole = [place for place in writers.places() if last[place[1]] < number]
                waiting = [pool.submit(writers.close, place) for place in whole]
                waiting += [pool.submit(writers.fill, place, samples, rows, bar.update) for place, rows in jobs]
                first += rows
            _wait(waiting)
            _wait([pool.submit(writers.close, place) for place in writers.places()])
        assert schema is not None  # there are chunks, or a base
        fewer = self.base.manifest["counts"].get("events_with_fewer_negatives", 0) if self.base else 0
        return Content(
            whole=known.whole,
            schema=schema,
            partitions=sorted(writers.partitions, key=lambda p: (SPLITS.index(p.split), p.period)),
            labels=writers.counts,
            users=Population.of(*state.all_views("user"), table_ids(log, "user")),
            items=Population.of(*state.all_views("item"), table_ids(log, "item")),
            fewer=fewer + (sampler.fewer if sampler else 0),
        )

    def _last_chunks(self, chunks: Chunks, periods: Periods) -> dict[str, int]:
        """Period -> the last chunk that has events of it."""
        last: dict[str, int] = {}
        first = 0
        for number, (days, rows) in enumerate(zip(self._chunk_days, chunks.rows, strict=True)):
            last |= dict.fromkeys(periods.names(days, first, rows), number)
            first += rows
        return last


def _chunk_rows(log: EventLog, options: PrepareOptions) -> int:
    """Events of a chunk, which holds their negatives, too."""
    beside = 0 if log.spec.negatives is None else log.spec.negatives.per_positive
    return max(1, options.chunk_rows // (1 + beside))


def _periods(periods: Periods, events: Events, first: int) -> tuple[list[str], NDArray[np.int64]]:
    """Names of periods in order, and the one of each event [N]; that of a negative is its event's."""
    if events.sampled is None:
        return periods.of(events.day, first)
    names, period = periods.of(events.day[~events.sampled], first)
    return names, period[np.cumsum(~events.sampled) - 1]


def _wait(futures: Iterable[Future[None]]) -> None:
    for future in futures:
        future.result()


def _same_schema(before: pa.Schema | None, schema: pa.Schema) -> pa.Schema:
    if before is not None and not schema.equals(before):
        changed = next((f.name for f, old in zip(schema, before, strict=False) if not f.equals(old)), schema.names[-1])
        raise UserError(f"column {changed}: is not as it was prepared before; prepare the data anew")
    return schema
