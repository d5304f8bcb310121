"""Why BPR gives new users more or less in MetaCF's experiment: one knob at a time, on the users kept for tuning.

    python benchmarks/metacf_knobs.py --data ml-1m --out OUT

Prints HR@10 of each setting and its difference to `START`, with a 95% interval over users, and
writes OUT/knobs.json. Called again, it goes on with what is not done yet.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metacf_arms import Items, rated
from metacf_bpr import BprConfig, bpr
from metacf_data import Episodes, RatingLog, UserSplit, split
from metacf_items import factorise
from metacf_train import Scorer, score
from torch import Tensor

DRAWS = 4
START = "start: Eq. 3, negatives anew in every step, 50 steps of 0.05 from zero"
BEFORE: dict[str, Any] = {"pairs": True, "redraw": False, "steps": 20}
KNOBS: dict[str, dict[str, Any]] = {
    START: {},
    "pairs, negatives drawn once, 20 steps": BEFORE,
    "that with negatives anew in every step": BEFORE | {"redraw": True},
    "that with the loss of Eq. 3": BEFORE | {"redraw": True, "pairs": False},
    "pairs": {"pairs": True},
    "negatives drawn once": {"redraw": False},
    "20 negatives": {"negatives": 20},
    "5 steps": {"steps": 5},
    "200 steps": {"steps": 200},
    "steps of 0.01": {"rate": 0.01},
    "100 steps of 0.02": {"rate": 0.02, "steps": 100},
    "lambda 0.1 for the new user": {"decay": 0.1},
    "lambda 0.5 for the new user": {"decay": 0.5},
    "random first vector": {"start": "random"},
    "mean user as first vector": {"start": "mean"},
    "20 epochs of pre-training": {"epochs": 20},
    "80 epochs of pre-training": {"epochs": 80},
    "lambda 0.003 in pre-training": {"l2": 3e-3},
    "lambda 0.03 in pre-training": {"l2": 3e-2},
    "6 negatives in pre-training": {"pretraining_negatives": 6},
    "bias of the items": {"bias": True},
    "pre-trained on the records of meta-training, too": {"known": True},
    "width 16": {"width": 16},
    "width 64": {"width": 64},
    "width 128": {"width": 128},
}
RETRAINED = "items and new users trained together, on all supports of a draw"


def retrained(users: UserSplit, test: Episodes, seed: int, epochs: int = BprConfig.epochs) -> Scorer:
    """Pre-training as `START` has it, with the supports of `test` in it: scores of its users, in that order."""
    log = RatingLog.of(torch.cat([users.pretrain.matrix(), rated(test.support, users.pretrain.item_count)]))
    start = BprConfig()
    factors = factorise(log, "bce", dim=start.width, epochs=epochs, l2=start.l2, seed=seed)
    parts = iter(factors.users[-len(test.users) :].split(512))
    return lambda support: next(parts) @ factors.items.T


def difference(values: Tensor, start: Tensor, users: Tensor, samples: int = 2000) -> list[float]:
    """Mean of values - start over episodes, and its 95% interval, users drawn again.

    values, start: float32 [E]. users: int64 [E].
    """
    numbers, inverse = np.unique(users.numpy(), return_inverse=True)
    sums = np.bincount(inverse, (values - start).double().numpy())
    counts = np.bincount(inverse)
    weights = np.random.default_rng(0).multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), samples)
    drawn = (weights @ sums) / (weights @ counts)
    return [float(sums.sum() / counts.sum()), *np.quantile(drawn, (0.025, 0.975)).tolist()]


def turn(log: RatingLog, out: Path, names: list[str]) -> None:
    """HR@10 of every setting of KNOBS and of RETRAINED; OUT/knobs/NUMBER.npy, and OUT/knobs.json of what there is."""
    (out / "knobs").mkdir(parents=True, exist_ok=True)
    users = split(log, 0, draws=DRAWS)
    items, test = Items(users, 0), users.test
    queries = (test.query >= 0).sum(1)
    first = Episodes(*(part[: len(test.users) // DRAWS] for part in test))
    rows: list[dict[str, Any]] = []
    for number, name in enumerate([*KNOBS, RETRAINED]):
        path = out / f"knobs/{number}.npy"
        if not path.exists() and name in names:
            if name == RETRAINED:
                values = score(retrained(users, first, 0), first)[:, 0]
            else:
                values = score(bpr(BprConfig(), items, KNOBS[name]), test)[:, 0]
            np.save(path, values.numpy())
        if not path.exists():
            continue
        values = torch.from_numpy(np.load(path))
        if name == START:
            start = values
        size = len(values)
        settings = asdict(BprConfig(**KNOBS.get(name, {})))
        row = {"knob": name, "settings": settings, "hr": float(values.mean()), "draws": size // len(first.users)}
        row["over_start"] = difference(values, start[:size], test.users[:size])
        row["hr_of_all_queries"] = float((values * queries[:size]).sum() / queries[:size].sum())
        rows.append(row)
        print(f"{row['hr']:.4f}", "{:+.4f} [{:+.4f}, {:+.4f}]".format(*row["over_start"]), name, flush=True)
    (out / "knobs.json").write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with ratings.dat of MovieLens-1M")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    turn(RatingLog.read(args.data), args.out, [*KNOBS, RETRAINED])


if __name__ == "__main__":
    main()
