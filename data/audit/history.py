"""Audit: counters, histories and rates against the log that the samples themselves make up.

The samples of all splits are the events, so what a sample may know of its past can be counted anew. A folder that holds
a part of its log gives other counts for an honest reason: a finding needs a pattern that no missing event explains. So
do groups that are refreshed now and then, and outcomes that are known late.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldrank.data.asof import Grouping, combine
from coldrank.data.audit.audit import LIMITS, Finding, Severity, share
from coldrank.data.audit.features import rank_auc
from coldrank.data.audit.scan import ROW, SELF, Scan

Ints = NDArray[np.int64]
NONE, TIED = -1, -2


@dataclass(frozen=True, slots=True)
class Around:
    """What lies around each of R rows in its group."""

    before: Ints
    """Events strictly earlier, int64 [R]."""
    upto: Ints
    """Events not later, the row's own among them, int64 [R]."""
    total: Ints
    """All events of the group, int64 [R]."""
    previous: Ints
    """Row in `keys` of the event before, int64 [R]; NONE, or TIED where several have that time."""
    following: Ints
    """The same of the event after."""

    @classmethod
    def from_codes(cls, codes: Ints, time: Ints, rows: Ints) -> "Around":
        """codes: the group of each event, int64 [N]. time: int64 [N], ms, in any order. rows: int64 [R], of 0..N-1."""
        by_time = np.argsort(time, kind="stable")
        grouping = Grouping.from_codes(codes[by_time], time[by_time])
        row_at = by_time[grouping.order]
        position = np.empty(len(time), np.int64)
        position[row_at] = np.arange(len(time))
        places = position[rows]
        first, start = grouping.start[places].astype(np.int64), grouping.before[places].astype(np.int64)
        end, last = _next(grouping.before)[places], _next(grouping.start)[places]
        size = _next(grouping.before) - grouping.before

        def row(where: Ints, exists: NDArray[np.bool_]) -> Ints:
            where = np.where(exists, where, 0)
            return np.where(exists, np.where(size[where] == 1, row_at[where], TIED), NONE)

        return cls(start - first, end - first, last - first, row(start - 1, start > first), row(end, end < last))


def _next(starts: NDArray[np.int32]) -> Ints:
    """For every position [N], where the block after its own starts. starts: where its own block starts."""
    blocks = np.flatnonzero(starts == np.arange(len(starts)))
    return np.append(blocks[1:], len(starts))[np.searchsorted(blocks, starts)]


def check_past(scan: Scan) -> list[Finding]:
    """Counters, histories and rates of the sampled rows."""
    rows = scan.sample[ROW].to_numpy()
    time = scan.keys["time"].to_numpy()
    codes = {k: _codes(scan.keys[k]) for k in ("user_id", "item_id")}
    around = {k: Around.from_codes(c, time, rows) for k, c in codes.items()}
    findings = [f for k in codes if (f := _counter(scan, k.removesuffix("_id"), around[k]))]
    if SELF in scan.sample.columns:
        pair = Around.from_codes(combine(list(codes.values())), time, rows)
        whole = bool(np.mean(scan.sample["user_views"].to_numpy() == around["user_id"].before) > 1 - LIMITS.part)
        findings += _history_holds_itself(scan, pair, whole)
        findings += _last_event(scan, around["user_id"])
    return findings + _rates(scan)


def _codes(ids: pl.Series) -> Ints:
    return (ids.rank("dense").cast(pl.Int64) - 1).to_numpy()


def _counter(scan: Scan, kind: str, around: Around) -> Finding | None:
    """user_views or item_views against the number of earlier samples."""
    views = scan.sample[f"{kind}_views"].to_numpy()
    right, with_itself, all_of_log = (float(np.mean(views == n)) for n in (around.before, around.upto, around.total))
    if right > 1 - LIMITS.part:
        return None
    what = f"equals the number of earlier samples of the {kind} in {share(right, 1)} of the rows"
    severity: Severity = "note"
    advice = "nothing to do if the folder holds a part of a longer log"
    if max(with_itself, all_of_log) > max(right, LIMITS.new_ids):
        severity, advice = "error", "count only what is strictly earlier than the sample"
        what += f"; with the sample itself in {share(with_itself, 1)}"
        what += f", with all samples, later ones too, in {share(all_of_log, 1)}"
    elif _is_refreshed(scan, kind):
        return None
    figures = {"before": right, "with_itself": with_itself, "whole_log": all_of_log, "rows": len(views)}
    where = f"all splits: {kind}_views"
    return Finding(severity=severity, check="as of time", where=where, what=what, advice=advice, figures=figures)


def _is_refreshed(scan: Scan, group: str) -> bool:
    """Whether samples see of a group what was known at its last refresh, not the last events."""
    return any(g["name"] == group and g.get("refresh_h") for g in scan.folder.manifest.get("groups", []))


def _history_holds_itself(scan: Scan, pair: Around, whole: bool) -> list[Finding]:
    """The item of the sample is in its history more often than the user met it before."""
    extra = scan.sample[SELF].to_numpy() > pair.before
    rows, repeats = int(extra.sum()), float(np.mean(scan.sample[SELF].to_numpy() > 0))
    if rows < LIMITS.rows or rows < LIMITS.part * len(extra):
        return []
    sure = whole or rows > LIMITS.coincidence * len(extra)
    what = (
        f"in {rows:,} of {len(extra):,} rows ({share(rows, len(extra))})"
        " the history holds the sample's item more often than the user met it before;"
        f" in {share(repeats, 1)} it holds it at all"
    )
    advice = "end the history before the sample: it must not hold the event itself or later ones"
    figures = {"rows": rows, "of": len(extra), "item_in_history": repeats}
    where = "all splits: hist_item_id"
    level: Severity = "error" if sure else "note"
    return [Finding(severity=level, check="history", where=where, what=what, advice=advice, figures=figures)]


def _last_event(scan: Scan, around: Around) -> list[Finding]:
    """The most recent entry of the history against the user's previous sample: its item and its outcomes."""
    judged = around.previous != TIED
    items = scan.keys["item_id"].to_numpy()
    previous, following, rows = around.previous, around.following, scan.sample[ROW].to_numpy()
    newest = scan.sample["hist_item_id[0]"]
    empty, first = newest.is_null().to_numpy(), newest.fill_null(0).to_numpy()
    same = np.where(empty, previous == NONE, (previous >= 0) & (items[previous] == first))
    other = judged & ~same
    matched = judged & same & ~empty
    outcomes = [f for t in scan.tasks if (f := _last_outcome(scan, t, matched, previous, rows))]
    count = int(other.sum())
    later = other & ~empty & (following >= 0) & (items[following] == first) & (items[rows] != first)
    sure = later.sum() > count / 2
    few = count < LIMITS.rows or count < LIMITS.part * int(judged.sum())
    if few or (_is_refreshed(scan, "user") and not sure):
        return outcomes
    what = f"the newest entry is not the user's previous sample in {count:,} of {int(judged.sum()):,} rows"
    what += f" ({share(count, int(judged.sum()))}); in {int(later.sum()):,} of these it is the next one"
    advice = "end the history before the sample" if sure else "is it newest first, and is the folder the whole log?"
    level: Severity = "error" if sure else "note" if count < LIMITS.missing * judged.sum() else "warning"
    figures: dict[str, Any] = {"rows": count, "of": int(judged.sum()), "following": int(later.sum())}
    where = "all splits: hist_item_id"
    entry = Finding(severity=level, check="history", where=where, what=what, advice=advice, figures=figures)
    return [entry, *outcomes]


def _last_outcome(scan: Scan, task: str, matched: NDArray[np.bool_], previous: Ints, rows: Ints) -> Finding | None:
    """The history's newest outcome against the label of the event that it is the outcome of.

    matched: bool [R]. previous, rows: rows of `keys` of the event before and of the sample itself, int64 [R].
    """
    if f"hist_{task}[0]" not in scan.sample.columns:
        return None
    label = scan.keys[f"label_{task}"].fill_null(-1).to_numpy()
    shown = scan.sample[f"hist_{task}[0]"].fill_null(-1).to_numpy()
    differ = matched & (shown != label[previous])
    if scan.folder.manifest.get("known_after", {}).get(task):
        differ &= shown != -1  # not known yet
    count = int(differ.sum())
    if count < LIMITS.rows or count < LIMITS.part * int(matched.sum()):
        return None
    # The rarer outcome tells most: where the history shows it against the label, it is seldom the sample's by chance.
    rare = int((label == 1).sum() < (label == 0).sum())
    telling = differ & (shown == rare)
    own_share = float(np.mean(label[rows[telling]] == rare)) if telling.any() else 0.0
    what = f"in {count:,} of {int(matched.sum()):,} rows the newest outcome is not the label of that event"
    what += f"; where it shows {rare}, the sample's own label is {rare} in {share(own_share, 1)}"
    sure = telling.sum() >= LIMITS.rows and own_share > LIMITS.new_ids
    if _is_refreshed(scan, "user") and not sure:  # an earlier event of the same item
        return None
    return Finding(
        severity="error" if sure else "warning",
        check="history",
        where=f"all splits: hist_{task}",
        what=what,
        advice="the history must show past outcomes, not the sample's own"
        if sure
        else "are signal and label one thing?",
        figures={"rows": count, "of": int(matched.sum()), "own": own_share},
    )


def _rates(scan: Scan) -> list[Finding]:
    """Without an event before, a rate is its prior: it cannot know the sample's own outcome."""
    sample = scan.sampled(*dict.fromkeys(p["split"] for p in scan.parts))
    findings = []
    for group in scan.folder.manifest.get("groups", []):
        name = group["name"]
        views = f"{name}_views" if name in ("user", "item") else f"views_{name}"
        for task in scan.tasks:
            column, prior = f"rate_{name}_{task}", f"rate_{group['parent']}_{task}"
            if not {column, views} <= set(sample.columns):
                continue
            fresh = sample.filter((pl.col(views) == 0) & pl.col(f"label_{task}").is_not_null())
            y = (fresh[f"label_{task}"] == 1).to_numpy()
            if min(y.sum(), (~y).sum()) < LIMITS.expected:
                continue
            value = fresh[column] - (fresh[prior] if prior in fresh.columns else 0.0)
            auc = rank_auc(value.cast(pl.Float64).round(6).fill_null(0.0).to_numpy(), y)
            if auc >= LIMITS.leak_auc:
                what = f"with no event of the group before, it still ranks {task} with AUC {auc:.3f} ({len(y):,} rows)"
                advice = "leave the sample's own outcome out of the rate"
                figures = {"auc": auc, "rows": len(y)}
                where = f"all splits: {column}"
                findings.append(
                    Finding(
                        severity="error", check="as of time", where=where, what=what, advice=advice, figures=figures
                    )
                )
    return findings
