"""What `prepare` warns of: times that cannot be right, tables that hardly join, splits that are too small to judge."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldrank.data.audit.audit import LIMITS, listed, share
from coldrank.data.cohorts import CohortConfig, cohort_masks
from coldrank.data.events import Events
from coldrank.data.log import EventLog, expression
from coldrank.data.samples import SampleBuilder
from coldrank.data.split import SPLITS, TEST, TRAIN, VALID
from coldrank.data.times import DAY_MS, birth_doubts, time_doubts, today

# Below these a table is taken for one of other ids, or for a part of one.
_JOINED_IDS, _JOINED_EVENTS = 0.5, 0.9


def about_times(log: EventLog, events: Events) -> Iterator[str]:
    """Of the unit, of days that lie apart, and of a `day` that is another than that of `time`."""
    kind = log.files[0].frame.select(expression(log.spec.time)).collect_schema().dtypes()[0]
    where = f"column {log.spec.time}" if isinstance(log.spec.time, str) else "time"
    for doubt in time_doubts(events.time, None if kind.is_temporal() else log.spec.time_unit, today()):
        yield f"{where}: {doubt}"
    for doubt in birth_doubts(events.birth.drop_nulls().to_numpy(), today()):
        yield f"item_birth (a datetime, or milliseconds): {doubt}"
    local_day = (events.time + round(log.spec.utc_offset_h * 3_600_000)) // DAY_MS
    if other := int((abs(events.day - local_day) > 1).sum()):
        yield f"day: {share(other, len(local_day))} of the events ({other:,}) are dated more than a day from their time"


def about_tables(joined: dict[str, dict[str, float]]) -> Iterator[str]:
    """Of tables that lack many of the log's ids. joined: as in the manifest."""
    for name, shares in joined.items():
        if shares["ids_share"] < _JOINED_IDS or shares["events_share"] < _JOINED_EVENTS:
            yield (
                f"table of {name}: {joined_words(name, shares)} have a row in it; the others' features are null:"
                " is it of the same ids, and whole?"
            )


def joined_words(name: str, shares: dict[str, float]) -> str:
    """The shares of a table in words."""
    return f"{share(shares['ids_share'], 1)} of the {name} ({share(shares['events_share'], 1)} of the events)"


def about_splits(samples: SampleBuilder, split: NDArray[np.int8]) -> Iterator[str]:
    """Of tasks, and of their cohorts, with too few positives or negatives in train, valid or test, and of numbers and
    levels that are known in too few rows.

    The cohorts are those of a config that does not change them.
    """
    views, numbers = samples.statistics.columns, [*samples.spec.numbers, *samples.spec.levels]
    cohorts = cohort_masks(views["user_views"], views["item_views"], CohortConfig())
    for part in (TRAIN, VALID, TEST):
        rows = split == part
        if not rows.any():
            continue
        few = [text for task in samples.spec.tasks for text in _few(samples, task, rows, cohorts)]
        if few:
            counts = f"fewer than {LIMITS.expected} positives or negatives, too few to judge"
            yield f"{SPLITS[part]}: {counts}: {listed(few)}"
        known = {t: int(samples.events.frame[f"label_{t}"].is_not_null().to_numpy()[rows].sum()) for t in numbers}
        if few := [f"{task} ({n:,})" for task, n in known.items() if n < LIMITS.expected]:
            yield f"{SPLITS[part]}: fewer than {LIMITS.expected} known labels, too few to judge: {listed(few)}"


def _few(samples: SampleBuilder, task: str, rows: NDArray[np.bool_], cohorts: dict[str, Any]) -> Iterator[str]:
    label = samples.events.frame[f"label_{task}"].fill_null(-1).to_numpy()
    for cohort, mask in cohorts.items():
        known = label[rows & mask]
        positives, negatives = int((known == 1).sum()), int((known == 0).sum())
        if min(positives, negatives) < LIMITS.expected:
            yield f"{task}{'' if cohort == 'all' else f' of {cohort}'} ({positives:,} and {negatives:,})"
            if cohort == "all":
                return
