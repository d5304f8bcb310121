"""Runs the checks, and writes what they find: a table, Markdown, JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from coldrank.data.arm import ArmSettings
from coldrank.data.audit.arm import check_arm
from coldrank.data.audit.audit import LIMITS, SEVERITIES, Finding
from coldrank.data.audit.drift import check_ids, check_labels
from coldrank.data.audit.features import check_constant, check_leaks, check_missing
from coldrank.data.audit.history import check_past
from coldrank.data.audit.newness import check_newness
from coldrank.data.audit.plan import plan
from coldrank.data.audit.scan import scan
from coldrank.data.audit.times import check_few, check_times
from coldrank.data.audit.values import check_duplicates, check_splits, check_values
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.data.output import new_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What was looked at and what was found."""

    data: str
    """The data folder."""
    arm: str | None
    """Name of the arm that it was checked for; None: of no arm."""
    rows: int
    """Samples read."""
    sampled: int
    """Samples kept whole, for the checks that look at rows."""
    columns: int
    """Number of columns read."""
    complete: bool
    """Whether all checks were made. False where files could not be read; then only these are reported."""
    findings: tuple[Finding, ...]
    """What was found, the gravest first."""

    def count(self, severity: str) -> int:
        """Number of findings of a severity."""
        return sum(f.severity == severity for f in self.findings)


def audit(path: Path, arm: ArmSettings | None = None, known: Sequence[Finding] = ()) -> Audit:
    """Checks a prepared data folder. With an arm, only its features are checked, and its settings as well.

    known: what is known of the arm already. Raises UserError if it is no such folder.
    """
    folder = DataFolder.open(path)
    if not isinstance(folder.manifest.get("partitions"), list):
        raise UserError(f"{path}/manifest.json: no list 'partitions'; make the data with `coldrank prepare`")
    folder = folder.read_since(arm.since if arm else "")
    read, findings = plan(folder, arm)
    complete = not any(f.severity == "error" and f.check in ("files", "arm") for f in findings)
    if complete:
        scan(read)
        events = read.events()
        findings += check_values(read) + check_times(read) + check_duplicates(events) + check_splits(read)
        findings += check_labels(read) + check_few(read) + check_ids(read)
        findings += check_constant(read, arm is not None) + check_missing(read) + check_leaks(read)
        findings += check_past(events)
        findings += [*check_arm(read, arm), *check_newness(read, arm), *known] if arm else []
    return Audit(
        data=str(path),
        arm=arm.name if arm else None,
        rows=len(read.keys),
        sampled=len(read.sample),
        columns=len(read.rules),
        complete=complete,
        findings=tuple(sorted(findings, key=lambda f: SEVERITIES.index(f.severity))),
    )


def summary(done: Audit) -> str:
    """One line or two: what was looked at, and how much was found."""
    counts = ", ".join(f"{n} {s}{'' if n == 1 else 's'}" for s in SEVERITIES if (n := done.count(s))) or "nothing found"
    looked = f"{done.rows:,} samples, {done.columns} columns; rows were looked at in {done.sampled:,} of them"
    if not done.complete:
        looked = "not read; the other checks follow when the errors are mended"
    return f"{done.data}{f', arm {done.arm}' if done.arm else ''}: {counts} ({looked})"


def table(findings: Sequence[Finding], tablefmt: str = "grid") -> str:
    """The findings as a table; `tablefmt` as in tabulate."""
    body = [[f.severity, f.check, f.where, f.what, f.advice] for f in findings]
    widths = None if tablefmt == "github" else [8, 12, 26, 48, 30]
    return str(
        tabulate(
            body, ["", "check", "where", "finding", "what to do"], tablefmt, maxcolwidths=widths, disable_numparse=True
        )
    )


def write(done: Audit, out: Path) -> None:
    """`check.json` and `check.md` in the new folder `out`, complete or not at all."""
    content: dict[str, Any] = {"format": 1, **asdict(done), "limits": asdict(LIMITS)}
    with new_folder(out) as partial:
        (partial / "check.json").write_text(json.dumps(content, indent=1, default=str) + "\n")
        (partial / "check.md").write_text(
            f"# Check of the data\n\n{summary(done)}\n\n{table(done.findings, 'github')}\n"
        )
