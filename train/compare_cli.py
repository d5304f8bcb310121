"""`coldrank compare`."""

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldrank.train.errors import UserError

if TYPE_CHECKING:
    from coldrank.train.compare import Row
    from coldrank.train.compare_runs import Run


def add_compare(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "compare",
        help="compare runs per task and cohort, with intervals",
        description="Groups run folders by arm (`name` in config.json), compares each arm with the baseline on the same "
        "scored rows, and prints AUC per task and cohort with 95% intervals that cover the choice of users and of seeds; AUC at fixed "
        "AVC, NE and GAUC are in OUT/compare.md. "
        "A run folder needs config.json with name and seed, and predictions-SPLIT.parquet; other tools' runs work too.",
    )
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder; several seeds of an arm are averaged")
    p.add_argument(
        "--baseline", metavar="RUN_OR_ARM", help="arm to compare with, or a run of it (default: base, else the first)"
    )
    p.add_argument("--out", required=True, type=Path, help="new folder for compare.json and compare.md")
    p.add_argument("--split", default="test", help="which predictions-SPLIT.parquet to read (default: test)")
    p.add_argument("--resamples", type=int, default=300, help="draws of users for the intervals (default: 300)")
    p.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    p.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> None:
    from coldrank.train.compare import compare
    from coldrank.train.compare_runs import common_cohorts
    from coldrank.train.compare_table import LEGEND, format_overview, format_verdicts

    if args.out.exists():
        raise UserError(f"--out {args.out}: exists already; give a new folder")
    if args.resamples < 20:
        raise UserError(f"--resamples {args.resamples}: expected at least 20; 300 is a good number")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: expected 0 or more")
    runs, baseline = choose_runs(args.runs, args.baseline, args.split)
    cohorts = common_cohorts(runs)
    rows = compare(runs, baseline, resamples=args.resamples, seed=args.seed, cohorts=cohorts)
    notes = left_out(runs)
    settings = {"split": args.split, "baseline": baseline, "resamples": args.resamples, "seed": args.seed}
    write_comparison(args.out, rows, runs, {**settings, "cohorts": asdict(cohorts)}, notes)
    print("\n".join(["", format_overview(rows), "", LEGEND, "", format_verdicts(rows), *notes]))
    print(f"\n{args.out}: every metric in compare.md; compare.json has the spread from users and from seeds apart")


def choose_runs(folders: Sequence[Path], baseline: str | None, split: str) -> tuple[list["Run"], str]:
    """The runs to read and the name of the baseline arm; a baseline given as a folder joins the runs."""
    from coldrank.train.compare_runs import group_by_arm, read_run

    folders = list(folders)
    if baseline is not None and (Path(baseline) / "config.json").is_file():
        if Path(baseline).resolve() not in [folder.resolve() for folder in folders]:
            folders.insert(0, Path(baseline))
        baseline = read_run(Path(baseline), split).arm
    runs = [read_run(folder, split) for folder in folders]
    arms = group_by_arm(runs)
    baseline = baseline or ("base" if "base" in arms else runs[0].arm)
    if baseline not in arms:
        raise UserError(f"--baseline {baseline}: neither a run folder nor one of the arms {', '.join(arms)}")
    if len(arms) < 2:
        raise UserError(f"all runs are of arm {baseline} (`name` in config.json); give runs of another arm to compare")
    return runs, baseline


def left_out(runs: Sequence["Run"]) -> list[str]:
    """A line for every task that some runs lack, which is therefore not compared."""
    tasks = dict.fromkeys(task for run in runs for task in run.tasks)
    lacking = {task: [str(run.folder) for run in runs if task not in run.tasks] for task in tasks}
    return [f"Task {task} is left out: not predicted by {', '.join(who)}." for task, who in lacking.items() if who]


def write_comparison(
    out: Path, rows: Sequence["Row"], runs: Sequence["Run"], settings: dict[str, Any], notes: Sequence[str]
) -> None:
    """Write `compare.json` and `compare.md` into the new folder `out`, complete or not at all.

    compare.json: the settings, `runs` (path, arm, seed), `notes`, and `rows` with the fields of `compare.Row`.
    """
    from coldrank.train.compare_table import LEGEND, format_cohorts, format_details, format_overview, format_verdicts

    listed = [{"path": str(run.folder), "arm": run.arm, "seed": run.seed} for run in runs]
    content = {"format": 1, **settings, "level": 0.95, "unit": "percent, differences in percentage points"}
    content |= {"runs": listed, "notes": list(notes), "rows": [asdict(row) for row in rows]}
    sections = [
        f"# Comparison with {settings['baseline']} on split {settings['split']}",
        format_overview(rows, tablefmt="github"),
        LEGEND,
        format_verdicts(rows) + "".join(f"\n{note}" for note in notes),
        format_cohorts(rows),
        "## All figures\n\nSpreads are standard errors of the difference in percentage points.",
        format_details(rows),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        partial.chmod(0o755)  # mkdtemp makes a private folder
        (partial / "compare.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        (partial / "compare.md").write_text("\n\n".join(sections) + "\n")
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
