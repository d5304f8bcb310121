"""What an audit reads: the columns and their rules, from the manifest and, where one is given, from an arm."""

from typing import Any

import pyarrow as pa

from coldrank.data import parquet
from coldrank.data.arm import ArmSettings
from coldrank.data.audit.audit import Finding
from coldrank.data.audit.scan import Rule, Scan
from coldrank.data.batches import KEYS, DataFolder
from coldrank.data.check import check_schema
from coldrank.data.errors import UserError
from coldrank.data.log import SAMPLED, LabelKind
from coldrank.data.weighted import SUFFIX
from coldrank.models.features import Input
from coldrank.models.heads.head import Head

_YEAR_2100_MS = 4_102_444_800_000


def plan(folder: DataFolder, arm: ArmSettings | None) -> tuple[Scan, list[Finding]]:
    """What to read, and the faults of the files that keep it from being read: with any, the scan cannot be made.

    With an arm its features are examined, without one all columns but labels, true probabilities and the time.
    """
    parts, findings = _parts(folder)
    if not parts:
        return Scan(folder=folder, parts=[], rules={}, features=[], tasks=[], fit=(), evaluate=""), findings
    schema = parquet.schema(folder.path / parts[0]["path"])
    splits = list(dict.fromkeys(p["split"] for p in parts))
    if arm is None:
        kinds = _label_kinds(schema, folder.manifest)
        inputs = _all_inputs(schema, folder.manifest)
        fit, evaluate = tuple(s for s in ("train", "valid") if s in splits) or tuple(splits[:1]), "test"
    else:
        kinds = {t: "flag" if head.is_binary else "number" for t, head in arm.tasks.items()}
        inputs = list(arm.features.inputs)
        fit, evaluate = arm.fit, arm.evaluate
        findings += _check_splits(splits, arm)
    tasks, numbers = ([t for t, k in kinds.items() if (k == "flag") == flags] for flags in (True, False))
    needed = {i.name: i for i in inputs}
    for extra in [*(Input(k, "int") for k in KEYS), *(Input(f"label_{t}", "float") for t in kinds)]:
        needed.setdefault(extra.name, extra)
    if weight := _weight_of(folder.manifest):
        needed[weight] = Input(weight, "float")
    if folder.manifest.get("negatives"):
        needed[SAMPLED] = Input(SAMPLED, "int")
    helpers = _helpers(schema, needed, folder.manifest, tasks)
    columns = [*needed.values(), *helpers]
    for part in parts:
        path = folder.path / part["path"]
        try:
            check_schema(path, parquet.schema(path), columns)
        except UserError as error:
            advice = "prepare the data again, or take the column out of the arm"
            findings.append(
                Finding(severity="error", check="files", where=part["path"], what=str(error), advice=advice)
            )
            break
    findings += _check_widths(folder.manifest, inputs)
    features = [
        i.name for i in inputs if i.name not in ("time", SAMPLED) and not i.name.startswith(("label_", "true_"))
    ]
    rules = {c.name: _rule(c, folder.manifest) for c in columns}
    if weight:
        rules[weight] = Rule(low=0, nullable=False)
    if SAMPLED in rules:
        rules[SAMPLED] = Rule(binary=True, nullable=False)
    rules |= {f"label_{t}": _label_rule(kind, None if arm is None else arm.tasks[t]) for t, kind in kinds.items()}
    scan = Scan(
        folder=folder,
        parts=parts,
        rules=rules,
        features=features,
        tasks=tasks,
        numbers=numbers,
        fit=fit,
        evaluate=evaluate,
        aligned=_aligned(list(rules), folder.manifest),
    )
    return scan, findings


def _aligned(columns: list[str], manifest: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Columns whose lists have equal lengths: those of a history, and ids and their weights."""
    histories = manifest.get("histories", {})
    named = {f"hist_{name}_{c}": name for name, history in histories.items() for c in history["columns"]}
    aligned = {c: (f"history {named.get(c, '')}", "hist_*") for c in columns if c.startswith("hist_")}
    for weights in (c for c in columns if c.endswith(SUFFIX) and c.removesuffix(SUFFIX) in columns):
        ids = weights.removesuffix(SUFFIX)
        aligned |= dict.fromkeys((ids, weights), (ids, f"{ids} and {weights}"))
    return aligned


def _weight_of(manifest: dict[str, Any]) -> str:
    """The column of the samples' weights; "" where the data has none."""
    return str(manifest.get("weight", ""))


def _label_kinds(schema: pa.Schema, manifest: dict[str, Any]) -> dict[str, LabelKind]:
    """Task -> what its label is, as the manifest says; one of before it said so has flags alone."""
    kinds = manifest.get("labels", {})
    return {t: kinds.get(t, "flag") for t in (n[6:] for n in schema.names if n.startswith("label_"))}


def _label_rule(kind: LabelKind, head: Head | None) -> Rule:
    if kind == "flag":
        return Rule(binary=True)
    return Rule(whole=kind == "level", problem=None if head is None else head.label_problem)


def _parts(folder: DataFolder) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The readable partitions in the manifest's order, and a finding for every file that is amiss."""
    findings, parts = [], []
    advice = "prepare the data again: the folder and its manifest.json do not belong together"
    for part in folder.partitions:
        try:
            rows = parquet.rows(folder.path / part["path"])
        except UserError as error:
            what = f"cannot be read: {error}"
            findings.append(Finding(severity="error", check="files", where=part["path"], what=what, advice=advice))
            continue
        parts.append(part)
        if rows != part["rows"]:
            what = f"{rows:,} rows; the manifest says {part['rows']:,}"
            findings.append(Finding(severity="error", check="files", where=part["path"], what=what, advice=advice))
    named = {folder.path / p["path"] for p in folder.manifest["partitions"]}
    for path in sorted(set(folder.path.rglob("*.parquet")) - named):
        where, what = str(path.relative_to(folder.path)), "is not in the manifest; nothing will read it"
        findings.append(Finding(severity="warning", check="files", where=where, what=what, advice=advice))
    if not folder.manifest["partitions"]:
        what = "names no partition"
        findings.append(Finding(severity="error", check="files", where="manifest.json", what=what, advice=advice))
    return parts, findings


def _check_widths(manifest: dict[str, Any], inputs: list[Input]) -> list[Finding]:
    """Vectors of other lengths than the arm reads."""
    lengths = {c["name"]: c.get("length", 0) for c in manifest.get("columns", [])}
    findings = []
    for c in (c for c in inputs if c.width and lengths.get(c.name) not in (None, 0, c.width)):
        what = f"vectors of {lengths[c.name]} numbers; the arm reads {c.width}"
        advice = f"length={lengths[c.name]} of the feature that reads it"
        findings.append(Finding(severity="error", check="arm", where=c.name, what=what, advice=advice))
    return findings


def _check_splits(splits: list[str], arm: ArmSettings) -> list[Finding]:
    """Splits that the data lacks."""
    findings = []
    for name, wanted in (("data.fit", arm.fit), ("data.evaluate", (arm.evaluate,))):
        if lacking := [s for s in wanted if s not in splits]:
            what = f"{name} names {', '.join(lacking)}; the data has {', '.join(splits)}"
            advice = f"--set {name}=... with a split that the data has"
            findings.append(Finding(severity="error", check="arm", where=arm.name, what=what, advice=advice))
    return findings


def _all_inputs(schema: pa.Schema, manifest: dict[str, Any]) -> list[Input]:
    """All columns but labels, true probabilities, the weight and the time, typed as the first file has them."""
    listed = [c["name"] for c in manifest.get("columns", [])] or schema.names
    listed = [name for name in listed if name != _weight_of(manifest)]
    inputs = []
    for name in (n for n in listed if not n.startswith(("label_", "true_")) and n != "time"):
        kind = schema.field(name).type if name in schema.names else pa.int64()
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        inner = kind.value_type if is_list else kind
        inputs.append(Input(name, "float" if pa.types.is_floating(inner) else "int", is_list))
    return inputs


def _helpers(schema: pa.Schema, needed: dict[str, Input], manifest: dict[str, Any], tasks: list[str]) -> list[Input]:
    """Columns beyond the arm's that the checks against the log itself read, where the data has them."""
    wanted = [
        Input("user_views", "int"),
        *(Input(n, "int", True) for n in ("hist_item_id", *(f"hist_{t}" for t in tasks))),
    ]
    for group in manifest.get("groups", []):
        for task in tasks:
            if f"rate_{group['name']}_{task}" in needed:
                wanted += [Input(f"views_{group['name']}", "int"), Input(f"rate_{group['parent']}_{task}", "float")]
    return [c for c in {c.name: c for c in wanted}.values() if c.name in schema.names and c.name not in needed]


def _rule(column: Input, manifest: dict[str, Any]) -> Rule:
    """Range, missing values and default of a column, by what the arm says of it and by its name."""
    name, low, high = column.name, column.low, column.high
    groups = [g["name"] for g in manifest.get("groups", [])]
    signals = manifest.get("signals", [])
    if name == "time":
        return Rule(low=0, high=_YEAR_2100_MS, nullable=False)
    if name in {f"rate_{g}_{s}" for g in groups for s in signals}:
        return Rule(low=0, high=1)
    if name in {"user_views", "item_views", *(f"views_{g}" for g in groups)}:
        return Rule(low=0, nullable=False)
    if name in ("item_age_h", "user_gap_h"):
        return Rule(low=0)
    if name in {f"hist_{s}" for s in signals}:
        low, high = -1, 1
    past = column.is_list and name.startswith("hist_")
    if past and column.dtype == "float":
        return Rule(low=low, high=high)
    default = -1 if past else column.default
    return Rule(low=low, high=high, nullable=not column.is_list and name not in KEYS, default=default)
