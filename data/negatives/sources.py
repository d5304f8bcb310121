"""Where the columns of a negative come from: the event, the item's table, or the item's last event."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from coldrank.data.columns import ColumnPlan, convert
from coldrank.data.errors import UserError
from coldrank.data.events import plan_columns
from coldrank.data.ids import as_column
from coldrank.data.log import EventLog, expression
from coldrank.data.vectors import VECTOR

BIRTH = "birth:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """The columns of a negative that are its item's; all others are its event's, or unknown."""

    last: tuple[str, ...]
    """Those of the last event of the item before: keys, features of items and births that read the log."""
    table: pl.DataFrame
    """The others of the items of a table, by ascending `item_id`: keys and births that read it alone."""

    @classmethod
    def of(cls, log: EventLog) -> "Sources":
        """Raises UserError for a key of which it is not clear whose it is."""
        spec, plan = log.spec, {c.name: c for c in plan_columns(log)}
        last = [] if log.items is not None else [f"item_{n}" for n in spec.item_features]
        of_table = []
        sides = {f"key:{n}": _side(log, plan[f"key:{n}"], n) for n in spec.keys}
        if spec.item_birth is not None:
            sides[BIRTH] = "table" if _reads(log.items, plan[BIRTH]) == "alone" else "item"
        for name, side in sides.items():
            if side == "table":
                of_table.append(plan[name])
            elif side == "item":
                last.append(name)
        return cls(last=tuple(last), table=_of_table(log.items, of_table))

    def rows_of_table(self, items: pl.Series) -> pl.DataFrame:
        """What the table says of some items [R]; null where it lacks them."""
        wanted = pl.DataFrame({"item_id": items})
        return wanted.join(self.table, on="item_id", how="left", maintain_order="left").drop("item_id")


def check_sources(log: EventLog) -> None:
    """Raises UserError for a key of which it is not clear whose it is, where negatives are wanted."""
    if log.spec.negatives is not None:
        Sources.of(log)


def unknown(schema: Mapping[str, pl.DataType], rows: int) -> pl.DataFrame:
    """Rows of which nothing is known: null, or vectors and lists that are empty."""
    frame = pl.DataFrame({n: [None] * rows for n in schema}, dict(schema))
    return frame.with_columns(
        pl.col(n).fill_null(pl.lit([], dtype=kind))
        for n, kind in schema.items()
        if kind == VECTOR or isinstance(kind, pl.List)
    )


def _reads(table: pl.DataFrame | None, column: ColumnPlan) -> str:
    """Whether a column reads a table: no, some, or alone."""
    inputs = column.inputs()
    held = [n for n in inputs if table is not None and n in table.columns]
    return "no" if not held else "alone" if len(held) == len(inputs) else "some"


def _side(log: EventLog, column: ColumnPlan, name: str) -> str:
    """Whose a key is: event, item (of its last event), or table."""
    assert log.spec.negatives is not None
    said, where = log.spec.negatives.keys.get(name), f"spec: negatives: keys: {name!r}"
    users, items = _reads(log.users, column), _reads(log.items, column)
    if users != "no" and items != "no":
        raise UserError(f"{where} reads both users and items, and would be neither's; take a key of either")
    side = "table" if items == "alone" else "event" if users == "alone" or not column.inputs() else None
    if side is not None:
        if said is not None:
            raise UserError(f"{where}: has no effect, as the key reads no column of the log")
        return side
    if said is None:
        raise UserError(
            f"{where} reads {', '.join(column.inputs())} of the log: is it of the item or of the event?"
            f" Negatives(keys={{{name!r}: 'item'}}) or 'event'"
        )
    if (said, "some") in (("item", users), ("event", items)):
        raise UserError(f"{where}={said!r}, but it reads the table of {'users' if said == 'item' else 'items'}")
    return said


def _of_table(table: pl.DataFrame | None, plan: list[ColumnPlan]) -> pl.DataFrame:
    if table is None or not plan:
        return pl.DataFrame({"item_id": np.empty(0, np.int64)})
    where = Path("the table of items")
    values = table.select(expression(c.source).alias(c.name) for c in plan)
    columns = [convert(c, values[c.name], where).alias(c.name) for c in plan]
    return pl.DataFrame([as_column(table["item_id"], f"{where}: item_id"), *columns]).sort("item_id")
