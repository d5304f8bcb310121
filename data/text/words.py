"""What the values of a column of text look like, and the one type that fits them all.

A column is text if a value is neither number nor truth value: also by leading zeros, which say more than their number,
and by integers that no type of 64 bits holds. `1.0` beside `1` is an integer.
"""

from collections.abc import Collection
from typing import Literal, TypeVar

import polars as pl

Decimal = Literal[".", ","]
Text = TypeVar("Text", pl.Series, pl.Expr)

# What a value is by its text; the first that fits.
_PATTERNS = {
    "integer": r"^(?:0|[1-9][0-9]{0,17})$",
    "negative": r"^-[1-9][0-9]{0,17}$",
    "long": r"^-?[1-9][0-9]{18,}$",
    "whole": r"^-?(?:0|[1-9][0-9]*)\.0*$",
    "number": r"^-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$",
    "flag": r"^(?i:true|false)$",
    # What stands for unknown, or for a number in other programs or countries.
    "unclear": r"^(?i:[+-]?nan|na|n/a|#n/a|null|none|nil|undefined|[+-]?inf(?:inity)?|\\n|-|\?"
    r"|\s+-?[0-9.]+\s*|-?[0-9.]+\s+|-?[0-9]+,[0-9]+)$",
}
_INTEGERS = {"integer", "negative", "large", "huge"}
NUMBERS = {*_INTEGERS, "whole", "number"}
# What values of JSON are by themselves, beside what they look like.
KINDS = {
    "as text": "text",
    "as number": "a number",
    "as flag": "true or false",
    "as list": "a list",
    "as json": "a list of other values",
}
# Before the words of the elements of lists.
LIST = "list "


def words_of(values: pl.Series) -> dict[str, int]:
    """The words that hold for some of the values, each with the first row, from 0, of which it does.

    integer, negative: within 64 bits. large: an unsigned integer from 2^63 on. huge: an integer beyond 64 bits.
    whole: `1.0`. number, flag, unclear: see `_PATTERNS`. text: anything else. None of nulls.
    """
    rows = values.is_not_null().arg_true()
    left = values.drop_nulls()
    words: dict[str, int] = {}
    for word, pattern in _PATTERNS.items():
        if left.is_empty():
            return words
        fits = left.str.contains(pattern)
        if not fits.any():
            continue
        words |= _long(left.filter(fits), rows.filter(fits)) if word == "long" else _first(word, fits, rows)
        left, rows = left.filter(~fits), rows.filter(~fits)
    return words | ({} if left.is_empty() else {"text": int(rows[0])})


def _first(word: str, fits: pl.Series, rows: pl.Series) -> dict[str, int]:
    return {word: int(rows[int(fits.arg_max() or 0)])} if fits.any() else {}


def _long(values: pl.Series, rows: pl.Series) -> dict[str, int]:
    signed = values.cast(pl.Int64, strict=False).is_not_null()
    large = ~signed & values.cast(pl.UInt64, strict=False).is_not_null()
    minus = values.str.starts_with("-")
    parts = {"integer": signed & ~minus, "negative": signed & minus, "large": large, "huge": ~signed & ~large}
    return {word: row for name, fits in parts.items() for word, row in _first(name, fits, rows).items()}


def clash(words: Collection[str]) -> tuple[str, str] | None:
    """Two words of a column whose values do not go together, the odd one first; None: they do."""
    elements = [w.removeprefix(LIST) for w in words if w.startswith(LIST)]
    if of_elements := clash(elements) if elements else None:
        return LIST + of_elements[0], LIST + of_elements[1] if of_elements[1] else ""
    kinds = [w for w in words if w in KINDS]
    # Lists without an element fit those of other values.
    if len(kinds) > 1 and (elements or set(kinds) != {"as list", "as json"}):
        return kinds[1], kinds[0]
    plain = [w for w in words if w not in KINDS and not w.startswith(LIST)]
    if plain and "as list" in kinds:
        return "as list", plain[0]
    if "text" in plain:
        return None
    number = next((w for w in plain if w in NUMBERS), "")
    if "unclear" in plain:
        return "unclear", number
    return ("flag", number) if "flag" in plain and number else None


def type_of(words: Collection[str]) -> pl.DataType:
    """The type of a column of such values."""
    if "as list" in words and "as json" not in words:
        return pl.List(type_of([w.removeprefix(LIST) for w in words if w.startswith(LIST)]))
    plain = {w for w in words if w not in KINDS}
    if not words:
        return pl.Null()
    if not plain or not NUMBERS.issuperset(plain):
        return pl.Boolean() if plain == {"flag"} else pl.String()
    if "number" in plain or not _INTEGERS & plain:
        return pl.Float64()
    if "huge" in plain or {"negative", "large"} <= plain:
        return pl.String()
    return pl.UInt64() if "large" in plain else pl.Int64()


def with_points(texts: Text, decimal: Decimal) -> Text:
    """Numbers as they are written with a decimal point. With a comma points and commas change places, so that `1.5`
    there is as unclear as `1,5` is here."""
    return texts if decimal == "." else texts.str.replace_many([",", "."], [".", ","])


def typed(column: pl.Expr, words: Collection[str], decimal: Decimal = ".") -> pl.Expr:
    """The values of a column of text in the type of its words. decimal: what stands before fractions."""
    kind = type_of(words)
    if kind.is_numeric():
        column = with_points(column, decimal)
    if kind == pl.Null:
        return pl.lit(None)
    if isinstance(kind, pl.List):
        return column.str.json_decode(kind)
    if kind == pl.Boolean:
        return column.str.to_lowercase() == "true"
    if kind.is_integer() and "whole" in words:
        column = column.str.replace(r"\.0*$", "")
    return column.cast(kind)
