"""In what two configurations differ: what diff.txt says, and why a run does not go on."""

from typing import Any

from coldrank.data.errors import UserError
from coldrank.train.arms import candidates, find_arm, import_module
from coldrank.train.config import NAMED, RunConfig, to_dict


def difference(config: RunConfig, base: RunConfig) -> str:
    """The fields in which two configs differ, a line each: `field: base -> config`; tasks, features, tables and hooks
    by name."""
    ours, theirs = to_dict(config), to_dict(base)
    lines = []
    for name in ("tasks", "hooks"):
        before, now = ([k for k in side[name] if k in other[name]] for side, other in ((theirs, ours), (ours, theirs)))
        if before != now:
            lines.append(f"{name}: {before} -> {now}")
    for name in ("tasks", "features", "tables", "hooks", "metrics"):
        a, b = (_by_name(side.pop(name)) for side in (theirs, ours))
        lines += [f"{name}.{key}: removed" for key in a if key not in b]
        lines += [f"{name}.{key}: added {b[key]}" for key in b if key not in a]
        both = [key for key in a if key in b]
        prefix = "" if name in NAMED else f"{name}."  # as `--set` names them
        ours |= {f"{prefix}{key}": b[key] for key in both}
        theirs |= {f"{prefix}{key}": a[key] for key in both}
    flat_ours, flat_theirs = flat(ours), flat(theirs)
    keys = [k for k in dict.fromkeys([*flat_theirs, *flat_ours]) if flat_ours.get(k) != flat_theirs.get(k)]
    changed = [f"{k}: {flat_theirs.get(k, '(none)')} -> {flat_ours.get(k, '(none)')}" for k in keys]
    return "".join(line + "\n" for line in [*changed, *lines])


def from_base(source: str, config: RunConfig) -> str:
    """Difference to the arm `base` of the module of `source`, as `load` takes it, if it has one; to nothing when a
    config.json is repeated."""
    if source.endswith(".json"):
        return f"repeats {source}\n"
    module = source.partition(":")[0]
    if "base" not in candidates(import_module(module, f"--config {source}"), RunConfig):
        return ""
    try:
        return difference(config, find_arm(f"{module}:base", RunConfig))
    except UserError as error:  # the arm has no need of it
        return f"no base to compare with: {error}\n"


def _by_name(entries: Any) -> dict[str, Any]:
    return entries if isinstance(entries, dict) else {entry["name"]: entry for entry in entries}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields of nested objects by their whole names, `a.b`."""
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        flattened |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flattened
