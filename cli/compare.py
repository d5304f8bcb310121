"""`coldrank compare`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldrank.analysis.compare.aspects import Aspect
from coldrank.cli.options import data_path, local_path
from coldrank.data.errors import UserError

if TYPE_CHECKING:
    from coldrank.analysis.compare.rows import Comparison
    from coldrank.analysis.compare.runs import ScoredRun


def add_compare(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "compare",
        help="compare runs per task and cohort, with intervals",
        description="Groups run folders by arm (`name` in config.json), compares each arm with the baseline on "
        "the same "
        "scored rows, and prints AUC per task and cohort with 95% intervals that cover the choice of users and "
        "of seeds, and verdicts "
        "that are corrected for the number of comparisons; AUC at fixed AVC, NE, GAUC (of tasks of numbers "
        "XAUC, MAE, calibration) and the t-test over days are in OUT/compare.md. "
        "Runs of other data, splits, features, tasks or passes are refused; runs that failed in training are "
        "named and left out. "
        "A run folder needs config.json with name and seed, and predictions-SPLIT.parquet; other tools' runs work too.",
    )
    p.add_argument("runs", nargs="+", type=local_path, metavar="RUN", help="run folder, or a folder of them")
    p.add_argument(
        "--baseline", metavar="RUN_OR_ARM", help="arm to compare with, or a run of it (default: base, else the first)"
    )
    p.add_argument(
        "--out", required=True, type=local_path, help="new folder for compare.json, compare.md and report.html"
    )
    p.add_argument("--split", default="test", help="which predictions-SPLIT.parquet to read (default: test)")
    p.add_argument("--resamples", type=int, default=300, help="draws of users for the intervals (default: 300)")
    p.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    p.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=[aspect.value for aspect in Aspect],
        help="compare although the runs differ in this, and print how; can be given again",
    )
    p.add_argument(
        "--data", type=data_path, help="prepared data, for the report's data card (default: where the runs say it is)"
    )
    p.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> None:
    from coldrank.analysis.compare.checks import require_same_conditions
    from coldrank.analysis.compare.compare import compare
    from coldrank.analysis.compare.controls import find_controls, format_controls
    from coldrank.analysis.compare.runs import find_data, without_run
    from coldrank.analysis.compare.table import format_overview, format_verdicts, legend
    from coldrank.data.output import check_new

    check_new("--out", args.out)
    if args.resamples < 20:
        raise UserError(f"--resamples {args.resamples}: expected at least 20; 300 is a good number")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: expected 0 or more")
    if args.data is not None and not (args.data / "manifest.json").is_file():
        raise UserError(f"--data {args.data}: no manifest.json in it; give a folder written by `coldrank prepare`")
    runs, baseline = choose_runs(args.runs, args.baseline, args.split)
    notes = without_run(args.runs)
    require_same_conditions(runs, baseline, args.allow)  # before the data are looked at, which takes longer
    data, _ = find_data([run.facts for run in runs], args.data)
    comparison = compare(
        runs,
        baseline,
        resamples=args.resamples,
        seed=args.seed,
        allowed=args.allow,
        notes=notes,
        controls=find_controls(runs, data),
    )
    write_comparison(args.out, comparison, args.data)
    print(
        "\n".join(
            [
                "",
                format_overview(comparison.rows),
                "",
                legend(comparison.rows),
                "",
                format_verdicts(comparison.rows),
                *comparison.notes,
                "",
                format_controls(comparison.controls),
            ]
        )
    )
    print(
        f"\n{args.out}: report.html shows all of it; compare.md has every metric, the spreads and the t-test over days"
    )


def choose_runs(folders: Sequence[Path], baseline: str | None, split: str) -> tuple[list["ScoredRun"], str]:
    """The runs to read and the name of the baseline arm; a baseline given as a folder joins the runs."""
    from coldrank.analysis.compare.checks import require_distinct
    from coldrank.analysis.compare.runs import group_by_arm, read_run, run_folders

    folders = run_folders(folders)
    if baseline is not None and (Path(baseline) / "config.json").is_file():
        if Path(baseline).resolve() not in [folder.resolve() for folder in folders]:
            folders.insert(0, Path(baseline))
        baseline = read_run(Path(baseline), split).arm
    runs = [read_run(folder, split) for folder in folders]
    require_distinct(runs)
    arms = group_by_arm(runs)
    baseline = baseline or ("base" if "base" in arms else runs[0].arm)
    if baseline not in arms:
        raise UserError(f"--baseline {baseline}: neither a run folder nor one of the arms {', '.join(arms)}")
    if len(arms) < 2:
        raise UserError(f"all runs are of arm {baseline} (`name` in config.json); give runs of another arm to compare")
    return runs, baseline


def write_comparison(out: Path, comparison: "Comparison", data: Path | None = None) -> None:
    """Write `compare.json` (`Comparison.to_json`), `compare.md` and `report.html` into the new folder `out`, complete
    or not at all. `data`: the prepared data, for the report."""
    from coldrank.analysis.compare.controls import format_controls
    from coldrank.analysis.compare.table import format_cohorts, format_details, format_overview, format_verdicts, legend
    from coldrank.analysis.report.page import report_html
    from coldrank.data.output import new_folder

    source = "of the data" if comparison.day_source == "data" else comparison.day_source
    about = (
        "Spreads are standard errors of the difference in percentage points. p is of the interval's t, p "
        "corrected is Holm's"
        f" over the arm's figures; p over days is of a paired t-test over {len(comparison.days)} days ({source}), "
        f"each one sample."
    )
    sections = [
        f"# Comparison with {comparison.baseline} on split {comparison.split}",
        format_overview(comparison.rows, tablefmt="github"),
        legend(comparison.rows),
        "\n".join([format_verdicts(comparison.rows), *comparison.notes]),
        format_controls(comparison.controls, tablefmt="github"),
        format_cohorts(comparison.rows),
        "## All figures",
        about,
        format_details(comparison.rows),
    ]
    report = report_html(comparison, data)
    with new_folder(out) as partial:
        (partial / "compare.json").write_text(json.dumps(comparison.to_json(), indent=1, allow_nan=False) + "\n")
        (partial / "compare.md").write_text("\n\n".join(sections) + "\n")
        (partial / "report.html").write_text(report)
