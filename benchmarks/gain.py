"""What an arm gained for new users on a simulated log, beside what there was to gain.

    python benchmarks/gain.py LOG COMPARISON

LOG: folder of `coldrank simulate`. COMPARISON: folder of `coldrank compare`. Of one task, LEADING, chosen beforehand.
"""

import argparse
import json
from pathlib import Path
from typing import Any

LEADING = "long_view"


def sentence(simulation: dict[str, Any], rows: list[dict[str, Any]], arm: str = "poso") -> str:
    """The gain in AUC of new users with its interval, and whether the interval excludes zero.

    simulation: of simulation.json. rows: of compare.json.
    """
    room = simulation["auc"]["new_user"][LEADING]
    headroom = room["best"] - room["gates_unknown"]
    start = f"{LEADING} of new users: {headroom:.2f} points of AUC are to gain by knowing how they differ."
    of = ("new_user", LEADING, "auc", arm)
    row = next(r for r in rows if (r["cohort"], r["task"], r["metric"], r["arm"]) == of)
    if row["low"] is None:
        return f"{start} Too few new users to compare {arm}."
    gain, half = row["difference"], row["high"] - row["difference"]
    share = f", {100 * gain / headroom:.0f}% of that" if headroom > 0 else ""
    verdict = (
        "a gain" if row["low"] > 0 else "a loss" if row["high"] < 0 else "not to be told from none by this one run"
    )
    return f"{start} {arm}: {gain:+.2f} \u00b1{half:.2f}{share}; {verdict}."


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("comparison", type=Path)
    args = parser.parse_args()
    simulation = json.loads((args.log / "simulation.json").read_text())
    rows = json.loads((args.comparison / "compare.json").read_text())["rows"]
    print("\n" + sentence(simulation, rows))


if __name__ == "__main__":
    main()
