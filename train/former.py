"""Configs as they were written before: the names, values and sections of former versions, as those of now."""

from typing import Any

# Fields of `optim` -> their names now, `section.field`, before tables and dense weights had a section each.
_OPTIM = {
    "sparse_lr": "tables.lr",
    "sparse_eps": "tables.eps",
    "sparse_weight_decay": "tables.weight_decay",
    "sparse_warmup_steps": "tables.warmup_steps",
    "sparse_decay": "tables.decay",
    "sparse_clip": "tables.clip_value",
    "table_optimizer": "tables.kind",
    "table_lr_scale": "tables.lr_scale",
    "table_init": "tables.init",
    "dense_lr": "dense.lr",
    "gate_lr_scale": "dense.gate_lr_scale",
    "weight_decay": "dense.weight_decay",
    "clip_norm": "dense.clip_norm",
}
# Hook -> a field's former name, its name now, and what is added to its value: counts below so many, now of at most.
_COUNTS = {"mwuf": ("below_views", "max_views", -1), "metacf": ("below_views", "max_views", -1)}


def with_new_names(values: dict[str, Any]) -> dict[str, Any]:
    """A config as JSON values, its fields where they are now. Before, hooks were names, with a section each whether on
    or off; there was one section of all rankers' fields, and one of the two-tower model; a task was its weight, and all
    were binary; `optim` was one section."""
    values = dict(values)
    if isinstance(names := values.get("hooks", {}), list):
        sections = {name: values.get(name) for name in ("metacf", "mwuf", "pam")}
        values = {name: value for name, value in values.items() if name not in sections}
        values["hooks"] = {name: {"kind": name, **(sections.get(name) or {})} for name in names}
    values["hooks"] = {name: _hook_now(name, of) for name, of in values.get("hooks", {}).items()}
    if isinstance(tasks := values.get("tasks"), dict):
        values["tasks"] = {name: _head_of_before(of) for name, of in tasks.items()}
    if isinstance(optim := values.get("optim"), dict):
        values["optim"] = _optim_of_before(optim)
    model = values.get("model")
    if "two_tower" in values:
        towers = values.pop("two_tower")
        if towers is not None:
            values["model"] = {"kind": "two_tower", **towers}
        elif isinstance(model, dict):
            values["model"] = _ranker_of_before(model)
    return values


def _hook_now(name: str, fields: Any) -> Any:
    if not isinstance(fields, dict):
        return fields
    former, now, added = _COUNTS.get(name, ("", "", 0))
    if type(fields.get(former)) is int and now not in fields:
        fields = {k: v for k, v in fields.items() if k != former} | {now: fields[former] + added}
    if name == "pam":  # its groups were called tasks
        averages = {k: "group" for k in ("support_average", "query_average") if fields.get(k) == "task"}
        fields = fields | averages
    return fields


def path_now(path: str) -> str:
    """A field's path, as `--set` may name it, by the names of now."""
    section, _, inside = path.partition(".")
    field, dot, key = inside.partition(".")
    return f"optim.{_OPTIM[field]}{dot}{key}" if section == "optim" and field in _OPTIM else path


def renamed(path: str, value: Any) -> str:
    """In words, what sets what a field that is there no more set to a value; '' where nothing does."""
    section, _, field = path.partition(".")
    former, name, added = _COUNTS.get(section, ("", "", 0))
    if not former or field != former or type(value) is not int:
        return ""
    return f"what counted views below {value} is {section}.{name}={value + added} now, views of at most so many"


def _optim_of_before(optim: dict[str, Any]) -> dict[str, Any]:
    if "tables" in optim or "dense" in optim:
        return optim
    values: dict[str, Any] = {}
    for name, value in optim.items():
        section, _, field = _OPTIM.get(name, name).rpartition(".")
        holder = values.setdefault(section, {}) if section else values
        holder[field] = value
    return values


def _head_of_before(task: Any) -> Any:
    return {"kind": "binary", "weight": task} if isinstance(task, int | float) and not isinstance(task, bool) else task


def _ranker_of_before(model: dict[str, Any]) -> dict[str, Any]:
    kind = model.get("kind", "ranker")
    lacks = {"ranker": {"crosses"}}.get(kind, model.keys() - {"tower_hidden", "dropout", "crosses"})
    if kind != "dcn":
        lacks = {*lacks, "crosses"}
    return {"kind": kind} | {name: value for name, value in model.items() if name not in lacks and name != "kind"}
