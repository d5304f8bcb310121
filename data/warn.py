"""What `prepare` warns of: times that cannot be right, tables that hardly join, splits that are too small to judge."""

from collections.abc import Iterator

from coldrank.data.audit.audit import LIMITS, listed, share
from coldrank.data.log import EventLog, LogSpec, expression
from coldrank.data.manifest import Content
from coldrank.data.split import SPLITS, TEST, TRAIN, VALID
from coldrank.data.times import birth_doubts, time_doubts, today
from coldrank.data.whole import Whole

# Below these a table is taken for one of other ids, or for a part of one.
_JOINED_IDS, _JOINED_EVENTS = 0.5, 0.9


def about_times(log: EventLog, whole: Whole) -> Iterator[str]:
    """Of the unit, of days that lie apart, and of a `day` that is another than that of `time`."""
    kind = log.files[0].frame.select(expression(log.spec.time)).collect_schema().dtypes()[0]
    where = f"column {log.spec.time}" if isinstance(log.spec.time, str) else "time"
    is_number = kind.is_numeric() and log.spec.time_format is None
    for doubt in time_doubts(whole.utc_days, log.spec.time_unit if is_number else None, today()):
        yield f"{where}: {doubt}"
    for doubt in birth_doubts(whole.births, today()):
        yield f"item_birth (a datetime, or milliseconds): {doubt}"
    if other := whole.other_days:
        yield f"day: {share(other, whole.events)} of the events ({other:,}) are dated more than a day from their time"


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


def about_splits(content: Content, spec: LogSpec) -> Iterator[str]:
    """Of tasks, and of their cohorts, with too few positives or negatives in train, valid or test, and of numbers and
    levels that are known in too few rows.

    The cohorts are those of a config that does not change them.
    """
    for split in (SPLITS[n] for n in (TRAIN, VALID, TEST)):
        if not any(p.split == split for p in content.partitions):
            continue
        labels = content.of_split(split)
        # Without users, all are new ones.
        nobody = not content.users.ids
        cohorts = {t: {c: n for c, n in of.items() if not (nobody and "user" in c)} for t, of in labels.cohorts.items()}
        few = [text for task in spec.tasks for text in _few(task, cohorts[task])]
        if few:
            counts = f"fewer than {LIMITS.expected} positives or negatives, too few to judge"
            yield f"{split}: {counts}: {listed(few)}"
        known = {t: labels.known[t] for t in (*spec.numbers, *spec.levels)}
        if few := [f"{task} ({n:,})" for task, n in known.items() if n < LIMITS.expected]:
            yield f"{split}: fewer than {LIMITS.expected} known labels, too few to judge: {listed(few)}"


def _few(task: str, cohorts: dict[str, list[int]]) -> Iterator[str]:
    for cohort, (positives, negatives) in cohorts.items():
        if min(positives, negatives) < LIMITS.expected:
            yield f"{task}{'' if cohort == 'all' else f' of {cohort}'} ({positives:,} and {negatives:,})"
            if cohort == "all":
                return
