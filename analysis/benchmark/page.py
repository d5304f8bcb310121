"""The page of a benchmark: one HTML file that loads nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from coldrank.analysis.benchmark.outcome import Benchmark
from coldrank.analysis.benchmark.pictures import cost_picture, interval_picture, period_picture
from coldrank.analysis.benchmark.table import BenchmarkTable, cost_table, shown_cohorts, shown_tasks, terms
from coldrank.analysis.compare.retrieval import COHORTS, Figures, RetrievalRow
from coldrank.analysis.compare.rows import IN_UNITS, Row
from coldrank.analysis.report import words
from coldrank.analysis.report.differences import forest
from coldrank.analysis.report.picture import swatch

_ROOM = Path(__file__).parent


def compared_page(benchmark: Benchmark, tables: Sequence[BenchmarkTable], rows: Sequence[Row], report: str) -> str:
    """Of methods that are compared by AUC and NE. rows: of `compare`; none where no method was compared. report: the
    address of its report, from the page; '' where there is none."""
    cohorts, tasks = shown_cohorts(benchmark), shown_tasks(benchmark, rows)
    kept = [row for row in rows if row.cohort in cohorts]
    drawn = [cost_picture(benchmark, rows, task, cohort) for cohort in cohorts for task in tasks]
    return _page(
        benchmark,
        tables,
        report=report,
        forests=[forest(kept, task, "auc") for task in tasks],
        pictures=[picture for picture in drawn if picture],
    )


def retrieval_page(
    benchmark: Benchmark,
    tables: Sequence[BenchmarkTable],
    rows: Sequence[RetrievalRow],
    figures: Mapping[str, Mapping[int, Figures]],
) -> str:
    """Of methods that are compared by retrieval on a stream. figures: arm -> seed -> its figures."""
    shown = [(cohort, metric) for metric in dict.fromkeys(row.metric for row in rows) for cohort in COHORTS]
    drawn = [interval_picture(benchmark, rows, *cell) for cell in shown]
    drawn += [period_picture(benchmark, figures, *cell) for cell in shown]
    return _page(benchmark, tables, report="", forests=[], pictures=[picture for picture in drawn if picture])


def _page(benchmark: Benchmark, tables: Sequence[BenchmarkTable], **parts: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader([_ROOM, _ROOM.parent / "report"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    filters = (words.breakable, words.number, words.plain, words.signed)
    environment.filters |= {function.__name__: function for function in filters}
    return environment.get_template("benchmark.html.j2").render(
        benchmark=benchmark,
        title=f"Benchmark {benchmark.suite}: {len(benchmark.outcomes) - 1} methods against {benchmark.base}",
        terms=terms(benchmark),
        tables=tables,
        costs=cost_table(benchmark),
        arms=benchmark.outcomes,
        swatches=[swatch(number) for number in range(len(benchmark.outcomes))],
        in_units=IN_UNITS,
        titles=words.TITLES,
        marks=words.MARKS,
        hollow=words.HOLLOW,
        **parts,
    )
