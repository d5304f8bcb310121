"""The text of `arms.py`: models over the columns of a draft."""

import math

import polars as pl

from coldrank.data.guess.draft import Draft
from coldrank.data.guess.names import plain_name
from coldrank.data.guess.python import mapping_lines, quoted, tuple_lines
from coldrank.data.guess.roles import Found
from coldrank.data.guess.write import level

# Categories of so many values have a table of their own.
_LARGE = 1_000
_ARMS = '''"""Arms over the log that spec.py describes. An arm calls its base, changes a few fields, returns."""

from pathlib import Path

from coldrank.configs import base as parts
from coldrank.configs import own
from coldrank.data.own_log import load_spec
{heads}from coldrank.train.config import RunConfig

DEFAULT = "base"
SPEC = load_spec(Path(__file__).with_name("spec.py"))


def base() -> RunConfig:
    """The plain ranker. What is in none of the lists is a category; `rows` are the sizes of tables."""
    return own.base(
        SPEC,
{fields}
    )


def poso() -> RunConfig:
    """All parts of POSO; the code is the {code} view count."""
    return parts.poso(base())


def poso_constant_pc() -> RunConfig:
    """Control: POSO's parameters without its personalization."""
    return parts.constant_pc(poso())


def base_cold_pass() -> RunConfig:
    """Rival: a last pass over the samples of new users."""
    return parts.cold_pass(base())
'''


def arms_text(made: Draft) -> str:
    """The text of a Python file of arms over the draft's columns; it lies beside `spec.py`."""
    columns = _by_kind(made)
    fields = [line for what, names in columns.items() for line in tuple_lines(what, names)]
    fields += mapping_lines("vectors", _vectors(made)) + _heads(made)
    lines = "\n".join(f"        {line}" for line in [*fields, *mapping_lines("rows", _rows(made))])
    classes = [c for c in ("Ordinal", "Regression") if any(f"{c}(" in line for line in fields)]
    heads = f"from coldrank.models.heads import {', '.join(classes)}\n" if classes else ""
    return _ARMS.format(heads=heads, fields=lines, code="user's" if made.user else "item's")


def _by_kind(made: Draft) -> dict[str, list[str]]:
    columns = {"numbers": ("number",), "counts": ("count",), "lists": ("list", "split"), "weighted": ("weighted",)}
    return {what: [n for n, f in _inputs(made).items() if f.kind in kinds] for what, kinds in columns.items()}


def _vectors(made: Draft) -> dict[str, str]:
    return {n: str(f.length) for n, f in _inputs(made).items() if f.kind == "vector"}


def _inputs(made: Draft) -> dict[str, Found]:
    """Column of the samples -> what it is."""
    owners = (("user_", made.users), ("item_", made.items), ("", made.context))
    return {prefix + f.name: f for prefix, of in owners for f in of}


def _heads(made: Draft) -> list[str]:
    heads = {}
    for name in made.outcomes.ratings:
        values = made.events.rows[name].drop_nulls()
        if text := level(values, name):
            steps = (values.cast(pl.Float64) * (2 if text.startswith("2") else 1)).to_numpy()
            low, high = int(steps.min()), int(steps.max())
            heads[plain_name(name)] = f"Ordinal({high - low + 1}, lowest={low})"
    for task, name in made.outcomes.numbers.items():
        values = made.events.rows[name].drop_nulls()
        skewed = bool((values >= 0).all())
        heads[task] = f'Regression(loss="huber"{", transform=" + quoted("log1p") if skewed else ""})'
    return mapping_lines("heads", heads)


def _rows(made: Draft) -> dict[str, str]:
    """Rows of tables: as many as there are ids, and a quarter more."""
    rows = {}
    for side, column, table in (("user", made.user, made.user_table), ("item", made.item, made.item_table)):
        if column:
            rows[side] = table.total if table else made.distinct(column)
    ids = ("category", "list", "split", "weighted")
    rows |= {n: f.values for n, f in _inputs(made).items() if f.kind in ids and f.values >= _LARGE}
    return {name: f"{_size(n):_}" for name, n in rows.items()}


def _size(ids: int) -> int:
    return min(1 << 22, max(1024, 1 << math.ceil(math.log2(1.25 * ids + 1))))
