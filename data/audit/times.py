"""Audit: times that cannot be right, and labels with too few positives or negatives to judge."""

from coldrank.data.audit.audit import LIMITS, Finding, listed
from coldrank.data.audit.drift import label_rates
from coldrank.data.audit.scan import Scan
from coldrank.data.times import DayTimes, time_doubts, today


def check_times(scan: Scan) -> list[Finding]:
    """Times of before there were such logs or of the future, and days that lie far from all others."""
    advice = "mend the unit or the rows (time_unit in the spec) and prepare again: ages and gaps are of these times"
    return [
        Finding(severity="warning", check="times", where="time", what=doubt, advice=advice)
        for doubt in time_doubts(DayTimes.of_times(scan.keys["time"].to_numpy()), None, today())
    ]


def check_few(scan: Scan) -> list[Finding]:
    """Labels of which a split has some positives and negatives, but too few of one of them."""
    few: dict[str, list[str]] = {}
    for task in scan.tasks:
        for split, rate in label_rates(scan, task, "split").items():
            if (
                split in (*scan.fit, scan.evaluate)
                and 0 < min(rate.positives, rate.known - rate.positives) < LIMITS.expected
            ):
                counts = f"{rate.positives:,} and {rate.known - rate.positives:,}"
                few.setdefault(split, []).append(f"label_{task} ({counts})")
    return [
        Finding(
            severity="note",
            check="labels",
            where=split,
            what=f"fewer than {LIMITS.expected} positives or negatives, too few to judge: {listed(names)}",
            advice="a larger split (--test-from, --test-share), or leave the task out",
        )
        for split, names in few.items()
    ]
