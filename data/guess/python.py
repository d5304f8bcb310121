"""Pieces of the text of a Python file."""

import json
from collections.abc import Iterable, Mapping


def tuple_lines(name: str, values: Iterable[str]) -> list[str]:
    """An argument that is a tuple of strings, or nothing where there are none."""
    held = [quoted(v) for v in values]
    if len(held) > 3:
        return [f"{name}=(", *(f"    {v}," for v in held), "),"]
    return [f"{name}=({', '.join(held)}{',' * (len(held) == 1)}),"] if held else []


def mapping_lines(name: str, values: Mapping[str, str]) -> list[str]:
    """An argument that is a dictionary, or nothing where it is empty. values: key -> the text of an expression."""
    return [f"{name}={{", *(f"    {quoted(key)}: {text}," for key, text in values.items()), "},"] if values else []


def quoted(text: str) -> str:
    """A string, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def column(name: str) -> str:
    """A column as an expression of polars."""
    return f"pl.col({quoted(name)})"
