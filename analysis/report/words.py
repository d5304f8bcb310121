"""Names and figures as a reader sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from coldrank.data.cohorts import CohortConfig

TITLES = {"auc": "AUC", "auc_fixed_avc": "AUC at fixed AVC", "ne": "NE", "gauc": "GAUC"}
TITLES |= {"xauc": "XAUC", "mae": "MAE", "calibration": "calibration"}
MARKS = {"better": "▲", "worse": "▼"}
HOLLOW = {"better": "△", "worse": "▽"}  # before the correction only
_COHORTS = {
    "all": "all",
    "new_user": "new users",
    "regular_user": "regular users",
    "new_item": "new items",
    "regular_item": "regular items",
    "cold_item": "cold items",
    "popular_item": "popular items",
}
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the report."""

    title: str
    """Its title."""
    svg: str
    """Its `<svg>` element."""
    note: str = ""
    """A line below it."""


def plain(name: str) -> str:
    """A task's or cohort's name in words: `long_view` -> `long view`, `new_user` -> `new users`."""
    return _COHORTS.get(name, name.replace("_", " "))


def cohort_meanings(cohorts: CohortConfig) -> str:
    """What makes users and items new, in a sentence."""
    user, item = cohorts.new_user_max_views, cohorts.new_item_max_views
    return f"New users have at most {user} views before the event, new items at most {item}; the others are regular."


def p_value(value: float | None) -> str:
    """`0.032`, `<0.001`; a dash for None."""
    return "–" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def number(value: float | None, decimals: int = 2) -> str:
    """`75.88`; a dash for None."""
    return "–" if value is None else f"{value:,.{decimals}f}".replace("-", MINUS)


def signed(value: float | None, decimals: int = 2) -> str:
    """`+0.08`, with a real minus sign; a dash for None."""
    return "–" if value is None else f"{value:+,.{decimals}f}".replace("-", MINUS)


def breakable(name: str) -> Markup:
    """A name that may go on in a new line after each underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return ", ".join(items[:-1]) + (" and " if len(items) > 1 else "") + items[-1] if items else ""


def spread(values: Sequence[float], decimals: int = 0) -> str:
    """One figure, or its least and greatest: `81` or `76 to 92`; empty for none."""
    if not values:
        return ""
    low, high = f"{min(values):,.{decimals}f}", f"{max(values):,.{decimals}f}"
    return low if low == high else f"{low} to {high}"


def duration(seconds: float) -> str:
    """`48 s`, `12 min 5 s`, `3 h 20 min`."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    minutes, rest = divmod(total, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
