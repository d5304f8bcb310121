"""`--set a.b=c`."""

import dataclasses
import difflib
import json
from typing import Any

from coldrank.data.errors import UserError
from coldrank.models.component import C, find
from coldrank.models.heads.head import Head
from coldrank.models.model import Model
from coldrank.train.config import NAMED
from coldrank.train.former import path_now, renamed
from coldrank.train.hooks.hook import Hook

# Fields that hold something for some of the tables: `--set` may name another.
_BY_TABLE = ("optim.tables.lr_scale", "sharding.memory", "sharding.tables")
# What is declared as a whole.
_IN_ARMS = ("features", "tables")
# Which say what other fields there are: they come first.
_KINDS = (*NAMED, "model", "model.kind")


def override_all(values: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """A config as JSON values with fields changed. Raises UserError for a field that is not there, with what may be
    meant."""
    values = json.loads(json.dumps(values))
    paths = [text.partition("=")[0] for text in texts]
    kinds = [path in _KINDS or path == "tasks" or bool(_task_of(path)) for path in paths]
    for _, text in sorted(zip(kinds, texts, strict=True), key=lambda pair: not pair[0]):
        override(values, text)
    return values


def override(values: dict[str, Any], text: str) -> None:
    """Changes a field in place; a hook's by its name, `mwuf.hidden=8`. A task's number is its weight."""
    path, equals, given = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: write field=value, for example --set train.steps=200")
    path = path_now(path)
    if path in _KINDS:
        _set_kinds(values, path, _value(given), text)
        return
    if (task := _task_of(path)) and _set_task(values.get("tasks"), task, _value(given), text):
        return
    if path.split(".")[0] in _IN_ARMS:
        raise UserError(f"--set {text}: {path.split('.')[0]} are declared by the arm, not by --set")
    parents, last = path.split(".")[:-1], path.split(".")[-1]
    inside = next((values[n] for n in NAMED if path.split(".")[0] in values.get(n, {})), values)
    node: Any = inside
    for depth, part in enumerate([*parents, last]):
        new = ".".join(parents) in _BY_TABLE and depth == len(parents)
        if not isinstance(node, dict) or (part not in node and not new):
            name = ".".join(path.split(".")[: depth + 1])
            raise UserError(f"--set {text}: no field {name!r}; {renamed(path, _value(given)) or _near(part, node)}")
        if depth < len(parents):
            node = node[part]
    value = _value(given)
    if isinstance(value, bool) and type(node.get(last)) in (int, float):
        raise UserError(f"--set {text}: {path} takes a number")
    node[last] = _listed(value) if isinstance(node.get(last), list) else value


def _task_of(path: str) -> str:
    """The task whose head a field says, `tasks.like` or `tasks.like.kind`; '' if none."""
    first, _, name = path.removesuffix(".kind").partition(".")
    return name if first == "tasks" and "." not in name else ""


def _set_task(tasks: Any, name: str, value: Any, text: str) -> bool:
    """Sets a task's weight, of one that is there; or its head, by its kind or whole, of one that may be new. Whether it
    did."""
    there = isinstance(tasks, dict) and isinstance(tasks.get(name), dict)
    if there and _is_number(value):
        tasks[name]["weight"] = value
    elif isinstance(tasks, dict) and isinstance(value, dict):
        tasks[name] = value
    elif isinstance(tasks, dict) and isinstance(value, str):
        tasks[name] = _of_kind(Head, value, tasks[name] if there else {}, text)
    else:
        return False
    return True


def _is_number(value: Any) -> bool:
    """Whether it says a number, be it NaN, which is refused as one."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)


def _set_kinds(values: dict[str, Any], path: str, value: Any, text: str) -> None:
    if path not in NAMED:
        values["model"] = _of_kind(Model, str(value), values.get("model", {}), text)
        return
    before, base = values.get(path, {}), NAMED[path]
    parts: dict[str, Any] = {}
    if isinstance(value, str) and value.startswith("[") != value.endswith("]"):
        raise UserError(f"--set {text}: a bracket is missing")
    for kind in _listed(value):
        fields = before.get(kind) or _of_kind(base, str(kind), {}, text)
        name = find(base, fields["kind"]).short_name()
        if name in parts:
            raise UserError(f"--set {text}: {name!r} is there twice")
        parts[name] = before.get(name, fields)
    values[path] = parts


def _of_kind(base: type[C], kind: str, before: dict[str, Any], text: str) -> dict[str, Any]:
    """The defaults of a kind, with what fields of the same name had before."""
    try:
        cls = find(base, kind)
    except ValueError as error:
        raise UserError(f"--set {text}: {error}") from None
    values: dict[str, Any] = {"kind": cls.kind()}
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        default = None if f.default is dataclasses.MISSING else f.default  # None: has to be set
        values[f.name] = default if f.default_factory is dataclasses.MISSING else f.default_factory()
    return {name: before.get(name, _plain(value)) if name != "kind" else value for name, value in values.items()}


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [p.strip() for p in str(value).strip("[]").split(",") if p.strip()]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _near(part: str, node: Any) -> str:
    have = sorted(node) if isinstance(node, dict) else []
    if isinstance(node, dict) and "hooks" in node and "features" in node:  # the whole config
        have = sorted([*have, *(name for n in NAMED for name in node.get(n, {}))])
        if _is_hook(part):
            names = ",".join([*node["hooks"], part])
            return f"hook {part!r} is off; --set hooks=[{names}] puts it on"
    near = difflib.get_close_matches(part, have, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(have)}" if have else "it has no fields"


def _is_hook(name: str) -> bool:
    try:
        find(Hook, name)
    except ValueError:
        return False
    return True
