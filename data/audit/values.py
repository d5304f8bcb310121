"""Audit: values out of range, order of the rows, repeated samples, and whether the splits are apart."""

from typing import Any

import numpy as np
import polars as pl

from coldrank.data.audit.audit import LIMITS, Finding, listed, share
from coldrank.data.audit.scan import Rule, Scan


def check_values(scan: Scan) -> list[Finding]:
    """NaN, infinite, missing and out-of-range values, histories of unequal length, rows out of order."""
    findings = [f for name, rule in scan.rules.items() if (f := _bad_values(scan, name))]
    advice = "prepare the data again; training would stop at the first such value"
    for (index, columns), (row, rows) in scan.misaligned.items():
        what = f"{rows:,} rows whose columns differ in length, the first is row {row}"
        where = f"{scan.parts[index]['path']}: {columns}"
        findings.append(Finding(severity="error", check="values", where=where, what=what, advice=advice))
    for index, row in scan.unordered.items():
        what = f"row {row} is earlier than the row above; samples are to be sorted by time"
        where = f"{scan.parts[index]['path']}: time"
        advice = "sort the file by time: what trains or resumes in the order of time relies on it"
        findings.append(Finding(severity="error", check="order", where=where, what=what, advice=advice))
    return findings


def _bad_values(scan: Scan, column: str) -> Finding | None:
    first = next((i for i, name in scan.stats if name == column and scan.stats[i, name].first_bad), None)
    if first is None:
        return None
    stats, rule = scan.figures(column), scan.rules[column]
    counts = {"nan": stats.nans, "infinite": stats.infinite, "outside": stats.outside}
    counts |= {} if rule.nullable else {"missing": stats.nulls}
    words = {"nan": "NaN", "outside": _outside(rule)}
    faults = ", ".join(f"{n:,} {words.get(k, k)}" for k, n in counts.items() if n)
    return Finding(
        severity="error",
        check="values",
        where=f"{scan.parts[first]['path']}: {column}",
        what=f"{faults} among {stats.values:,} values, {_number(stats.low)} to {_number(stats.high)};"
        f" the first is in row {scan.stats[first, column].first_bad}",
        advice="mend the log and prepare again (a missing value is null, not NaN)",
        figures={**counts, "values": stats.values, "low": stats.low, "high": stats.high},
    )


def _outside(rule: Rule) -> str:
    if rule.problem is not None:
        return f"with a value that {rule.problem(np.zeros(0))[1]}"
    if rule.whole:
        return "that are no whole numbers"
    return "neither 0 nor 1" if rule.binary else _range(rule.low, rule.high)


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"above {_number(high)}" if low is None else f"below {_number(low)}"
    return f"outside {_number(low)}..{_number(high)}"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def check_duplicates(scan: Scan) -> list[Finding]:
    """Samples with the same user, item and time, within a split and across splits."""
    keys = scan.keys
    # Equal rows have equal hashes: only rows whose hash occurs twice are compared.
    hashed = keys.select(pl.struct("user_id", "item_id", "time").hash()).to_series()
    again = keys.filter(hashed.is_duplicated()).with_columns(split=scan.cell("split"))
    trained, tested = pl.col("split").is_in(list(scan.fit)).any(), (pl.col("split") == scan.evaluate).any()
    groups = again.group_by("user_id", "item_id", "time").agg(pl.len(), across=trained & tested)
    groups = groups.filter(pl.col("len") > 1).sort("time", "user_id", "item_id")
    if not len(groups):
        return []
    extra, across = int(groups["len"].sum()) - len(groups), groups.filter("across")
    example = (across if len(across) else groups).row(0, named=True)
    named = f"for example user {example['user_id']}, item {example['item_id']}, time {example['time']}"
    kept = scan.folder.manifest.get("arguments", {}).get("duplicates") == "keep"
    advice = "`prepare` drops rows that are equal in every column: see in which columns these differ"
    findings = [
        Finding(
            severity="warning" if extra > LIMITS.duplicates * len(keys) and not kept else "note",
            check="duplicates",
            where="user_id, item_id, time",
            what=f"{extra:,} of {len(keys):,} samples ({share(extra, len(keys))})"
            f" repeat another's user, item and time; {named}",
            advice="nothing: `prepare` was asked to keep them" if kept else advice,
            figures={"repeated": extra, "samples": len(keys)},
        )
    ]
    if len(across):
        what = f"{len(across):,} samples are trained on and are in {scan.evaluate} as well; {named}"
        advice = "prepare again: a sample must not be trained on and tested"
        figures = {"samples": len(across)}
        where = "user_id, item_id, time"
        findings.append(
            Finding(severity="error", check="splits", where=where, what=what, advice=advice, figures=figures)
        )
    return findings


def split_kind(scan: Scan) -> str:
    """How the data is split: "users" or "time", by what prepare was asked for, else by what is nearer to the data."""
    arguments = scan.folder.manifest.get("arguments", {})
    if arguments.get("split") in ("users", "time"):
        return str(arguments["split"])
    if "test_from" in arguments:
        return "time"
    return "time" if not _late_rows(scan) or _shared_users(scan) else "users"


def check_splits(scan: Scan) -> list[Finding]:
    """A split by time: no trained sample is as late as the first evaluated. By users: no user is in two splits."""
    advice = "prepare again, or choose data.fit and data.evaluate whose samples are apart"
    where = f"{'+'.join(scan.fit)} against {scan.evaluate}"
    if split_kind(scan) == "users":
        shared = _shared_users(scan)
        names = listed([str(u) for u in shared])
        what = f"{len(shared):,} users of the split {scan.evaluate} are trained on as well: {names}"
        figures = {"users": len(shared)}
        bad = bool(shared)
    else:
        late = _late_rows(scan)
        what = (
            f"{late:,} trained samples are not earlier than the first of {scan.evaluate}: training would see the future"
        )
        figures, bad = {"samples": late}, late > 0
    if not bad:
        return []
    return [Finding(severity="error", check="splits", where=where, what=what, advice=advice, figures=figures)]


def _of_splits(scan: Scan, splits: tuple[str, ...]) -> pl.DataFrame:
    wanted = [i for i, p in enumerate(scan.parts) if p["split"] in splits]
    return scan.keys.filter(pl.col("part").is_in(wanted))


def _late_rows(scan: Scan) -> int:
    first = _of_splits(scan, (scan.evaluate,))["time"].min()
    return 0 if first is None else int((_of_splits(scan, scan.fit)["time"] >= first).sum())


def _shared_users(scan: Scan) -> list[int]:
    tested = _of_splits(scan, (scan.evaluate,))["user_id"].unique().to_numpy()
    trained = _of_splits(scan, scan.fit)["user_id"].unique().to_numpy()
    return [int(u) for u in np.intersect1d(tested, trained)]
