"""Small Matplotlib figures as inline SVG whose colours are the page's CSS variables.

Figures are drawn in stand-in colours, one per variable; `svg` puts the variables in their place, so that one picture
serves the light and the dark page. `mark` gives artists the class of their arm, by which the page shows or hides them.
"""

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

MAX_ARMS = 8
INK, MUTED, GRID = "#fe0001", "#fe0002", "#fe0003"
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid"} | {f"#fe010{i}": f"arm-{i}" for i in range(MAX_ARMS)}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", "-", "-", "-", (0, (4, 1.5)), (0, (4, 1.5)), (0, (1.5, 1)), (0, (1.5, 1)))
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "coldrank",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "axes.axisbelow": True,
}


def color(arm: int) -> str:
    """Stand-in colour of the arm of that number; the baseline is 0. Arms beyond the eighth begin again."""
    return f"#fe010{arm % MAX_ARMS}"


def mark(artists: Any, arm: int) -> None:
    """Says that an artist, or each of several, belongs to the arm of that number."""
    for artist in artists if isinstance(artists, (list, tuple)) else [artists]:
        if isinstance(artist, (list, tuple)):
            mark(artist, arm)
        elif artist is not None:
            artist.set_gid(f"of-arm-{arm}")


@contextmanager
def panel(height: int, labels: tuple[str, ...], below: str = "") -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure 320 units wide with one axes for each of the y `labels`, above each other, and an x label `below` all.

    Margins are fixed: Matplotlib's own layout takes as long as all the drawing.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(320 / 72, height / 72))
        bottom, top = (34 if below else 20) / height, 1 - 18 / height
        grid = figure.subplots(
            len(labels),
            1,
            sharex=True,
            squeeze=False,
            gridspec_kw={"left": 44 / 320, "right": 310 / 320, "bottom": bottom, "top": top, "hspace": 0.28},
        )
        axes = list(grid[:, 0])
        for ax, label in zip(axes, labels, strict=True):
            ax.set_title(label, loc="left", fontsize=9, color=MUTED, pad=5)
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.tick_params(axis="x", pad=5)
            ax.grid(visible=False, axis="x")
        axes[-1].set_xlabel(below)
        yield figure, axes


def svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an `<svg>` element with a text alternative.

    name: unique in the page, keeps its references apart.
    """
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)  # a hundredth is enough to draw
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, f"var(--{variable})")
    text = re.sub(r'<g id="of-(arm-\d+)"', r'<g class="of-\1"', text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'(id="|#)([mpCh][0-9a-f_]{6,})', rf"\1{re.sub(r'[^A-Za-z0-9-]', '_', name)}-\2", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None, "Matplotlib writes a viewBox"
    label = html.escape(description)
    head = f'<svg class="plot" {view[0]} role="img" aria-label="{label}">'
    text = (head + text[text.index(">") + 1 :]).replace("xlink:href", "href")
    return Markup(re.sub(r"\s*\n\s*", "\n", text).strip())


def swatch(arm: int) -> Markup:
    """The line and marker of an arm, for the legend."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(30 / 72, 12 / 72))
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        ax.set_axis_off()
        style = {"linewidth": 1.8, "linestyle": DASHES[arm % len(DASHES)], "color": color(arm)}
        ax.plot((0, 0.5, 1), (0, 0, 0), marker=MARKERS[arm % len(MARKERS)], markevery=[1], markersize=5, **style)
        return Markup(svg(figure, f"swatch-{arm}", "").replace('role="img" aria-label=""', 'aria-hidden="true"'))
