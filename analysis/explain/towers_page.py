"""explain.html of two-tower runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from coldrank.analysis.explain.pictures import Drawn, panel, run_names
from coldrank.analysis.explain.towers import COHORTS, METRICS
from coldrank.analysis.report import page as report_page
from coldrank.analysis.report.picture import MARKERS, color, svg
from coldrank.analysis.report.words import listed, number, plain

Json = Mapping[str, Any]


def draw_towers(content: Json) -> tuple[str, list[Drawn]]:
    """The page on the content of explain.json, and its pictures."""
    runs, varied = content["runs"], content["sensitivity"]
    masks = [mask_picture(run, name, i) for i, (run, name) in enumerate(zip(runs, run_names(runs), strict=True))]
    lines = [sensitivity_picture(varied, metric) for metric in METRICS] if varied else []
    folders = [Path(__file__).parent, Path(report_page.__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("towers.html.j2").render(
        content=content, names=run_names(runs), masks=masks, lines=lines, sentences=error_sentences(runs)
    )
    return page, [*masks, *lines]


def error_sentences(runs: Sequence[Json]) -> list[str]:
    """The totals in sentences."""
    sentences = []
    for run, name in zip(runs, run_names(runs), strict=True):
        totals = [f"{number(e['total'], 3)} ({plain(e['cohort'])}, {e['mask']})" for e in run["errors"]]
        sentences.append(f"{name}: without its inputs an item's vector moves by {listed(totals)}, squared.")
    return sentences


def mask_picture(run: Json, name: str, index: int) -> Drawn:
    """Squared error of every dimension of the item's vector, a line per mask and cohort.

    Lines of cold items are full, those of popular ones dotted. index: of the run, counted from 0.
    """
    described = []
    with panel(190, top=27) as (figure, ax):
        for i, mask in enumerate(run["masks"]):
            for cohort, line in zip(COHORTS, ("-", (0, (1, 1.5))), strict=True):
                error = next((e["error"] for e in run["errors"] if (e["mask"], e["cohort"]) == (mask, cohort)), None)
                if error is None:
                    continue
                label = f"{mask}, {plain(cohort)}"
                face = color(i + 1) if cohort == COHORTS[0] else "none"
                style: dict[str, Any] = {"marker": MARKERS[i], "markersize": 4, "markerfacecolor": face}
                ax.plot(range(1, len(error) + 1), error, color=color(i + 1), linestyle=line, label=label, **style)
                described.append(f"{label} {', '.join(number(v, 3) for v in error)}")
        ax.set_ylim(bottom=0)
        ax.set(xlabel="dimension of the item's vector", ylabel="squared error")
        figure.legend(
            *ax.get_legend_handles_labels(), loc="upper left", ncols=2, frameon=False, fontsize=8, borderaxespad=0.1
        )
        rows = ", ".join(f"{c['rows']:,} {plain(c['cohort'])}" for c in run["errors"] if c["mask"] == "behaviour")
        picture = f"masked-{index + 1}"
        return Drawn(picture, f"{name}: inputs set to 0", svg(figure, picture, "; ".join(described)), f"{rows}.")


def sensitivity_picture(varied: Json, metric: str) -> Drawn:
    """A metric by the value of the field, mean of the seeds, with a bar from the least to the most."""
    points = [p for p in varied["points"] if p["metric"] == metric]
    values = list(dict.fromkeys(str(p["value"]) for p in points))
    described = []
    with panel(190, top=27) as (figure, ax):
        for i, cohort in enumerate(COHORTS):
            of_cohort = [p for p in points if p["cohort"] == cohort]
            places = [values.index(str(p["value"])) + 0.06 * (i - 0.5) for p in of_cohort]
            mean = [p["mean"] for p in of_cohort]
            ax.plot(places, mean, color=color(i + 1), marker=MARKERS[i], markersize=4, label=plain(cohort))
            ax.vlines(
                places, [p["least"] for p in of_cohort], [p["most"] for p in of_cohort], color=color(i + 1), linewidth=1
            )
            described.append(f"{plain(cohort)} {', '.join(number(v, 3) for v in mean)}")
        ax.set_xticks(range(len(values)), values)
        ax.set(xlabel=varied["field"], ylabel=metric)
        figure.legend(*ax.get_legend_handles_labels(), loc="upper left", ncols=2, frameon=False, fontsize=9)
        name = f"sensitivity-{metric.replace('@', '-')}"
        seeds = f"{min(p['n'] for p in points)} to {max(p['n'] for p in points)} seeds a point."
        return Drawn(name, f"{metric} by {varied['field']}", svg(figure, name, "; ".join(described)), seeds)
