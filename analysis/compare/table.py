"""The comparison as text: a table over the cohorts, one per cohort, the verdicts in words, every figure in full."""

from collections.abc import Callable, Sequence
from itertools import product
from textwrap import fill

from tabulate import tabulate

from coldrank.analysis.compare.rows import JUDGING, LEADING, METRICS, NUMBER_METRICS, Row

TITLES = {"auc": "AUC", "auc_fixed_avc": "AUC fixed AVC", "ne": "NE", "gauc": "GAUC"}
TITLES |= {"xauc": "XAUC", "mae": "MAE", "calibration": "calibration"}
MARKS = {"better": "▲", "worse": "▼"}
WEAK_MARKS = {"better": "△", "worse": "▽"}
LEGEND = (
    "In percent. First arm of a task: mean over its seeds. Others: difference to it in percentage points ± half of the"
    "\n95% interval; ▲ better, ▼ worse, after correction for the number of comparisons; △ ▽: only before it; no mark:"
    " not\ndistinguishable. NE: lower is better. (seeds); n: labelled rows, of the first column.\n"
    "New users and items: judge by AUC and NE; their GAUC misleads where past labels are among the features."
)
NUMBERS_LEGEND = (
    "\nTasks of numbers: XAUC in percent; MAE in the label's own unit, lower is better; calibration, in percent, is"
    "\nright at 100 and not judged."
)
WIDTH = 100


def legend(rows: Sequence[Row]) -> str:
    """How the tables are read."""
    return LEGEND + (NUMBERS_LEGEND if any(row.metric in NUMBER_METRICS for row in rows) else "")


def format_overview(rows: Sequence[Row], tablefmt: str = "simple") -> str:
    """AUC, and XAUC of numbers, in a table each: a line per task and arm, a column per cohort; `tablefmt` as in
    tabulate."""
    tables = []
    for metric in _leading(rows):
        chosen = [row for row in rows if row.metric == metric]
        cohorts = {row.cohort: row.cohort for row in chosen}
        tables.append(f"{TITLES[metric]}\n\n{_table(chosen, lambda row: row.cohort, cohorts, tablefmt)}")
    return "\n\n".join(tables)


def _leading(rows: Sequence[Row]) -> list[str]:
    return [metric for metric in LEADING if any(row.metric == metric for row in rows)]


def format_cohorts(rows: Sequence[Row]) -> str:
    """A Markdown table per cohort: a line per task and arm, a column per metric."""
    metrics = {
        metric: TITLES[metric] for metric in (*METRICS, *NUMBER_METRICS) if any(row.metric == metric for row in rows)
    }
    tables = []
    for cohort in dict.fromkeys(row.cohort for row in rows):
        of_cohort = [row for row in rows if row.cohort == cohort]
        tables.append(f"### {cohort}\n\n{_table(of_cohort, lambda row: row.metric, metrics, 'github')}")
    return "\n\n".join(tables)


def _table(rows: Sequence[Row], column_of: Callable[[Row], str], columns: dict[str, str], tablefmt: str) -> str:
    """A line per task and arm. column_of: a row's column. columns: column -> heading."""
    body = []
    for task in dict.fromkeys(row.task for row in rows):
        of_task = [row for row in rows if row.task == task]
        for line, arm in enumerate(dict.fromkeys(row.arm for row in of_task)):
            cells = {column_of(row): row for row in of_task if row.arm == arm}
            first = next(iter(cells.values()))
            lead = (task, f"n={first.n:,}")[line] if line < 2 else ""
            body.append([lead, f"{arm} ({_seeds(first)})", *(figure(cells[c]) if c in cells else "-" for c in columns)])
    align = ("left", "left", *["right"] * len(columns))
    headers = ["task", "arm (seeds)", *columns.values()]
    return str(tabulate(body, headers=headers, colalign=align, tablefmt=tablefmt, disable_numparse=True))


def format_verdicts(rows: Sequence[Row]) -> str:
    """A line per arm: in which cohorts and tasks it is better or worse than the baseline by AUC; by XAUC of numbers."""
    lines = []
    baseline = next(row.arm for row in rows if row.verdict == "baseline")
    arms = dict.fromkeys(row.arm for row in rows if row.arm != baseline)
    for arm, metric in product(arms, _leading(rows)):
        of_arm = [row for row in rows if row.arm == arm and row.metric == metric]
        parts = []
        for verdict in ("better", "worse"):
            where = [f"{row.cohort}/{row.task}" for row in of_arm if row.verdict == verdict]
            parts.append(f"{verdict} in {', '.join(where) if where else 'none'}")
        open_cells = sum(row.verdict not in ("better", "worse") for row in of_arm)
        parts.append(f"not distinguishable in {open_cells} of {len(of_arm)}")
        lines.append(
            fill(f"{arm} against {baseline}, {TITLES[metric]}: {'; '.join(parts)}.", WIDTH, subsequent_indent="  ")
        )
    count = max(sum(row.arm == arm and row.metric in JUDGING for row in rows) for arm in {r.arm for r in rows})
    single = [arm for arm in dict.fromkeys(row.arm for row in rows) if all(r.seeds == 1 for r in rows if r.arm == arm)]
    if single:
        lines.append(
            fill(
                f"One seed: {', '.join(single)}. What is known of them is the spread over users; an interval that"
                " covers the choice of seeds as well needs more of them.",
                WIDTH,
            )
        )
    judging = ", ".join(TITLES[metric] for metric in JUDGING if any(row.metric == metric for row in rows))
    lines.append(
        f"Corrected by Holm over an arm's {count} figures of {judging}: an arm that\n"
        "equals the baseline gets any of these marks with at most 5%. GAUC is corrected apart."
    )
    return "\n".join(lines)


def format_details(rows: Sequence[Row]) -> str:
    """Every row in Markdown: mean, difference, interval, spread from users and from seeds, p values, verdict."""
    headers = ["cohort", "task", "metric", "arm", "seeds", "rows", "users", "mean", "difference", "95% interval"]
    headers += ["user spread", "seed spread", "p", "p corrected", "days", "p over days", "verdict"]
    body = [
        [
            *(
                row.cohort,
                row.task,
                row.metric,
                row.arm,
                _seeds(row),
                f"{row.n:,}",
                f"{row.users:,}",
                _number(row.mean),
            ),
            _number(row.difference, "+"),
            "" if row.low is None else f"{_number(row.low, '+')} to {_number(row.high, '+')}",
            *(_number(row.user_spread), _number(row.seed_spread), _p(row.p), _p(row.p_corrected)),
            *(("", "") if row.verdict == "baseline" else (row.days, _p(row.days_p) or "-")),
            row.verdict if row.verdict == row.uncorrected else f"{row.verdict} ({row.uncorrected} before correction)",
        ]
        for row in rows
    ]
    return str(tabulate(body, headers=headers, tablefmt="github", disable_numparse=True))


def figure(row: Row) -> str:
    """The baseline's mean; of another arm the difference, half of its interval, and its mark."""
    if row.verdict == "baseline":
        return _number(row.mean) or "-"
    if row.difference is None or row.high is None:
        return "-"
    mark = MARKS.get(row.verdict) or WEAK_MARKS.get(row.uncorrected, " ")
    return f"{_number(row.difference, '+')} ±{_number(row.high - row.difference)}{mark}"


def _seeds(row: Row) -> str:
    return f"{row.seeds} of {row.seeds + row.failed}" if row.failed else str(row.seeds)


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.2f}"
