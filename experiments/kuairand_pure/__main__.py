"""The command of the protocol; see docs/results/kuairand_pure.md.

`python -m coldrank.experiments.kuairand_pure --logs KuaiRand-Pure/data --out OUT`
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError, report
from coldrank.data.output import check_folder, write_atomic
from coldrank.experiments.kuairand_pure import choice, figures, protocol
from coldrank.experiments.kuairand_pure.figures import SplitJudge
from coldrank.experiments.sweep import overrides_of_jobs, refuse_ranks

BASELINE = "fm"
# How far a call goes.
STAGES = ("data", "choice", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """Does what is left to do. 0 is success; a mistake is one line and 2."""
    parser = argparse.ArgumentParser(
        prog="kuairand_pure",
        description="The public protocol of KuaiRand-Pure: long view ranked within each user; GAUC and nDCG@5. Trains "
        "every arm at its settings, chooses on the days of validation, writes the choice to OUT/frozen.json, and then "
        "scores the days of test. A call that was cut off goes on.",
    )
    parser.add_argument("--logs", required=True, type=Path, help="folder of the log, official files")
    parser.add_argument("--out", required=True, type=Path, help="folder for samples, runs and tables")
    parser.add_argument("--config", default="coldrank.configs.kuairand_pure", help="module of the arms")
    parser.add_argument(
        "--arms", default="fm,fm_counts,base,poso", help=f"{BASELINE} among them (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1..N of every arm (default: 5)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side (default: 1)")
    parser.add_argument("--until", choices=STAGES, default="test", help="where to stop (default: %(default)s)")
    part = parser.add_argument_group("with a part of the log")
    part.add_argument("--part", action="store_true", help="go on: its figures are not those of the whole log")
    part.add_argument("--valid-from", type=_day, metavar="DAY", help="first day of validation (default: 2022-04-22)")
    part.add_argument("--test-from", type=_day, metavar="DAY", help="first day of test (default: 2022-04-29)")
    args = parser.parse_args(argv)
    try:
        run(args)
    except (UserError, OSError) as error:
        report(f"kuairand_pure: {error}")
        return 2
    return 0


def run(args: argparse.Namespace) -> None:
    """Checks all that can be checked, then runs. Raises UserError."""
    arms = [arm for arm in args.arms.split(",") if arm]
    for name in ("seeds", "jobs"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: must be above 0")
    if args.until == "test" and BASELINE not in arms:
        raise UserError(f"--arms {args.arms}: {BASELINE} is what the others are held against; add it")
    if taken := next((arm for arm in arms if arm in figures.REFERENCES), ""):
        raise UserError(f"--arms {taken}: is what the tables call their own reference; rename the arm")
    tried = choice.settings_of(args.config, arms)
    days = _days(args)
    check_folder("--out", args.out)
    refuse_ranks()
    log = protocol.open_log(args.logs)
    found = protocol.survey(log, days)
    print(found)
    if not found.whole:
        if not args.part:
            raise UserError(f"--logs {args.logs}: is not the whole log; --part goes on with what is there")
        print("A part of the log: its figures are not to be held against those of the whole.")
    data = protocol.samples(args.logs, log, args.out / "data", days, live=False)
    if args.until == "data":
        return
    shared = overrides_of_jobs(args.jobs)
    settings = {arm: [(*shared, *fields) for fields in tried[arm]] for arm in arms}
    chosen = {a: choice.choose(args.config, a, settings[a], args.seeds, data, args.out, args.jobs) for a in arms}
    for arm, of_arm in chosen.items():
        fields, valid = " ".join(of_arm["fields"]) or "as it is", of_arm["settings"][of_arm["setting"]]["valid"]
        print(f"{arm}: {fields}, the best of {len(of_arm['settings'])} on validation ({100 * valid['primary']:.2f})")
    folders = {
        arm: [args.out / "runs" / f"{arm}-{chosen[arm]['setting']}" / f"seed-{s}" for s in range(1, args.seeds + 1)]
        for arm in arms
    }
    _write(args.out, "valid", folders, data, found)
    if args.until == "choice":
        return
    # Without the number of seeds, which chooses nothing: more of them may be added later.
    facts = {"found": str(found), "whole": found.whole, "data": data.digest, "arms": chosen}
    choice.freeze(args.out, {"format": 1, "config": args.config, **facts})
    live = protocol.samples(args.logs, log, args.out / "data-live", days, live=True)
    for split, samples in (("test", data), ("live", live)):
        for folder in (f for of_arm in folders.values() for f in of_arm):
            choice.score(folder, samples, "test", folder / f"predictions-{split}.parquet")
        _write(args.out, split, folders, samples, found)


TITLES = {
    "valid": "Validation",
    "test": "Test",
    "live": "Test, with outcomes as they come: rates and histories hold all that was known before an event",
}


def _write(out: Path, split: str, folders: dict[str, list[Path]], data: DataFolder, found: protocol.Coverage) -> None:
    """Prints a table, and writes it and its cells to OUT/tables."""
    files = {arm: [f / f"predictions-{split}.parquet" for f in of_arm] for arm, of_arm in folders.items()}
    first = next(iter(files.values()))[0]
    judge = SplitJudge.from_file(first)
    drawn = {arm: [judge.read(file) for file in of_arm] for arm, of_arm in files.items()}
    drawn |= {r: [judge.figures(figures.reference_scores(r, judge, data))] for r in figures.REFERENCES}
    baseline = BASELINE if BASELINE in drawn else next(iter(drawn))
    cells = figures.cells(judge, drawn, baseline)
    published = figures.PUBLISHED.get(split) if found.whole else None
    about = f"{TITLES[split]}: {len(judge.labels):,} rows, {judge.draws.shape[1]:,} users; differences to {baseline}"
    part = "" if found.whole else f". Of a part of the log ({found})"
    text = f"{about}{part}\n\n{figures.table(cells, published)}\n"
    facts: dict[str, Any] = {"split": split, "found": str(found), "whole": found.whole, "baseline": baseline}
    (out / "tables").mkdir(parents=True, exist_ok=True)
    write_atomic(out / "tables" / f"{split}.md", text)
    write_atomic(
        out / "tables" / f"{split}.json", json.dumps(facts | {"cells": [c.to_json() for c in cells]}, indent=1)
    )
    print(f"\n{text}")


def _days(args: argparse.Namespace) -> protocol.ProtocolDays:
    """The days that are asked for. Raises UserError where they cannot be."""
    usual = protocol.ProtocolDays()
    for name in ("valid_from", "test_from"):
        if getattr(args, name) and not args.part:
            raise UserError(
                f"--{name.replace('_', '-')}: the protocol's days are fixed; of a part of the log give --part"
            )
    days = protocol.ProtocolDays(args.valid_from or usual.valid_from, args.test_from or usual.test_from)
    if days.valid_from >= days.test_from:
        raise UserError(f"--valid-from {days.valid_from}: should be before --test-from {days.test_from}")
    return days


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day; write it like 2022-04-29") from None


if __name__ == "__main__":
    sys.exit(main())
