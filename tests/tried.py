"""The table of inputs that were tried: docs/inputs.md.

`@pytest.mark.tried(part, given, answer)` on a test gives it a row. `make inputs` writes the page; a test in
tests/structure holds that it is what the tests say.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "inputs.md"
# Where an input meets the program, in the order of the page.
PARTS = ("logs", "data folders", "configs and runs", "ranks", "hooks", "exports", "requests")
_HEAD = """# Inputs and answers

What was tried and what happens then; each row is a test of its own. Written by `make inputs`.
"""


def page(items: Iterable[pytest.Item]) -> str:
    """The page, from all collected tests. Raises ValueError for a mark that is not (part, given, answer)."""
    rows: dict[str, list[str]] = {part: [] for part in PARTS}
    for item in items:
        for mark in item.iter_markers("tried"):
            if len(mark.args) != 3 or mark.args[0] not in PARTS:
                raise ValueError(f"{item.nodeid}: tried{mark.args}: should be (part, given, answer), part of {PARTS}")
            part, given, answer = mark.args
            test = f"{item.path.name}::{item.name.partition('[')[0]}"
            row = f"| {given} | {answer} | `{test}` |"
            if row not in rows[part]:
                rows[part].append(row)
    parts = [
        f"\n## {part.capitalize()}\n\n| given | answer | test |\n|---|---|---|\n" + "\n".join(sorted(lines)) + "\n"
        for part, lines in rows.items()
        if lines
    ]
    return _HEAD + "".join(parts)
