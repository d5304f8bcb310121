"""The negatives of a log's events, chunk by chunk, as rows of the log that nobody sees."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldrank.data.log import SAMPLED, EventLog, Negatives
from coldrank.data.negatives.catalogue import Catalogue
from coldrank.data.negatives.draw import Keys, draw, event_keys
from coldrank.data.negatives.forbidden import Forbidden
from coldrank.data.negatives.sources import Sources
from coldrank.data.state.state import State

Int64s = NDArray[np.int64]
# Power of a count as a whole number, so that sums are exact: rounded to 1 part in 8,192 at most.
_UNIT = 4096


class NegativeSampler:
    """Draws the negatives of chunks that follow each other."""

    def __init__(self, log: EventLog, kinds: dict[str, pl.DataType], file: Path | None = None) -> None:
        """kinds: types of the planned columns. file: what `write` wrote after the events before; None: there are none.

        Raises UserError for a key of which it is not clear whose it is, OSError and Arrow's errors for the file.
        """
        assert log.spec.negatives is not None
        self._spec, self._settings, self._sources = log.spec, log.spec.negatives, Sources.of(log)
        self._catalogue = Catalogue(self._sources, kinds)
        if file is not None:
            self._catalogue.read(file)
        self.fewer = 0
        """Events that got fewer than was asked for."""

    def write(self, path: Path) -> None:
        """What is known of the items, for the events to come."""
        self._catalogue.write(path)

    def beside(self, frame: pl.DataFrame, state: State) -> pl.DataFrame:
        """The events of the next chunk, each with its negatives behind it, and the column `sampled`.

        frame: the planned columns, in order. state: before the chunk.
        """
        catalogue, settings = self._catalogue, self._settings
        time, item = frame["time"].to_numpy(), frame["item_id"].to_numpy()
        catalogue.meet(item, time)
        places = catalogue.place(item)
        forbidden = Forbidden(frame, places, catalogue, state if settings.seen == "never" else None)
        keys = event_keys(settings.seed, time, frame["user_id"].to_numpy(), item)
        wanted = np.flatnonzero(_positives(frame, settings, frozenset(self._spec.tasks)))
        if settings.draw == "uniform":
            chosen = _drawn(catalogue, settings, keys, time, wanted, forbidden, None)
        else:
            chosen = self._by_popularity(keys, time, places, wanted, forbidden, state)
        self.fewer += int((chosen < 0).any(1).sum())
        event, number = np.nonzero(chosen >= 0)
        negatives = self._rows(frame, places, wanted[event], chosen[event, number])
        catalogue.last = self._last(
            frame, places, np.arange(len(catalogue.items)), np.full(len(catalogue.items), len(frame))
        )
        order = np.argsort(np.concatenate([np.arange(len(frame)), wanted[event]]), kind="stable")
        both = pl.concat([frame.with_columns(pl.lit(0, pl.Int8).alias(SAMPLED)), negatives])
        return both.select(pl.all().gather(pl.Series(order)))

    def _by_popularity(
        self, keys: Keys, time: Int64s, places: Int64s, wanted: Int64s, forbidden: Forbidden, state: State
    ) -> Int64s:
        """Period by period: of an hour, or of the refresh of items where that is longer."""
        catalogue, settings = self._catalogue, self._settings
        hours = next(g.refresh_h for g in state.shape.groups if g.name == "item")
        begins = state.shape.refreshed(time, max(1.0, hours or 0.0))
        starts = np.flatnonzero(np.diff(begins, prepend=begins[0] - 1))
        parts = []
        for first, end in zip(starts, np.append(starts[1:], len(time)), strict=True):
            catalogue.pass_to(int(begins[first]))
            weights = np.rint(catalogue.counts**settings.power * _UNIT).astype(np.int64)
            some = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, end)]
            parts.append(_drawn(catalogue, settings, keys, time, some, forbidden, weights))
            catalogue.recent += np.bincount(places[first:end], minlength=len(catalogue.items))
        return np.concatenate(parts)

    def _rows(self, frame: pl.DataFrame, places: Int64s, event: Int64s, chosen: Int64s) -> pl.DataFrame:
        """The planned columns of negatives [M]. event: whose each is; chosen: places of the items."""
        spec, kinds = self._spec, frame.schema
        item = pl.Series("item_id", self._catalogue.items[chosen])
        # The events of a time do not see each other.
        before = np.searchsorted(frame["time"].to_numpy(), frame["time"].to_numpy()[event])
        unknown = [f"label_{n}" for n in (*spec.numbers, *spec.levels)] + [f"true_{n}" for n in spec.truth]
        unknown += [n for n in frame.columns if n.startswith(("signal:", "history:"))]
        of_event = frame.select(pl.all().gather(pl.Series(event)))
        return of_event.with_columns(
            item,
            *(pl.lit(0, kinds[f"label_{n}"]).alias(f"label_{n}") for n in spec.tasks),
            *(pl.lit(None, kinds[n]).alias(n) for n in unknown),
            *self._last(frame, places, chosen, before),
            *self._sources.rows_of_table(item),
            pl.lit(1, pl.Int8).alias(SAMPLED),
        )

    def _last(self, frame: pl.DataFrame, places: Int64s, items: Int64s, before: Int64s) -> pl.DataFrame:
        """The item's own columns of its last event before a row of the chunk. items: places [R]; before: rows [R]."""
        last = self._catalogue.last
        if not last.columns:
            return last
        size = len(frame) + 1
        held = places * size + np.arange(len(frame))
        held.sort()
        near = np.searchsorted(held, items * size + before) - 1
        found = held[np.maximum(near, 0)]
        is_here = (near >= 0) & (found // size == items)
        rows = np.where(is_here, len(last) + found % size, items)
        return pl.concat([last, frame.select(last.columns)]).select(pl.all().gather(pl.Series(rows)))


def _positives(frame: pl.DataFrame, settings: Negatives, tasks: frozenset[str]) -> NDArray[np.bool_]:
    """Which events get negatives, bool [N]."""
    if settings.of is None:
        return np.ones(len(frame), bool)
    column = f"label_{settings.of}" if settings.of in tasks else f"signal:{settings.of}"
    return (frame[column] == 1).fill_null(False).to_numpy()


def _drawn(
    catalogue: Catalogue,
    settings: Negatives,
    keys: Keys,
    time: Int64s,
    wanted: Int64s,
    forbidden: Forbidden,
    weights: Int64s | None,
) -> Int64s:
    """The places of the items that some events draw, int64 [E, k]. wanted: the events, int64 [E]."""
    ends = catalogue.ends(time[wanted])
    excluded = lambda rows, places: forbidden(wanted[rows], places)
    return draw(keys[wanted], ends, weights, excluded, settings.per_positive)
