"""Prints pip constraints that hold every dependency of pyproject.toml at the lowest version that it allows.

    python packaging/lowest.py >constraints.txt && pip install -c constraints.txt -e '.[dev]'

What a dependency needs itself stays free: pip takes its newest that fits.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def needs(project: Path = PROJECT) -> Iterator[tuple[str, str]]:
    """Name and version specifier of every dependency and extra, but for the project's own extras."""
    table = tomllib.loads(project.read_text())["project"]
    for need in [*table["dependencies"], *(n for extra in table["optional-dependencies"].values() for n in extra)]:
        name, specifier = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?(.*)", need).groups()
        if name != table["name"]:
            yield name, specifier


if __name__ == "__main__":
    for name, specifier in needs():
        if lowest := re.search(r">=([\w.]+)", specifier):
            print(f"{name}=={lowest[1]}")
