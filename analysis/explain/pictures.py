"""The pictures of explain.json, in the report's style: every function takes the JSON's values and draws nothing else.

A picture's `name` is unique in a page and is the name of its file.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coldrank.analysis.report.picture import DASHES, INK, MARKERS, MUTED, STYLE, color, svg
from coldrank.analysis.report.words import number, plain

Json = Mapping[str, Any]
PAIR = ("new_user", "regular_user")
EVEN: dict[str, Any] = {"linewidth": 0.8, "linestyle": (0, (2, 2)), "zorder": 0}
MAX_LABELS = 9


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture of the page, which is a file of its own as well."""

    name: str
    """Unique in the page; the name of its file."""
    title: str
    """Its title."""
    svg: Markup
    """Its `<svg>` element."""
    note: str = ""
    """A line below it."""


@contextmanager
def panel(height: int, *, left: int = 46, bottom: int = 36, top: int = 8) -> Iterator[tuple[Figure, Axes]]:
    """A figure 320 units wide with one axes inside these margins; `top` has room for the lines of a legend, 17 each."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(320 / 72, height / 72))
        ax = figure.add_axes((left / 320, bottom / height, (312 - left) / 320, 1 - (bottom + top) / height))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.grid(visible=False, axis="x")
        yield figure, ax


def run_names(runs: Sequence[Json]) -> list[str]:
    """The arms; with seed, and then path, where these alone do not tell the runs apart."""
    for name in ("{arm}", "{arm} seed {seed}", "{path}"):
        names = [name.format(**run) for run in runs]
        if len(set(names)) == len(names):
            break
    return names


def moved(run: Json, mask: str, cohort: str, layer: str = "logits", figure: str = "change") -> float | None:
    """A figure of `changes`; None where the run has none."""
    key = {"mask": mask, "cohort": cohort, "layer": layer}
    return next((row[figure] for row in run["changes"] if key.items() <= row.items()), None)


def all_masks(runs: Sequence[Json]) -> dict[str, str]:
    """Name -> title of the masks of any run, those of the code's columns first."""
    titles = {mask["name"]: mask["title"] for run in runs for mask in run["masks"]}
    return dict(sorted(titles.items(), key=lambda mask: not mask[0].startswith("pc_columns")))


def masks_picture(runs: Sequence[Json], cohort: str) -> Drawn:
    """Change of the logits per mask (down) and run (markers)."""
    masks, names = all_masks(runs), run_names(runs)
    titles = list(masks.values())
    described: list[str] = []
    largest: list[str] = []
    with panel(44 + 30 * len(masks), left=104) as (figure, ax):
        for i, (run, name) in enumerate(zip(runs, names, strict=True)):
            values = [moved(run, mask, cohort) for mask in masks]
            known = [(y, value) for y, value in enumerate(values) if value is not None]
            place = [y + 0.22 * (i - (len(runs) - 1) / 2) for y, _ in known]
            ax.hlines(place, 0, [v for _, v in known], color=color(i), linewidth=1.2)
            ax.plot([v for _, v in known], place, MARKERS[i], color=color(i), markersize=5)
            largest += [
                f"{name} by {titles[y]}, {number(value, 3)}" for y, value in sorted(known, key=lambda p: -p[1])[:1]
            ]
            described += [f"{title} {number(v, 3)} in {name}" for title, v in zip(titles, values, strict=True)]
        ax.set_yticks(range(len(masks)), [title.replace(", ", ",\n") for title in titles])
        ax.set_ylim(len(masks) - 0.5, -0.5)
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.grid(visible=True, axis="x")
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("change of the logits")
        name, title = f"masks-{cohort}", plain(cohort).capitalize()
        text = f"Change of the logits, {plain(cohort)}: {'; '.join(described)}"
        return Drawn(name, title, svg(figure, name, text), f"Moved most: {'; '.join(largest)}.")


def layers_picture(runs: Sequence[Json], mask: str) -> Drawn:
    """Change layer by layer when a mask is on; new users in full lines, regular users in dotted ones."""
    layers = list(dict.fromkeys(layer for run in runs for layer in run["layers"]))
    title, name = all_masks(runs)[mask], f"layers-{mask}"
    described, ends = [], []
    with panel(200) as (figure, ax):
        for i, (run, run_name) in enumerate(zip(runs, run_names(runs), strict=True)):
            end = moved(run, mask, PAIR[0])
            ends += [f"{run_name} {number(end, 3)}"] if end is not None else []
            for cohort, line in zip(PAIR, ("-", (0, (1, 1.5))), strict=True):
                values = [moved(run, mask, cohort, layer) for layer in layers]
                face = color(i) if cohort == PAIR[0] else "none"
                style: dict[str, Any] = {
                    "color": color(i),
                    "marker": MARKERS[i],
                    "markerfacecolor": face,
                    "markersize": 4,
                }
                ax.plot(range(len(layers)), [np.nan if v is None else v for v in values], linestyle=line, **style)
                described.append(f"{run_name}, {plain(cohort)}: {', '.join(number(v, 3) for v in values)}")
        ax.set_ylim(bottom=0)
        ax.set_ylabel("change")
        ax.set_xticks(range(len(layers)), [layer.replace(" ", "\n") for layer in layers], fontsize=8)
        text = f"Change by layer ({', '.join(layers)}). {'; '.join(described)}"
        note = f"At the logits of new users: {', '.join(ends)}." if ends else ""
        return Drawn(name, title, svg(figure, name, text), note)


def gate_pictures(run: Json, key: str) -> list[Drawn]:
    """A picture per gate and panel: gate outputs at every bucket.

    Where a line stands for several units, a band is one standard deviation wide.
    key: what tells the run from others in the pictures' names.
    """
    pictures = []
    for gate in run["gates"]["gates"]:
        for i, part in enumerate(gate["panels"]):
            title = ", ".join(filter(None, (gate["title"], part["name"])))
            name = f"gates-{key}-{gate['name'].replace('.', '-')}-{i + 1}"
            pictures.append(_gate_picture(run["gates"], part, title[0].upper() + title[1:], name))
    return pictures


def _gate_picture(gates: Json, part: Json, title: str, name: str) -> Drawn:
    buckets = gates["buckets"]
    places, labels = range(len(buckets)), [plain(line["name"]) for line in part["lines"]]
    with panel(190 + _top(labels), top=_top(labels)) as (figure, ax):
        for i, line in enumerate(part["lines"]):
            mean, spread = line["mean"], line["spread"]
            style: dict[str, Any] = {
                "color": color(i + 1),
                "marker": MARKERS[i % len(MARKERS)],
                "markersize": 3.5,
                "linewidth": 1.3,
            }
            ax.plot(places, mean, label=labels[i], linestyle=DASHES[i % len(DASHES)], **style)
            if part["units"] > 1:
                low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
                ax.fill_between(places, low, high, color=color(i + 1), alpha=0.08, linewidth=0)
        ax.axhline(1, color=MUTED, **EVEN)
        every = -(-len(buckets) // MAX_LABELS)
        ax.set_xticks(places[::every], [bucket["from"] for bucket in buckets[::every]])
        ax.set(xlabel=f"{gates['column']}, from", ylabel="gate")
        _legend(figure, ax, labels)
        described = "; ".join(f"{line['name']} {_from_to(line['mean'], buckets)}" for line in part["lines"])
        return Drawn(name, title, svg(figure, name, f"{title}: {described}"), in_words(part, buckets))


def _from_to(values: Sequence[float], buckets: Sequence[Json]) -> str:
    return f"{number(values[0])} at {buckets[0]['from']} to {number(values[-1])} at {buckets[-1]['from']}"


def in_words(part: Json, buckets: Sequence[Json]) -> str:
    """The line of a panel that moves most, and the mean correlation of every two lines over the buckets.

    Near 1 the lines move together; near -1, of two lines, they are specialized.
    """
    lines = np.array([line["mean"] for line in part["lines"]])
    first = int(np.argmax(np.ptp(lines, axis=1)))
    where = [
        f"{number(lines[first, i])} from {buckets[i]['from']}"
        for i in sorted((lines[first].argmin(), lines[first].argmax()))
    ]
    sentence = f"{plain(part['lines'][first]['name']).capitalize()} moves most: {', '.join(where)}."
    if len(lines) > 1 and len(buckets) > 2 and lines.std(1).min() > 1e-9:
        pairs = np.corrcoef(lines)[np.triu_indices(len(lines), 1)]
        sentence += f" Mean correlation of two lines: {number(float(pairs.mean()))}."
    return sentence


def heads_picture(sequence: str, figures: Json, cohort: str, key: str) -> Drawn | None:
    """Weight of every head by position, in the band of lengths with the most rows of the cohort."""
    bands = [band for band in figures["by_position"] if band["cohort"] == cohort]
    if not bands:
        return None
    band = max(bands, key=lambda candidate: candidate["rows"])
    low, high = band["events"]
    labels = [f"head {i + 1}" for i in range(len(band["to_even"]))]
    name, described = f"heads-{key}-{sequence}-{cohort}", []
    with panel(190 + _top(labels), top=_top(labels)) as (figure, ax):
        for i, values in enumerate(band["to_even"]):
            style: dict[str, Any] = {"color": color(i + 1), "linestyle": DASHES[i % len(DASHES)], "linewidth": 1.4}
            ax.plot(range(1, len(values) + 1), values, label=labels[i], **style)
            described.append(
                f"{labels[i]} {number(values[0])} at the most recent event, {number(values[-1])} at position {high}"
            )
        ax.axhline(1, color=MUTED, **EVEN)
        ax.set_ylim(bottom=0)
        ax.set(xlabel="events ago", ylabel="weight to even weight")
        _legend(figure, ax, labels)
        span = f"{low} to {high} events" if low < high else f"{low} event"
        title = f"{plain(cohort).capitalize()}, {span}"
        first = band["to_even"]
        strongest = max(range(len(first)), key=lambda i: first[i][0])
        times = f"{number(first[strongest][0])} times its even share"
        note = f"{band['rows']:,} rows. Head {strongest + 1} looks most at the last event: {times}."
        return Drawn(name, title, svg(figure, name, f"{title}: {'; '.join(described)}"), note)


def bands_picture(sequence: str, figures: Json, key: str) -> Drawn | None:
    """Weight by position, mean over heads and over all rows, a line per band of lengths."""
    bands = [band for band in figures["by_position"] if band["cohort"] == "all" and band["events"][1] > 1]
    if not bands:
        return None
    labels = [f"{band['events'][0]}–{band['events'][1]}" for band in bands]
    name, described = f"bands-{key}-{sequence}", []
    with panel(190 + _top(labels), top=_top(labels)) as (figure, ax):
        for i, band in enumerate(bands):
            heads = len(band["to_even"])
            values = [sum(column) / heads for column in zip(*band["to_even"], strict=True)]
            style: dict[str, Any] = {
                "color": color(i + 1),
                "marker": MARKERS[i % len(MARKERS)],
                "markersize": 3.5,
                "linewidth": 1.3,
                "markevery": [2**k - 1 for k in range(len(values).bit_length())],
            }
            ax.plot(range(1, len(values) + 1), values, label=labels[i], **style)
            described.append(f"{labels[i]} events: {number(values[0])} at the most recent, {band['rows']:,} rows")
        ax.axhline(1, color=MUTED, **EVEN)
        ax.set_ylim(bottom=0)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set(xlabel="events ago", ylabel="weight to even weight")
        _legend(figure, ax, labels)
        title = "By length of the history, mean of the heads"
        longest = bands[-1]
        mean = sum(head[0] for head in longest["to_even"]) / len(longest["to_even"])
        span = f"{longest['events'][0]} to {longest['events'][1]} events"
        note = f"With {span} the last one has {number(mean)} times its even share."
        return Drawn(name, title, svg(figure, name, f"{title}: {'; '.join(described)}"), note)


def experts_picture(run: Json, task: str, key: str) -> Drawn:
    """Effective weights of the experts, new beside regular users; a line marks the softmax weight before the gates."""
    uses = {row["cohort"]: row for row in run["experts"] if row["task"] == task}
    name, described, notes = f"experts-{key}-{task}", [], []
    labels = [plain(cohort) for cohort in PAIR if cohort in uses]
    with panel(150 + _top(labels), top=_top(labels)) as (figure, ax):
        for i, cohort in enumerate(c for c in PAIR if c in uses):
            use = uses[cohort]
            places = [e + 0.38 * (i - 0.5) for e in range(len(use["effective"]))]
            ax.bar(places, use["effective"], width=0.34, color=color(2 - i), label=labels[i])
            ax.hlines(use["softmax"], [p - 0.17 for p in places], [p + 0.17 for p in places], color=INK, linewidth=1)
            described.append(f"{plain(cohort)}: {', '.join(number(v) for v in use['effective'])}")
            first = max(range(len(places)), key=lambda e: use["effective"][e])
            notes.append(f"{plain(cohort)}: expert {first + 1} leads with {number(use['effective'][first])}")
        ax.set_xticks(range(len(uses["all"]["effective"])), [str(e + 1) for e in range(len(uses["all"]["effective"]))])
        ax.set(xlabel="expert", ylabel="mean weight")
        _legend(figure, ax, labels)
        text = f"Effective weight of every expert, {plain(task)}; {'; '.join(described)}"
        return Drawn(name, plain(task), svg(figure, name, text), f"{'; '.join(notes)}.".capitalize())


def _columns(labels: Sequence[str]) -> int:
    return 4 if max(map(len, labels)) <= 6 else 3


def _top(labels: Sequence[str]) -> int:
    """Room for the legend of these lines."""
    return 10 + 17 * -(-len(labels) // _columns(labels))


def _legend(figure: Figure, ax: Axes, labels: Sequence[str]) -> None:
    style: dict[str, Any] = {
        "frameon": False,
        "fontsize": 9,
        "handlelength": 1.8,
        "columnspacing": 1.2,
        "borderaxespad": 0.1,
    }
    handles = ax.get_legend_handles_labels()[0]
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0, 1), ncols=_columns(labels), **style)
