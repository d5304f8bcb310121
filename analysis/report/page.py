"""Puts the report together: one HTML file that loads nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from coldrank.analysis.compare.controls import ABOUT, HEADS, control_lines
from coldrank.analysis.compare.rows import IN_UNITS, JUDGING, LEADING, LOWER_IS_BETTER, Comparison
from coldrank.analysis.compare.runs import find_data
from coldrank.analysis.report import words
from coldrank.analysis.report.arms import ReportedArm, read_arms
from coldrank.analysis.report.data_card import data_card
from coldrank.analysis.report.differences import config_changes, forest, verdict
from coldrank.analysis.report.learning import gate_pictures, learning_pictures
from coldrank.analysis.report.periods import period_pictures
from coldrank.analysis.report.picture import swatch
from coldrank.analysis.report.scored import PER_BIN, score_tasks
from coldrank.analysis.report.scored_pictures import calibration_picture, views_picture

SHOWN_ARMS = 4  # more lines than these hide each other: the others wait behind their box


def report_html(comparison: Comparison, data: Path | None = None) -> str:
    """The report on a comparison, whose runs must still be there. Raises UserError for runs that cannot be read.

    data: the prepared folder; None: the one that the runs name.
    """
    arms = read_arms(comparison)
    tasks, cohorts = (
        list(dict.fromkeys(getattr(row, field) for row in comparison.rows)) for field in ("task", "cohort")
    )
    folder, no_data = find_data([run for arm in arms for run in arm.facts], data)
    measured = dict.fromkeys((row.task, row.metric) for row in comparison.rows)
    flags = [task for task in tasks if (task, "auc") in measured]
    forests = {m: [forest(comparison.rows, t, m) for t in tasks if (t, m) in measured] for m in JUDGING}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    filters = (words.breakable, words.number, words.p_value, words.plain, words.signed)
    environment.filters |= {function.__name__: function for function in filters}
    return environment.get_template("report.html.j2").render(
        comparison=comparison,
        rows=comparison.rows,
        title=_title(arms),
        rows_all=max(row.n for row in comparison.rows),
        arms=arms,
        tasks=tasks,
        cohorts=cohorts,
        shown_arms=SHOWN_ARMS,
        swatches=[swatch(arm.number) for arm in arms],
        cohort_meanings=words.cohort_meanings(comparison.cohorts),
        verdicts=[verdict(comparison.rows, arm.name, arms[0].name) for arm in arms[1:]],
        cells={(row.arm, row.task, row.cohort): row for row in comparison.rows if row.metric in LEADING},
        has_numbers=len(flags) < len(tasks),
        leading=[picture for metric in LEADING for picture in forests[metric]],
        forests={metric: pictures for metric, pictures in forests.items() if metric not in LEADING and pictures},
        in_units=IN_UNITS,
        lower_is_better=LOWER_IS_BETTER,
        titles=words.TITLES,
        marks=words.MARKS,
        hollow=words.HOLLOW,
        changes=[(arm.name, config_changes(arm.configs[0], arms[0].configs[0])) for arm in arms[1:]],
        control_heads=HEADS,
        controls=control_lines(comparison.controls),
        about_controls=ABOUT,
        gate_learning=gate_pictures(arms),
        learning=learning_pictures(arms, flags, [task for task in tasks if task not in flags]),
        periods=period_pictures(arms, tasks),
        without_curve=[arm.name for arm in arms if not any(arm.curves)],
        times=run_times(arms),
        versions=_versions(arms),
        card=data_card(folder, comparison.cohorts.new_user_max_views) if folder else None,
        no_data=no_data,
        per_bin=PER_BIN,
        **scored_pictures(arms, flags, cohorts, comparison),
    )


def _title(arms: Sequence[ReportedArm]) -> str:
    others = [arm.name for arm in arms[1:]]
    return f"{words.listed(others) if len(others) <= 3 else f'{len(others)} arms'} against {arms[0].name}"


def scored_pictures(
    arms: Sequence[ReportedArm], tasks: Sequence[str], cohorts: Sequence[str], comparison: Comparison
) -> dict[str, Any]:
    """`calibration`: cohort -> pictures of the tasks that have enough rows; `by_views`: user and item -> pictures."""
    calibration: dict[str, list[words.Picture]] = {cohort: [] for cohort in cohorts}
    by_views: dict[str, list[words.Picture]] = {"user": [], "item": []}
    for scores in score_tasks(arms, tasks, comparison):
        for cohort in cohorts:
            calibration[cohort] += _some(calibration_picture(arms, scores.calibration[cohort], scores.task, cohort))
        for side, views in (("user", scores.by_user_views), ("item", scores.by_item_views)):
            by_views[side] += _some(views_picture(arms, views, scores.task, side))
    return {"calibration": calibration, "by_views": by_views}


def _some(picture: words.Picture | None) -> list[words.Picture]:
    return [picture] if picture else []


def run_times(arms: Sequence[ReportedArm]) -> list[tuple[str, int, list[str]]]:
    """Arm, number of runs, and figures of run.json: each one figure, or the least and greatest of the runs.

    A dash stands where no run has the figure.
    """
    lines = []
    for arm in arms:
        facts = [run for run in arm.facts if run]

        def over(name: str, facts: Sequence[Mapping[str, Any]] = facts) -> list[float]:
            return [run[name] for run in facts if isinstance(run.get(name), int | float)]

        speeds = [run["samples"] / run["seconds"] for run in facts if run.get("seconds") and "samples" in run]
        seconds = (
            [words.duration(bound) for bound in (min(over("seconds")), max(over("seconds")))] if over("seconds") else []
        )
        figures = [" to ".join(dict.fromkeys(seconds))]
        figures += [words.spread(over(name)) for name in ("steps", "samples")]
        figures += [words.spread(speeds)]
        figures += [words.spread(over(n)) for n in ("dense_parameters", "table_parameters", "world_size", "threads")]
        lines.append((arm.name, len(arm.runs), [figure or "–" for figure in figures]))
    return lines


def _versions(arms: Sequence[ReportedArm]) -> str:
    """`torch 2.13.0, torchrec 1.8.0`, several of one where runs differ."""
    seen: dict[str, dict[str, None]] = {}
    for run in (run for arm in arms for run in arm.facts):
        for name, version in run.get("versions", {}).items():
            seen.setdefault(name, {})[version] = None
    return ", ".join(f"{name} {' and '.join(versions)}" for name, versions in seen.items())
