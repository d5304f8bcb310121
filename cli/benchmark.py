"""`coldrank benchmark`."""

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldrank.cli.options import add_data, add_jobs, add_set, local_path
from coldrank.data.errors import UserError

if TYPE_CHECKING:
    from coldrank.analysis.benchmark.outcome import Benchmark
    from coldrank.experiments.benchmark.engine import Setting

SUITES = ("ranker", "streams")


class Faulty(UserError):
    """The benchmark is done, and a method leaks, was not tested or failed."""

    exit_code = 1


def add_benchmark(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "benchmark",
        help="compare methods with a base under one protocol",
        description="Holds the methods of a suite, and your own, against one base arm on prepared data: the same "
        "columns, passes and seeds, as many trials for each, and a test of each for leaks. Writes OUT/benchmark.md, "
        ".json and .html. Called again it goes on. Exit code 1: a method leaks, was not tested or failed.",
    )
    p.add_argument("suite", choices=SUITES, help="ranker: passes over the data; streams: periods, two-tower models")
    p.add_argument("--config", required=True, help="the base: package.module:arm, or a config.json")
    add_data(p)
    p.add_argument("--out", required=True, type=local_path, help="folder of the benchmark")
    p.add_argument(
        "--methods", default="", metavar="A,B,...", help="of the suite these alone (default: all that apply)"
    )
    p.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="MODULE[:NAME,...]",
        help="methods of your own: functions of the base's RunConfig, or arms, that return a RunConfig; can be given "
        "again",
    )
    p.add_argument("--trials", type=int, default=4, help="settings that each is tried at (default: 4; 1: as it is)")
    p.add_argument("--seeds", type=int, default=5, help="reported runs of each (default: 5)")
    p.add_argument(
        "--by", default="", metavar="A,B,...", help="what trials are judged by, as for tune (default: suite's)"
    )
    p.add_argument("--cohort", default="", metavar="A,B,...", help="cohorts that count (default: the suite's)")
    p.add_argument("--tasks", default="", metavar="A,B,...", help="tasks that count (default: all that have an AUC)")
    p.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="FIELD=VALUES",
        help="what all trials draw, in the place of the learning rates: field*3 (a third to three times of what it "
        "is), or as for tune; can be given again",
    )
    p.add_argument(
        "--budget", metavar="TIME", help="90s, 30m or 1h: cuts trials, then seeds, then passes until it is about enough"
    )
    add_set(p)
    add_jobs(p)
    p.set_defaults(run=_benchmark)


def _benchmark(args: argparse.Namespace) -> None:
    try:
        from coldrank.experiments.benchmark.engine import check, make_arms, run
    except ModuleNotFoundError as error:
        raise UserError(f"needs {error.name}: pip install 'coldrank[tune]'") from None
    from tqdm import tqdm

    from coldrank.data.batches import DataFolder
    from coldrank.data.output import check_folder
    from coldrank.experiments.sweep import refuse_ranks
    from coldrank.train.lock import Lock

    for option in ("trials", "seeds", "jobs"):
        if getattr(args, option) < 1:
            raise UserError(f"--{option} {getattr(args, option)}: must be above 0")
    check_folder("--out", args.out)
    setting, data = _setting(args), DataFolder.open(args.data)
    refuse_ranks()
    arms = make_arms(setting, data)
    check(arms)
    for name, why in arms.left_out.items():
        tqdm.write(f"left out: {name}: {why}")
    with Lock(args.out) as lock:
        benchmark = run(setting, arms, data, args.out, lock)
        lock.check()
        text = write_benchmark(args.out, benchmark, args.data)
    tqdm.write(f"\n{text}\n{args.out}: benchmark.html has pictures, benchmark.json all figures")
    if benchmark.faults:
        raise Faulty("; ".join(benchmark.faults))


def _setting(args: argparse.Namespace) -> "Setting":
    from coldrank.configs.suites import SUITES as suites
    from coldrank.experiments.benchmark.budget import seconds_of
    from coldrank.experiments.benchmark.engine import Setting
    from coldrank.experiments.benchmark.method import chosen, own_methods
    from coldrank.train.load import load

    suite = suites[args.suite]
    names = [name for name in args.methods.split(",") if name]
    own = [method for text in args.also for method in own_methods(text, args.config)]
    return Setting(
        suite=suite,
        base=load(args.config, args.set),
        about_base=f"the base, {args.config}",
        methods=(*chosen(suite, names), *own),
        trials=args.trials,
        seeds=args.seeds,
        by=args.by or suite.by,
        cohort=args.cohort or suite.cohort,
        tasks=tuple(t for t in args.tasks.split(",") if t),
        vary=tuple(args.vary) or suite.vary,
        budget=seconds_of(args.budget) if args.budget else None,
        at_once=args.jobs,
    )


def write_benchmark(out: Path, benchmark: "Benchmark", data: Path) -> str:
    """Writes benchmark.md, benchmark.json and benchmark.html; returns the first."""
    from coldrank.analysis.benchmark.table import format_benchmark
    from coldrank.data.output import write_atomic

    if benchmark.suite == "streams":
        tables, notes, rows, page = _of_stream(benchmark)
    else:
        tables, notes, rows, page = _of_passes(out, benchmark, data)
    text = format_benchmark(benchmark, tables, notes)
    write_atomic(out / "benchmark.json", json.dumps(benchmark.to_json() | {"rows": rows}, indent=1) + "\n")
    write_atomic(out / "benchmark.md", text)
    write_atomic(out / "benchmark.html", page)
    return text


def _of_stream(benchmark: "Benchmark") -> tuple[Any, list[str], list[Any], str]:
    from dataclasses import asdict

    from coldrank.analysis.benchmark.page import retrieval_page
    from coldrank.analysis.benchmark.table import retrieval_tables
    from coldrank.analysis.compare.retrieval import METRICS, read_arms_figures, retrieval_rows

    figures = read_arms_figures([Path(run) for o in benchmark.outcomes for run in o.runs])
    own = [metric for metric in benchmark.by.split(",") if "@" in metric]
    rows = retrieval_rows(figures, benchmark.base, list(dict.fromkeys([*own, *METRICS])))
    tables = retrieval_tables(benchmark, rows)
    return tables, [], [asdict(row) for row in rows], retrieval_page(benchmark, tables, rows, figures)


def _of_passes(out: Path, benchmark: "Benchmark", data: Path) -> tuple[Any, list[str], list[Any], str]:
    """The comparison of `coldrank compare` lies in OUT/comparison, in the place of one of before."""
    from dataclasses import asdict

    from coldrank.analysis.benchmark.page import compared_page
    from coldrank.analysis.benchmark.table import difference_tables
    from coldrank.analysis.compare.aspects import Aspect
    from coldrank.analysis.compare.compare import compare
    from coldrank.analysis.compare.controls import find_controls
    from coldrank.analysis.compare.runs import find_data
    from coldrank.cli.compare import choose_runs, write_comparison

    folders = [Path(run) for o in benchmark.outcomes for run in o.runs]
    if sum(bool(o.runs) for o in benchmark.outcomes) < 2:
        return [], ["No method has a run to be compared."], [], compared_page(benchmark, [], [], "")
    runs, baseline = choose_runs(folders, benchmark.base, benchmark.split)
    # Widths of fields are a backbone's own, and a last pass over new users a method's.
    allowed = (Aspect.FEATURES, Aspect.PASSES)
    found, _ = find_data([run.facts for run in runs], data)
    comparison = compare(runs, baseline, allowed=allowed, controls=find_controls(runs, found))
    shutil.rmtree(out / "comparison", ignore_errors=True)
    write_comparison(out / "comparison", comparison, data)
    tables = difference_tables(benchmark, comparison.rows)
    rows = [asdict(row) for row in comparison.rows]
    page = compared_page(benchmark, tables, comparison.rows, "comparison/report.html")
    return tables, list(comparison.notes), rows, page
