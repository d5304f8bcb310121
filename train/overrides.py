"""`--set a.b=c`, and the names that fields had before."""

import difflib
import json
from typing import Any

from coldrank.data.errors import UserError

# Fields that hold something for some of the tables: `--set` may name another.
_BY_TABLE = ("optim.table_lr_scale", "sharding.tables")
# Section -> a field's former name, its name now, and what is added to its value: counts below so many, now of at most.
_RENAMED = {"mwuf": ("below_views", "max_views", -1), "metacf": ("below_views", "max_views", -1)}


def override(values: dict[str, Any], text: str) -> None:
    """Changes a field of a config as JSON values. Raises UserError for a field that is not there, with what may be meant."""
    path, equals, given = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: write field=value, for example --set train.steps=200")
    *parents, last = path.split(".")
    node: Any = values
    for depth, part in enumerate([*parents, last]):
        new = ".".join(parents) in _BY_TABLE and depth == len(parents)
        if not isinstance(node, dict) or (part not in node and not new):
            name = ".".join(path.split(".")[: depth + 1])
            raise UserError(f"--set {text}: no field {name!r}; {_renamed(path, given) or _near(part, node)}")
        if depth < len(parents):
            node = node[part]
    value = _value(given)
    if isinstance(value, bool) and type(node.get(last)) in (int, float):
        raise UserError(f"--set {text}: {path} takes a number")
    if isinstance(node.get(last), list) and not isinstance(value, list):
        value = [part.strip() for part in str(value).strip("[]").split(",") if part.strip()]
    node[last] = value


def with_new_names(values: dict[str, Any]) -> dict[str, Any]:
    """A config as JSON values, fields under the names that they have now; those of a hook that is off are left out, where the old
    default would be another value than the new one."""
    values = dict(values)
    for section, (old, new, added) in _RENAMED.items():
        fields = values.get(section)
        if isinstance(fields, dict) and type(fields.get(old)) is int and new not in fields:
            now = {new: fields[old] + added} if section in (values.get("hooks") or ()) else {}
            values[section] = {k: v for k, v in fields.items() if k != old} | now
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _renamed(path: str, text: str) -> str:
    section, _, field = path.partition(".")
    old, new, added = _RENAMED.get(section, ("", "", 0))
    value = _value(text)
    if field != old or type(value) is not int:
        return ""
    return f"what counted views below {value} is {section}.{new}={value + added} now, views of at most so many"


def _near(part: str, node: Any) -> str:
    have = sorted(node) if isinstance(node, dict) else []
    near = difflib.get_close_matches(part, have, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(have)}" if have else "it has no fields"
