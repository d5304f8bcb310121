"""In what two configurations differ: what diff.txt says, and why a run does not go on."""

from typing import Any

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


def _by_name(entries: Any) -> dict[str, Any]:
    return entries if isinstance(entries, dict) else {entry["name"]: entry for entry in entries}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields of nested objects by their whole names, `a.b`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
