"""A benchmark as tables: what came out, and what it took."""

from collections.abc import Sequence
from typing import NamedTuple

from tabulate import tabulate

from coldrank.analysis.benchmark.outcome import Benchmark, Outcome
from coldrank.analysis.compare.retrieval import COHORTS, RetrievalRow
from coldrank.analysis.compare.rows import Row
from coldrank.analysis.compare.table import TITLES, figure
from coldrank.analysis.report.words import duration, plain

SHOWN = ("auc", "ne")
MARKS = "▲ better, ▼ worse after the correction for the number of comparisons; △ ▽ before it only; no mark: open."


class BenchmarkTable(NamedTuple):
    """A table of the page and of benchmark.md."""

    title: str
    heads: list[str]
    body: list[list[str]]
    about: str = ""


def shown_cohorts(benchmark: Benchmark) -> list[str]:
    """All samples, and what trials were judged by."""
    return list(dict.fromkeys(["all", *benchmark.cohort.split(",")]))


def shown_tasks(benchmark: Benchmark, rows: Sequence[Row]) -> list[str]:
    """The tasks that trials were judged by; where none is named, all that have an AUC."""
    with_auc = dict.fromkeys(row.task for row in rows if row.metric == "auc")
    return [task for task in with_auc if not benchmark.tasks or task in benchmark.tasks]


def difference_tables(benchmark: Benchmark, rows: Sequence[Row]) -> list[BenchmarkTable]:
    """Per task: AUC and NE of each method, as `compare` has them."""
    cells = {(row.task, row.arm, row.metric, row.cohort): row for row in rows}
    columns = [(metric, cohort) for metric in SHOWN for cohort in shown_cohorts(benchmark)]
    heads = ["method", *(f"{TITLES[metric]}, {plain(cohort)}" for metric, cohort in columns)]
    about = (
        f"In percent of {benchmark.base}; of the others the difference in points ± half of the 95% interval. {MARKS}"
    )
    tables = []
    for task in shown_tasks(benchmark, rows):
        found = {o.name: [cells.get((task, o.name, *column)) for column in columns] for o in benchmark.outcomes}
        body = [[_name(o), *(figure(row).strip() if row else "-" for row in found[o.name])] for o in benchmark.outcomes]
        tables.append(BenchmarkTable(plain(task), heads, body, about))
    return tables


def retrieval_tables(benchmark: Benchmark, rows: Sequence[RetrievalRow]) -> list[BenchmarkTable]:
    """Per cohort: the mean of each method over seeds and periods, and its difference to the base."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    cells = {(row.cohort, row.arm, row.metric): row for row in rows}
    about = (
        f"Mean over seeds and periods; of the others the difference to {benchmark.base} and its 95% interval. {MARKS}"
    )
    return [
        BenchmarkTable(
            plain(cohort),
            ["method", *metrics],
            [
                [_name(o), *(row.text if (row := cells.get((cohort, o.name, m))) else "-" for m in metrics)]
                for o in benchmark.outcomes
            ],
            about,
        )
        for cohort in COHORTS
    ]


def cost_table(benchmark: Benchmark) -> BenchmarkTable:
    """What each method took, at which setting, and whether it leaks."""
    base = benchmark.outcomes[0].seconds
    heads = ["method", "seeds", "training", "times base", "steps", "samples", "memory, MiB", "trials", "best setting"]
    body = []
    for o in benchmark.outcomes:
        times = f"{o.seconds / base:.2f}" if o.seconds is not None and base else "-"
        count = lambda value: "-" if value is None else f"{value:,.0f}"
        seconds = "-" if o.seconds is None else f"{o.seconds:.1f} s" if o.seconds < 60 else duration(o.seconds)
        body.append([_name(o), str(len(o.runs)), seconds, times, count(o.steps), count(o.samples), count(o.peak_mib)])
        body[-1] += [str(o.trials or "-"), o.setting, o.leak_test]
    about = (
        "Training: of a run, mean over seeds, without evaluation. Memory: the most that the process of a run took, or "
        "that it took of a GPU. Steps and samples do not depend on the machine."
    )
    return BenchmarkTable("What it took", [*heads, "leak test"], body, about)


def _name(outcome: Outcome) -> str:
    return f"{outcome.name} (LEAKS)" if outcome.leak else outcome.name if outcome.runs else f"{outcome.name} (failed)"


def terms(benchmark: Benchmark) -> list[str]:
    """Under which terms the methods were compared, a sentence each."""
    tried = (
        f"{benchmark.trials} settings each, the first as the method is, judged by {benchmark.by} of {benchmark.cohort} "
        "before what is reported"
        if benchmark.trials > 1
        else "each as it is, nothing tuned"
    )
    equal = "the same columns, samples, batches and passes"
    return [
        f"Every method starts from {benchmark.base}: {equal}; {tried}; {benchmark.seeds} seeds, the same for all.",
        f"Data: {benchmark.data}; reported on {benchmark.split}.",
        *(f"Cut to fit --budget: {line}." for line in benchmark.cut),
    ]


def format_benchmark(benchmark: Benchmark, tables: Sequence[BenchmarkTable], notes: Sequence[str] = ()) -> str:
    """benchmark.md. notes: what `compare` says of what differs."""
    about = {o.name: o.about for o in benchmark.outcomes if o.about}
    parts = [
        f"# Benchmark {benchmark.suite} on {benchmark.base}",
        "\n".join(terms(benchmark)),
        *("\n".join(f"- **{line}**" for line in lines) for lines in [benchmark.faults] if lines),
    ]
    for table in (*tables, cost_table(benchmark)):
        grid = tabulate(table.body, headers=table.heads, tablefmt="github", disable_numparse=True)
        parts += [f"## {table.title}", str(grid), table.about]
    parts += ["## Methods", "\n".join(f"- `{name}`: {text}" for name, text in about.items())]
    if benchmark.left_out:
        parts += ["## Left out", "\n".join(f"- `{name}`: {why}" for name, why in benchmark.left_out.items())]
    if notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"
