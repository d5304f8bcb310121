"""A draft of a log as the text of `spec.py`, with what it was guessed by."""

from collections.abc import Iterable

import polars as pl

from coldrank.data.guess.draft import Draft
from coldrank.data.guess.moments import whole_days
from coldrank.data.guess.names import TOTAL, plain_name, words
from coldrank.data.guess.python import column, mapping_lines, quoted, tuple_lines
from coldrank.data.guess.roles import Found
from coldrank.data.ids import as_bytes, is_text

_UNITS = {"s": "Seconds", "ms": "Milliseconds", "us": "Microseconds", "ns": "Nanoseconds"}
# Of a history of what alone was clicked, say; where fewer events than this share are so.
_PICKED, _SELDOM = 20, 0.4
_SHOWN = f"{quoted('item_id')}, {quoted('hours')}"
_HISTORIES = 2
# Numbers of items that histories show, at most.
_PAST_NUMBERS = 2
# Sampled items beside each event of a log of positives.
_NEGATIVES = 4


def spec_text(made: Draft, commands: Iterable[str]) -> str:
    """The text of a Python file that defines `spec`. commands: what to do with it."""
    head = ["What the columns of a log are, as their names and values say. Read it, and change what is wrong.", ""]
    fields = [*_ids(made), *_times(made), *_labels(made), *_features(made), *_groups(made), *_files(made)]
    uses_polars = any("pl." in line for line in fields)
    imports = ["import polars as pl", ""] if uses_polars else []
    classes = [
        c
        for c in ("Group", "History", "LogSpec", "Negatives")
        if any(f"{c}(" in line for line in [*fields, "LogSpec("])
    ]
    imports += [f"from coldrank.data.log import {', '.join(classes)}", ""]
    body = ["spec = LogSpec(", *(f"    {line}".rstrip() for line in fields), ")"]
    text = [f'"""{head[0]}', "", *(f"    {c}" for c in commands), '"""', "", *imports, *body]
    return "\n".join(text) + "\n"


def _ids(made: Draft) -> list[str]:
    rows, seen = made.events.rows, f"{len(made.events.rows):,} rows"
    if made.user is None:
        lines = ["# No column is a user by its name: all events are anonymous. Is one?", "user=None,"]
    else:
        nulls = int(rows[made.user].null_count())
        if is_text(rows[made.user].dtype):
            nulls += int((as_bytes(rows[made.user], rows[made.user].dtype).bin.size() == 0).sum())
        lines = [f"# {rows[made.user].n_unique():,} values in {seen}.", f"user={quoted(made.user)},"]
        if nulls:
            lines += [f"# {nulls:,} of these rows have no user: each is of a user of its own.", 'anonymous="own",']
    why = "" if made.item_sure else " By its many values alone, its name does not say so: is it what is ranked?"
    return [*lines, f"# {rows[made.item].n_unique():,} values.{why}", f"item={quoted(made.item)},"]


def _times(made: Draft) -> list[str]:
    clock, kind = made.clock, made.events.rows[made.time].dtype
    if clock.layout:
        unsure = "" if clock.sure else " Another order of day and month would fit as well: which is it?"
        lines = [f"# Text; times without an offset are taken for UTC (time_zone).{unsure}"]
    elif kind.is_numeric():
        lines = [f"# {_UNITS[clock.unit]} since 1970."]
    else:
        lines = ["# Times without an offset are taken for UTC (time_zone)."]
    if whole_days(made.events.rows[made.time], clock):
        lines += [
            "# Days alone: events of a day do not see each other. If another column has the hour, join them, as in"
        ]
        lines += ['# pl.col("date") + " " + pl.col("hour"), with a time_format.']
    lines += [f"time={quoted(made.time)},"]
    lines += (
        [f"time_unit={quoted(clock.unit)},"] if kind.is_numeric() and not clock.layout and clock.unit != "ms" else []
    )
    return lines + ([f"time_format={quoted(clock.layout)},"] if clock.layout else [])


def _labels(made: Draft) -> list[str]:
    rows, found = made.events.rows, made.outcomes
    tasks = {t: quoted(n) for t, n in found.flags.items()}
    tasks |= {t: f"{column(n)} == {quoted(value)}" for t, (n, value) in found.events.items()}
    lines: list[str] = []
    for name, good in found.ratings.items():
        tasks[f"good_{plain_name(name)}"] = f"{column(name)} >= {good:g}"
    if tasks:
        lines += ["# 1, 0, or null where it is not known. Which of them are to be learnt?"]
        lines += mapping_lines("tasks", tasks)
    if not found:
        lines += [
            "# No column is an outcome: all that is here was chosen. Items that were not are sampled beside it.",
            'tasks={"chosen": pl.lit(1)},',
            "signals={},",
            *_negatives(made),
        ]
    levels = {plain_name(n): level(rows[n], n) for n in found.ratings}
    lines += mapping_lines("levels", {n: text for n, text in levels.items() if text})
    lines += mapping_lines("numbers", {n: quoted(c) for n, c in found.numbers.items()})
    if made.weight:
        inverse = "propensity" in words(made.weight) and (rows[made.weight] <= 1).all()
        lines += [f"weight={f'1 / {column(made.weight)}' if inverse else quoted(made.weight)},"]
    return lines


def level(values: pl.Series, name: str) -> str:
    """A rating as whole numbers; of half stars twice as many. Empty: neither."""
    known = values.drop_nulls()
    if bool((known == known.cast(pl.Float64).round()).all()):
        return quoted(name)
    doubled = 2 * known.cast(pl.Float64)
    return f"2 * {column(name)}" if bool((doubled == doubled.round()).all()) else ""


def _negatives(made: Draft) -> list[str]:
    keys = {} if made.item_table else {f.name: quoted("item") for f in _counted(made)}
    inside = "".join(line.strip() for line in mapping_lines("keys", keys)).replace(",}", "}").removesuffix(",")
    return [f"negatives=Negatives(per_positive={_NEGATIVES}{', ' + inside if inside else ''}),"]


def _features(made: Draft) -> list[str]:
    lines = []
    for side, table, found in (
        ("user", made.user_table, made.user_inputs),
        ("item", made.item_table, made.item_inputs),
    ):
        rows = table.rows if table else made.events.rows
        features = {f.name: _source(f, rows) for f in (table.inputs if table else found)}
        if table:
            lines += [f"{side}_table={quoted(table.path)},", f"{side}_table_id={quoted(table.key)},"]
        if table and table.birth:
            features["born_ms"] = _milliseconds(table.rows[table.birth])
        totals = [f.name for f in (table.inputs if table else found) if TOTAL & set(words(f.source))]
        if totals:
            lines += [f"# As of when is {', '.join(totals)}? A total over the whole log knows the future."]
        lines += mapping_lines(f"{side}_features", features)
    lines += mapping_lines("context", {f.name: _source(f, made.events.rows) for f in made.context})
    if made.item_table and made.item_table.birth:
        lines += ['item_birth="item_born_ms",']
    elif made.birth:
        lines += [f"item_birth={quoted(made.birth)},"]
    return lines


def _source(found: Found, rows: pl.DataFrame) -> str:
    if found.kind == "split":
        return f"{column(found.source)}.str.split({quoted(found.separator)})"
    if found.kind == "category" and rows[found.source].dtype.is_float():
        return f"{column(found.source)}.fill_nan(None).cast(pl.Int64)"
    return quoted(found.source)


def _milliseconds(birth: pl.Series) -> str:
    source = column(birth.name)
    if birth.dtype.is_numeric():
        return quoted(birth.name)
    if is_text(birth.dtype):
        source += (
            ".str.to_date()" if birth.drop_nulls().str.len_chars().max() == len("2022-05-04") else ".str.to_datetime()"
        )
    return f'{source}.dt.epoch("ms")'


def _groups(made: Draft) -> list[str]:
    of_table = "item_" if made.item_table else ""
    keys = _counted(made)
    lines = []
    if keys:
        sources = {f.name: quoted(f"item_{f.name}") if of_table else _source(f, made.events.rows) for f in keys}
        lines += [
            "# What is counted beside users and items: views, and rates of the tasks.",
            *mapping_lines("keys", sources),
        ]
        groups = [f"Group(keys=({quoted(f.name)},))," for f in keys]
        if made.user:
            groups += [f'Group(keys=("user", {quoted(f.name)}), parent="user"),' for f in keys]
        lines += ["groups=(", *(f"    {g}" for g in groups), "),"]
        if made.user:
            lines += mapping_lines("history", sources)
    if made.user and (numbers := _past_numbers(made)):
        lines += mapping_lines(
            "history_numbers", {f.name: quoted(f"{of_table}{f.name}" if of_table else f.source) for f in numbers}
        )
    seldom = _seldom(made) if made.user else []
    if seldom:
        lines += ["# The last events of each user, and beside them the last ones in which this was so."]
        lines += mapping_lines(
            "histories", {t: f"History(length={_PICKED}, where={quoted(t)}, columns=({_SHOWN}))" for t in seldom}
        )
    return lines


def _counted(made: Draft) -> list[Found]:
    """Features of items by which events are counted, too."""
    return [f for f in made.keys if f.name not in ("user", "item", "hours") and f.name not in _tasks(made)]


def _past_numbers(made: Draft) -> list[Found]:
    """Numbers of items that histories show."""
    taken = {"item_id", "hours", *_tasks(made), *(f.name for f in _counted(made))}
    return [f for f in made.items if f.kind in ("number", "count") and f.name not in taken][:_PAST_NUMBERS]


def _tasks(made: Draft) -> list[str]:
    found = made.outcomes
    return [*found.flags, *found.events, *(f"good_{plain_name(n)}" for n in found.ratings)]


def _seldom(made: Draft) -> list[str]:
    """Tasks whose positives fill few places of a history."""
    rows = made.events.rows
    flags = {t: rows[n].cast(pl.Int8) == 1 for t, n in made.outcomes.flags.items()}
    flags |= {t: rows[n].cast(pl.String) == v for t, (n, v) in made.outcomes.events.items()}
    shares = {t: flag.sum() / max(1, len(rows) - flag.null_count()) for t, flag in flags.items()}
    few = sorted((t for t, share in shares.items() if 0.01 <= share < _SELDOM), key=lambda t: -shares[t])
    return few[:_HISTORIES]


def _files(made: Draft) -> list[str]:
    reading = made.events.reading
    nulls = {*reading.null_values, *(n for t in (made.user_table, made.item_table) if t for n in t.null_values)}
    lines = [f"formats=({quoted(made.events.kind)},),"] if made.others and made.data.is_dir() else []
    lines += [f"separator={quoted(reading.separator)},"] if reading.separator else []
    lines += [f"decimal={quoted(reading.decimal)},"] if reading.decimal != "." else []
    lines += tuple_lines("header", reading.header) + tuple_lines("null_values", sorted(nulls))
    left = dict(made.left)
    for side, table in (("user", made.user_table), ("item", made.item_table)):
        left |= {f"{n} ({side} table)": why for n, why in table.left.items()} if table else {}
    return lines + (
        ["# Not used:", *(f"# - {name}: {why}{'' if why.endswith('?') else '.'}" for name, why in left.items())]
        if left
        else []
    )


def told(made: Draft) -> list[str]:
    """What was found, in a few lines."""
    events, found = made.events, made.outcomes
    labels = [*found.flags, *found.events, *(f"good_{plain_name(n)}" for n in found.ratings), *found.numbers]
    tables = [f"{side}s from {t.path}" for side, t in (("user", made.user_table), ("item", made.item_table)) if t]
    none = "none: a log of positives, negatives are sampled"
    files = f"{len(events.files):,} file{'s' * (len(events.files) != 1)} of events"
    lines = [f"{made.data}: {files}, about {events.total:,} rows"]
    days = " (days alone)" if whole_days(events.rows[made.time], made.clock) else ""
    item = made.item if made.item_sure else f"{made.item} (its name does not say so)"
    lines += [f"user {made.user or 'none'}, item {item}, time {made.time}{days}; labels {', '.join(labels) or none}"]
    lines += [f"features of {', '.join(tables)}"] if tables else []
    if made.others:
        names = ", ".join(p.name for p in made.others[:5])
        lines.append(f"not read: {names}{' and others' * (len(made.others) > 5)}")
    return lines
