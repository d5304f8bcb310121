"""MetaCF's experiment on MovieLens-1M: pre-training, meta-training, meta-test, against what one would pick instead.

    python benchmarks/metacf.py tune --data ml-1m --out OUT [--trials 4]
    python benchmarks/metacf.py run --data ml-1m --out OUT [--seeds 5] [--arms ours,ease]
    python benchmarks/metacf.py table --out OUT

`tune` tries as many settings of each arm, the default first, on users that are in no test; `run` takes the best. Called
again, both go on with what is not done yet. `table` prints the means and 95% intervals over users and seeds, and writes
OUT/table.json.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metacf_arms import ALL, ARMS, Items
from metacf_data import RatingLog, split
from metacf_train import score

METRICS = ("hr", "ndcg", "any_hit")
DRAWS = 4  # of records, for every user of a test
SUPPORTS = (1, 2, 5, 10)
BY_SUPPORT = ("popularity", "bpr_tuned", "ials", "ease", "metacf_neural", "ours", "ease_and_ials", "ours_and_ease")
RIVALS = ("ease", "ease_and_ials", "bpr_tuned")  # that differences are taken to


def settings_of(name: str, out: Path) -> dict[str, Any]:
    """An arm's tuned settings; the defaults before it is tuned."""
    arm = ALL[name]
    source = arm.tuned_as or name
    chosen = {key: values[0] for key, values in ALL[source].space.items()}
    path = out / f"tuned/{source}.json"
    if path.exists():
        trials = json.loads(path.read_text())
        chosen = max(trials, key=lambda trial: trial["hr"])["settings"]
    return chosen | arm.fixed | {part: settings_of(part, out) for part in arm.parts}


def tune(log: RatingLog, out: Path, trials: int, names: list[str]) -> None:
    """Tries settings of every arm that has any; OUT/tuned/ARM.json."""
    (out / "tuned").mkdir(parents=True, exist_ok=True)
    users = split(log, 0, draws=DRAWS)
    items = Items(users, 0)
    for name, arm in ((n, ARMS[n]) for n in names if n in ARMS):
        path = out / f"tuned/{name}.json"
        if path.exists() or not arm.space:
            continue
        grid = [dict(zip(arm.space, values, strict=True)) for values in itertools.product(*arm.space.values())]
        order = np.random.default_rng(0).permutation(len(grid) - 1) + 1
        done = []
        for settings in [grid[0], *(grid[i] for i in order[: trials - 1])]:
            parts = {part: settings_of(part, out) for part in arm.parts}
            hr, ndcg, _ = score(items.fit(name, settings | parts), users.test).mean(0).tolist()
            done.append({"settings": settings, "hr": hr, "ndcg": ndcg})
            print(name, settings, f"HR@10 {hr:.4f}", flush=True)
        _write(path, done)


def run(log: RatingLog, out: Path, seeds: range, names: list[str]) -> None:
    """Every arm on every split; OUT/runs/SEED/ARM.npz and, for supports of one size, SEED/ARM-SIZE.npz."""
    for seed in seeds:
        folder = out / f"runs/{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        missing = [name for name in names if not (folder / f"{name}.npz").exists()]
        if not missing:
            continue
        users = split(log, seed, draws=DRAWS)
        tests = {"": users.test} | {f"-{n}": split(log, seed, draws=DRAWS, support=n).test for n in SUPPORTS}
        items = Items(users, seed)
        for name in missing:
            began = time.process_time()
            scorer = items.fit(name, settings_of(name, out))
            seconds = time.process_time() - began
            for size in [*(f"-{n}" for n in SUPPORTS if name in BY_SUPPORT), ""]:
                test = tests[size]
                values = score(scorer, test).numpy()
                part = folder / f"{name}{size}.part.npz"
                np.savez(part, users=test.users.numpy(), values=values, seconds=seconds)
                part.rename(folder / f"{name}{size}.npz")
            print(seed, name, f"HR@10 {values[:, 0].mean():.4f}, {seconds:.1f} s", flush=True)


class Intervals:
    """Resamples users, whichever seeds they are in, and seeds."""

    def __init__(self, users: int, samples: int = 2000) -> None:
        rng = np.random.default_rng(0)
        self.weights = rng.multinomial(users, np.full(users, 1 / users), samples).astype(np.float32)

    def __call__(self, files: list[Path], metric: int) -> tuple[float, np.ndarray]:
        """Mean over the seeds, and what it is in every sample, float64 [samples]."""
        means, whole = [], []
        for file in files:
            content = np.load(file)
            value = content["values"][:, metric]
            whole.append(float(value.mean()))
            total, count = (
                np.bincount(content["users"], w, self.weights.shape[1]) for w in (value, np.ones_like(value))
            )
            means.append((self.weights @ total.astype(np.float32)) / (self.weights @ count.astype(np.float32)))
        seeds = np.random.default_rng(1).integers(0, len(files), (len(self.weights), len(files)))
        drawn = np.take_along_axis(np.stack(means, 1), seeds, 1).mean(1)
        return float(np.mean(whole)), drawn


def table(out: Path) -> None:
    """Prints and writes what there is: means, intervals, differences to RIVALS on the same seeds, spread of draws."""
    folders = sorted(p for p in (out / "runs").iterdir() if (p / "ease.npz").exists())
    intervals = Intervals(6040)
    rows: list[dict[str, Any]] = []
    for name, size in itertools.product(ALL, ("", *(f"-{n}" for n in SUPPORTS))):
        files = [file for folder in folders if (file := folder / f"{name}{size}.npz").exists()]
        if not files:
            continue
        row: dict[str, Any] = {"arm": f"{name}{size}", "seeds": len(files), "trials": _trials(name, out)}
        row["seconds"] = float(np.mean([np.load(file)["seconds"] for file in files]))
        draws = [np.load(file)["values"][:, 0].reshape(DRAWS, -1).mean(1) for file in files]
        row["draws"] = {"sd": float(np.std(draws)), "least": float(np.min(draws)), "most": float(np.max(draws))}
        own = [intervals(files, i) for i in range(len(METRICS))]
        for metric, (value, drawn) in zip(METRICS, own, strict=True):
            row[metric] = _interval(value, drawn)
        for rival in RIVALS:
            others = [file.with_name(f"{rival}{size}.npz") for file in files]
            if not all(other.exists() for other in others):
                continue
            for i, (metric, (value, drawn)) in enumerate(zip(METRICS, own, strict=True)):
                other, sampled = intervals(others, i)
                row[f"{metric}_over_{rival}"] = _interval(value - other, drawn - sampled)
        rows.append(row)
        text = "  ".join("{} {:.4f} [{:.4f}, {:.4f}]".format(m, *row[m]) for m in METRICS)
        over = ["over {} {:+.4f} [{:+.4f}, {:+.4f}]".format(r, *row[k]) for r in RIVALS if (k := f"hr_over_{r}") in row]
        print(f"{row['arm']:20s} {text}  {'  '.join(over)}  {len(files)} seeds, {row['seconds']:.0f} s")
    _write(out / "table.json", rows)


def _interval(value: float, drawn: np.ndarray) -> list[float]:
    return [value, *np.quantile(drawn, (0.025, 0.975)).tolist()]


def _trials(name: str, out: Path) -> int:
    """Settings that were tried of an arm, or of the one whose settings it takes."""
    path = out / f"tuned/{ALL[name].tuned_as or name}.json"
    return len(json.loads(path.read_text())) if path.exists() else 1


def _write(path: Path, content: object) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.rename(path)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tune", "run", "table"))
    parser.add_argument("--data", type=Path, help="folder with ratings.dat of MovieLens-1M")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5, help="the last seed")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--arms", default=",".join(ALL))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "table":
        return table(args.out)
    if args.data is None:
        parser.error("--data: give the folder of MovieLens-1M")
    log = RatingLog.read(args.data)
    unknown = [name for name in args.arms.split(",") if name not in ALL]
    if unknown:
        parser.error(f"--arms {','.join(unknown)}: there are {', '.join(ALL)}")
    if args.what == "tune":
        return tune(log, args.out, args.trials, args.arms.split(","))
    return run(log, args.out, range(args.first, args.seeds + 1), args.arms.split(","))


if __name__ == "__main__":
    main()
