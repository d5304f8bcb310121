"""What each method is worth where counters are refreshed late, and what lateness itself costs.

    python benchmarks/late_features.py --log LOGS --seeds 5 --out OUT --jobs 2
    python benchmarks/late_features.py --simulate 500000 --gate-strength 2 --seeds 5 --out OUT --jobs 2
    python benchmarks/late_features.py --log LOGS --since 2022-04-25 --stream 2022-04-26 --out OUT

Prepares the log once for each refresh, trains the arms of `coldrank.configs.kuairand_late` on each with the same seeds
(with --stream day by day, each scored first, where a last pass over new users has no place), and judges all on the same
rows: who is new is said by the views as of the event, however late the model sees them. Goes on where it was cut off.
Writes OUT/late.json and OUT/late.md; `figures.py late` draws them.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from tabulate import tabulate

from coldrank.cli.main import main as coldrank
from coldrank.data import parquet

CONFIG = "coldrank.configs.kuairand_late"
ARMS = ("base", "poso", "base_mwuf", "base_metacf", "base_pam", "base_posterior", "base_cold_pass")
REFRESH = {"none": 0.0, "10 min": 1 / 6, "1 h": 1.0, "1 day": 24.0}
KEYS = ("user_id", "item_id", "time")
COHORTS = {"all": "all", "new_user": "new users", "new_item": "new items"}


def run(*arguments: str) -> None:
    """A command of `coldrank`; raises SystemExit where it fails."""
    if code := coldrank(list(arguments)):
        raise SystemExit(code)


def prepare(args: argparse.Namespace) -> None:
    """The log, and its samples for each refresh."""
    log = args.log or args.out / "log"
    if args.log is None and not log.exists():
        strength = str(args.gate_strength)
        run("simulate", "--events", str(args.simulate), "--gate-strength", strength, "--out", str(log))
    for name in args.refresh:
        data = folder(args.out, name) / "data"
        if not data.exists():
            hours = ("--refresh-hours", f"{REFRESH[name]:.6g}") if REFRESH[name] else ()
            run("prepare", "kuairand", "--data", str(log), "--out", str(data), "--test-from", args.test_from, *hours)


def folder(out: Path, refresh: str) -> Path:
    """Of a refresh."""
    return out / refresh.replace(" ", "-")


def train(args: argparse.Namespace) -> None:
    """Every arm and seed on every refresh."""
    tuned = ("--tuned", str(args.tuned)) if args.tuned else ()
    stream = ("train.mode=periods", f"train.first_period={args.stream}", "train.look_back=[]", "optim.decay=constant")
    settings = [*(stream if args.stream else ()), *([f"data.since={args.since}"] if args.since else ()), *args.set]
    mode = ("--set", *settings) if settings else ()
    for name in args.refresh:
        place = folder(args.out, name)
        arms, seeds, jobs = ",".join(args.arms), str(args.seeds), str(args.jobs)
        options = ("--arms", arms, "--seeds", seeds, "--jobs", jobs, *tuned, *mode)
        run("train", "--config", CONFIG, *options, "--data", str(place / "data"), "--out", str(place / "runs"))


def judge(args: argparse.Namespace) -> None:
    """Copies what the runs predict, each arm named with its refresh, its views as those of the first refresh; compares
    the arms of each refresh with its base, and every base with the first's."""
    truth = args.refresh[0]
    for arm in args.arms:
        for seed in range(1, args.seeds + 1):
            known = parquet.read(folder(args.out, truth) / "runs" / f"{arm}-{seed}" / file_of(args.split))
            for name in args.refresh:
                source = folder(args.out, name) / "runs" / f"{arm}-{seed}"
                copy(source, folder(args.out, name) / "judged" / f"{arm}-{seed}", f"{arm}, {name}", known, args.split)
    bases = [
        folder(args.out, name) / "judged" / f"base-{seed}" for name in args.refresh for seed in range(1, args.seeds + 1)
    ]
    compare(bases, f"base, {truth}", args.out / "lateness", args)
    for name in args.refresh:
        runs = [folder(args.out, name) / "judged"]
        compare(runs, f"base, {name}", folder(args.out, name) / "comparison", args)


def file_of(split: str) -> str:
    """Of a run's predictions."""
    return f"predictions-{split}.parquet"


def copy(source: Path, target: Path, arm: str, known: pl.DataFrame, split: str) -> None:
    """A run folder with the predictions of `source` and the views of `known`; ValueError where that has other rows."""
    path = source / file_of(split)
    predictions = parquet.read(path)
    if not predictions.select(KEYS).equals(known.select(KEYS)):
        raise ValueError(f"{path}: other rows than those of the first refresh")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    predictions.with_columns(known["user_views"], known["item_views"]).write_parquet(target / path.name)
    config = json.loads((source / "config.json").read_text()) | {"name": arm}
    (target / "config.json").write_text(json.dumps(config))
    for name in ("run.json", "summary.json"):
        shutil.copy(source / name, target / name)


def compare(runs: Sequence[Path], baseline: str, out: Path, args: argparse.Namespace) -> None:
    """`coldrank compare` into a new `out`."""
    shutil.rmtree(out, ignore_errors=True)
    allowed = [option for aspect in ("data", "passes", "features") for option in ("--allow", aspect)]
    options = ("--baseline", baseline, *allowed, "--resamples", str(args.resamples), "--split", args.split)
    run("compare", *map(str, runs), *options, "--out", str(out))


def collect(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of all comparisons: of the base at each refresh to that of the first (`of` lateness), of the arms to the
    base of the same refresh."""
    sources = {"lateness": args.out / "lateness"} | {n: folder(args.out, n) / "comparison" for n in args.refresh}
    rows = []
    for of, place in sources.items():
        content = json.loads((place / "compare.json").read_text())
        for row in content["rows"]:
            arm, refresh = row["arm"].split(", ")
            rows.append(row | {"of": of, "arm": arm, "refresh": refresh})
    return rows


def table(rows: Sequence[dict[str, Any]], task: str, cohort: str, refresh: Sequence[str]) -> str:
    """AUC of a task in a cohort: what lateness costs the base, then each arm's difference to the base as late."""
    chosen = [r for r in rows if (r["task"], r["cohort"], r["metric"]) == (task, cohort, "auc")]
    arms = dict.fromkeys(r["arm"] for r in chosen)
    lines = []
    for arm in arms:
        of = {r["refresh"]: r for r in chosen if r["arm"] == arm and (r["of"] == "lateness") == (arm == "base")}
        lines.append([arm, *(cell(of.get(name)) for name in refresh)])
    return str(tabulate(lines, headers=["arm", *refresh], tablefmt="github", disable_numparse=True))


def cell(row: dict[str, Any] | None) -> str:
    """The mean of what is compared with, else the difference, half of its interval and its mark, as in `compare`."""
    if row is None or row["mean"] is None:
        return "-"
    if row["difference"] is None or row["high"] is None:
        return f"{row['mean']:.2f}"
    mark = {"better": "▲", "worse": "▼"}.get(row["verdict"])
    mark = mark or {"better": "△", "worse": "▽"}.get(row["uncorrected"], "")
    return f"{row['difference']:+.2f} ±{row['high'] - row['difference']:.2f}{mark}"


def write(args: argparse.Namespace) -> None:
    """late.json and late.md."""
    rows = collect(args)
    (args.out / "late.json").write_text(json.dumps({"refresh": args.refresh, "rows": rows}, indent=1) + "\n")
    parts = []
    for cohort, words in COHORTS.items():
        for task in dict.fromkeys(r["task"] for r in rows):
            parts.append(f"**{task.replace('_', ' ')}, {words}**\n\n{table(rows, task, cohort, args.refresh)}")
    (args.out / "late.md").write_text("\n\n".join(parts) + "\n")


def _refreshes(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in REFRESH]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}: must be among {', '.join(REFRESH)}")
    return names


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--log", type=Path, help="folder with KuaiRand's files")
    which.add_argument("--simulate", type=int, metavar="EVENTS", help="a simulated log of so many events")
    parser.add_argument("--gate-strength", type=float, default=2.0, help="of the simulated log")
    parser.add_argument("--arms", type=lambda text: text.split(","), help="base is first (default: all)")
    parser.add_argument("--refresh", type=_refreshes, default=list(REFRESH), help="first: the views' truth")
    parser.add_argument("--since", default="", metavar="DAY", help="trains on the samples from this day on alone")
    parser.add_argument("--test-from", default="2022-05-04")
    parser.add_argument("--stream", metavar="DAY", help="day by day from this one on, in the place of passes")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tuned", type=Path, help="folder of a `coldrank tune`")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="fields of every arm")
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.split = "next" if args.stream else "test"
    args.arms = args.arms or [arm for arm in ARMS if not (args.stream and arm == "base_cold_pass")]
    args.out.mkdir(parents=True, exist_ok=True)
    for step in (prepare, train, judge, write):
        step(args)
    print(f"{args.out / 'late.md'}: the tables")


if __name__ == "__main__":
    main()
