"""explain.html: the pictures with what they say of these runs, one file that loads nothing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from coldrank.analysis.explain.pictures import (
    PAIR,
    Drawn,
    Json,
    all_masks,
    bands_picture,
    experts_picture,
    gate_pictures,
    heads_picture,
    layers_picture,
    masks_picture,
    moved,
    run_names,
)
from coldrank.analysis.report import page as report_page
from coldrank.analysis.report import words
from coldrank.analysis.report.picture import swatch
from coldrank.data.cohorts import CohortConfig
from coldrank.train.gates import LEAST_RANGE


@dataclass(frozen=True, slots=True)
class PictureGroup:
    """Pictures under one heading."""

    title: str
    """The heading."""
    text: str
    """A line below it."""
    pictures: list[Drawn]
    """The pictures."""
    open: bool = True
    """Whether they show at once; else they are folded away."""


def draw_page(content: Mapping[str, Any]) -> tuple[str, list[Drawn]]:
    """The page on the content of explain.json, and its pictures."""
    runs = content["runs"]
    sections = {"masks": masks_groups(runs), "gates": gate_groups(runs), "attention": [], "experts": []}
    for i, (run, name) in enumerate(zip(runs, run_names(runs), strict=True)):
        sections["attention"] += attention_groups(run, name, f"run{i + 1}")
        drawn = [experts_picture(run, task, f"run{i + 1}") for task in run["tasks"]]
        sections["experts"].append(PictureGroup(name, gate_share(run), drawn))
    folders = [Path(__file__).parent, Path(report_page.__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"plain": words.plain, "number": words.number}
    page = environment.get_template("explain.html.j2").render(
        content=content,
        names=run_names(runs),
        swatches=[swatch(i) for i in range(len(runs))],
        cohort_meanings=words.cohort_meanings(CohortConfig(**content["cohorts"])),
        sections=sections,
        masks=all_masks(runs),
        verdict=submergence(runs),
        shift_tasks=list(dict.fromkeys(s["task"] for s in runs[0]["shifts"])),
        shifts=[{(s["mask"], s["cohort"], s["task"]): s["points"] for s in run["shifts"]} for run in runs],
        signals=[signal_rows(run) for run in runs],
        pair=PAIR,
    )
    return page, [d for groups in sections.values() for group in groups for d in group.pictures]


def submergence(runs: Sequence[Json]) -> list[str]:
    """The main figures of Fig. 1b in sentences: the change of new users' logits by mask, largest first, per run."""
    sentences = []
    for run, name in zip(runs, run_names(runs), strict=True):
        changes = {m["title"]: moved(run, m["name"], PAIR[0]) for m in run["masks"]}
        known = sorted(((v, title) for title, v in changes.items() if v is not None), reverse=True)
        if not known:
            sentences.append(f"{name}: the sample has no new users, so nothing can be said of them.")
            continue
        by_mask = words.listed([f"{words.number(v, 3)} ({title})" for v, title in known])
        sentences.append(f"{name}: masking an input moves the logits of new users by {by_mask}.")
        if run["gates"] is not None:
            sentences[-1] += f" {moved_gates(run['gates'])}"
    return sentences


def masks_groups(runs: Sequence[Json]) -> list[PictureGroup]:
    """Overview of the logits per cohort, and every mask layer by layer."""
    counts = {row["cohort"]: row["rows"] for run in runs for row in run["changes"]}
    overview = [masks_picture(runs, cohort) for cohort in PAIR if counts.get(cohort)]
    rest = [masks_picture(runs, cohort) for cohort, n in counts.items() if n and cohort not in PAIR]
    rows = ", ".join(f"{counts.get(c, 0):,} rows of {words.plain(c)}" for c in PAIR)
    layers = [layers_picture(runs, mask) for mask in all_masks(runs)]
    full = "Full lines and filled markers are new users, dotted lines and open markers regular users."
    return [
        PictureGroup("At the output", f"Change of the logits of all tasks together; {rows}.", overview),
        PictureGroup("Other cohorts", "", rest, open=False),
        PictureGroup("Layer by layer", f"From the input, left, to the output. {full}", layers),
    ]


def gate_groups(runs: Sequence[Json]) -> list[PictureGroup]:
    """The gates of every run, or why there are none to draw."""
    groups = []
    for i, (run, name) in enumerate(zip(runs, run_names(runs), strict=True)):
        gates = run["gates"]
        if gates is None:
            groups.append(PictureGroup(name, "No part of this run is personalized: it has no gates to draw.", []))
            continue
        rows = [bucket["rows"] for bucket in gates["buckets"]]
        text = f"{len(rows)} buckets of {gates['column']} with {min(rows):,} to {max(rows):,} rows."
        if not gates["is_code"]:
            text += " It is not the code of this run: a point is the mean over the rows of its bucket."
        text += f" {moved_gates(gates)}"
        groups.append(PictureGroup(name, text, gate_pictures(run, f"run{i + 1}")))
    return groups


def moved_gates(gates: Json) -> str:
    """How far the gates go, in a sentence; with a warning where it is little."""
    if gates["range"] is None:
        return "The rows are too few to say how far the gates go."
    most = words.number(gates["range"], 3)
    text = f"From the least to the best known, the gate that moves most goes {most} on average."
    if gates["range"] >= LEAST_RANGE:
        return text
    return f"{text} That is next to nothing: this run does not tell what personalization is worth."


def attention_groups(run: Json, name: str, key: str) -> list[PictureGroup]:
    """The attention over every sequence of a run."""
    groups = []
    for sequence, figures in run["attention"].items():
        heads = [heads_picture(sequence, figures, cohort, key) for cohort in PAIR]
        pictures = [p for p in (*heads, bands_picture(sequence, figures, key)) if p]
        text = (
            ""
            if figures["positions"]
            else "This run learns no positions: order shows only as far as events differ with it."
        )
        if not pictures:
            text = "All histories of the sample are empty."
        groups.append(PictureGroup(f"{name}, {sequence}" if len(run["attention"]) > 1 else name, text, pictures))
    return groups or [PictureGroup(name, "This run reads no sequence.", [])]


def gate_share(run: Json) -> str:
    """What the gates leave of the softmax weights, in a sentence."""
    if run["gates"] is None or not any(gate["name"] == "mmoe.gate" for gate in run["gates"]["gates"]):
        return "The mixture is plain: its weights are the softmax's and sum to 1."
    kept = {}
    for cohort in PAIR:
        sums = [sum(row["effective"]) for row in run["experts"] if row["cohort"] == cohort]
        if sums:
            kept[cohort] = f"{words.number(sum(sums) / len(sums))} for {words.plain(cohort)}"
    return (
        f"Softmax weights sum to 1; after the gates the sum is {words.listed(list(kept.values()))}, mean of the tasks."
    )


def signal_rows(run: Json) -> list[tuple[str, str, int, float, float, list[float]]]:
    """Per signal and cohort of `PAIR`: both, rows, share of events, mean share of weight, that of each head."""
    return [
        (
            row["signal"].removeprefix("hist_"),
            row["cohort"],
            row["rows"],
            row["events"],
            _mean(row["weight"]),
            row["weight"],
        )
        for figures in run["attention"].values()
        for row in figures["by_signal"]
        if row["cohort"] in PAIR
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def read_css() -> str:
    """The style sheet of the report."""
    return (Path(report_page.__file__).parent / "report.css").read_text()


def standalone(drawn: Drawn, css: str) -> str:
    """The picture as a file of its own, in the colours of the light page."""
    light = dict(re.findall(r"--([\w-]+): (#\w+)", css[: css.index("@media")]))
    text = re.sub(r"var\(--([\w-]+)\)", lambda m: light[m[1]], str(drawn.svg))
    head = '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" width="640"'
    return re.sub(r'<svg class="plot"', f'{head} style="background: {light["card"]}"', text, count=1) + "\n"
