"""The table of what a LogSpec can say: docs/spec_fields.md, from the docstrings under its fields.

`make inputs` writes the page; a test in tests/structure holds that it is what the code says.
"""

import inspect
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from coldrank.data import log
from coldrank.train.describe import meanings

PAGE = Path(__file__).parents[1] / "docs" / "spec_fields.md"
CLASSES = (log.LogSpec, log.Group, log.History, log.Negatives)
_HEAD = """# The fields of a spec

What `spec.py` can say of a log ([own data](own-data.md), [the rules](own_log.md)). Written by `make inputs` from
`data/log.py`.
A `Column` is the name of a column or a polars expression of the row alone.
"""


def page() -> str:
    """The page."""
    return _HEAD + "".join(_table(kind) for kind in CLASSES)


def _table(kind: type[Any]) -> str:
    meaning = meanings(kind)
    rows = [f"| `{f.name}` | {_type(kind, f.name)} | {_default(f)} | {_cell(meaning[f.name])} |" for f in fields(kind)]
    about = inspect.getdoc(kind) or ""
    head = (
        f"\n## {kind.__name__}\n\n{about.splitlines()[0]}\n\n| field | type | default | meaning |\n|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def _type(kind: type[Any], name: str) -> str:
    source = inspect.getsource(kind)
    found = re.search(rf"^    {name}: (.+?)(?: = .*)?$", source, re.MULTILINE)
    assert found is not None
    return f"`{_cell(found[1])}`"


def _default(field: Any) -> str:
    if field.default is not MISSING:
        return f"`{field.default!r}`"
    return "" if field.default_factory is MISSING else "empty"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
