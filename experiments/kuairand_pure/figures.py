"""The protocol's figures of every arm, and its difference to the machine, with 95% intervals over users and seeds.

    GAUC     sum_u P_u AUC_u / sum_u P_u, over the users with both classes; P_u: a user's positives
    nDCG@5   plain mean over all users; a user without a positive counts 0, without a negative 1
    primary  the mean of the two

Legend: N rows, U users, R draws, S seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tabulate import tabulate

from coldrank.analysis.compare.interval import Interval, contrast, effective_users, holm
from coldrank.analysis.compare.runs import KEYS
from coldrank.data import parquet
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.data.parquet import read_parquet
from coldrank.metrics.columns import label_column, score_column
from coldrank.metrics.mann_whitney import FloatArray, IntArray, Numbers
from coldrank.metrics.positive_gauc import positive_aucs
from coldrank.metrics.values import ndcg_of_users

TASK = "long_view"
FIGURES = ("GAUC", "nDCG@5", "primary")
K = 5
DRAWS = 1000
# Weight of the log's own rate in a video's, in rows: the protocol's.
PRIOR = 20.0
# What takes no training, beside the arms: the order is chance's; by a video's own rate; by the labels.
REFERENCES = ("chance", "popularity", "ceiling")
# Of the whole log, as the protocol's own programs found them: GAUC and nDCG@5.
PUBLISHED = {
    "valid": {
        "chance": (0.4993, 0.4675),
        "popularity": (0.6387, 0.5227),
        "fm": (0.6674, 0.5357),
        "ceiling": (1.0, 0.6968),
    },
    "test": {
        "chance": (0.4996, 0.4511),
        "popularity": (0.6308, 0.5121),
        "fm": (0.6610, 0.5282),
        "ceiling": (1.0, 0.7289),
    },
}


@dataclass(frozen=True, slots=True)
class SplitJudge:
    """The rows of a split, and draws of their users, the same for every arm and seed."""

    keys: pl.DataFrame
    """Its `runs.KEYS` [N]."""
    labels: IntArray
    """0 or 1, int8 [N]."""
    users: IntArray
    """Each row's user, int64 [N], 0 to U - 1."""
    draws: FloatArray
    """How often each user counts, float64 [1 + R, U]; row 0 is the split itself."""

    @classmethod
    def from_file(cls, path: Path, draws: int = DRAWS) -> "SplitJudge":
        """path: predictions, as `coldrank evaluate` writes them. Raises UserError for a label that is unknown."""
        predictions, where = parquet.read(path, [*KEYS, f"label_{TASK}"]), str(path)
        labels = label_column(predictions, TASK, where)
        if (labels < 0).any():
            raise UserError(f"{where}: label_{TASK} is unknown at row {int(np.argmax(labels < 0))}")
        names, users = np.unique(predictions["user_id"].to_numpy(), return_inverse=True)
        rng, count = np.random.default_rng(0), len(names)
        drawn = [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(draws)]
        return cls(predictions.select(KEYS), labels, users, np.array([np.ones(count), *drawn]))

    def figures(self, scores: Numbers) -> FloatArray:
        """FIGURES on the rows and on every draw, float64 [3, 1 + R]. scores: [N]."""
        weighted, positives = positive_aucs(self.labels, scores, self.users)
        of_users = np.stack([weighted, positives, ndcg_of_users(self.labels, scores, self.users, K)])
        won, all_positives, ndcg = of_users @ self.draws.T
        known = all_positives > 0
        gauc = np.divide(won, all_positives, out=np.full(len(won), np.nan), where=known)
        mean = ndcg / self.draws.sum(1)
        return np.stack([gauc, mean, (gauc + mean) / 2])

    def read(self, path: Path) -> FloatArray:
        """`figures` of a file of predictions, of which it checks that they are of the same rows."""
        frame = parquet.read(path, [*KEYS, f"label_{TASK}", f"prob_{TASK}"])
        labels = label_column(frame, TASK, str(path))
        if not (frame.select(KEYS).equals(self.keys) and np.array_equal(labels, self.labels)):
            raise UserError(f"{path}: has other rows than the runs before it; --out holds runs of other data")
        return self.figures(score_column(frame, f"prob_{TASK}", str(path)))

    @property
    def effective_users(self) -> float:
        """For the intervals' degrees of freedom."""
        return effective_users(self.labels, self.users)


def reference_scores(name: str, judge: SplitJudge, data: DataFolder) -> Numbers:
    """The scores of one of REFERENCES, [N]: a constant, whose ties are every order at once; a video's smoothed rate of
    long views in training; the labels."""
    if name == "chance":
        return np.zeros(len(judge.labels))
    if name == "ceiling":
        return judge.labels
    train = read_parquet(data.files(("train",)), ["item_id", f"label_{TASK}"]).drop_nulls()
    rate = float(train[f"label_{TASK}"].mean())  # type: ignore[arg-type]
    views = train.group_by("item_id").agg(pl.len().alias("n"), pl.col(f"label_{TASK}").sum().alias("positives"))
    smoothed = (pl.col("positives") + PRIOR * rate) / (pl.col("n") + PRIOR)
    rates = views.select("item_id", smoothed.alias("rate"))
    joined = judge.keys.select("item_id").join(rates, on="item_id", how="left", maintain_order="left")
    return joined["rate"].fill_null(rate).to_numpy()


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A figure of an arm."""

    arm: str
    seeds: int
    """0: it takes no training."""
    figure: str
    mean: float
    """Over the seeds."""
    seed_spread: float | None
    """Standard deviation over the seeds; None of fewer than two."""
    interval: Interval | None
    """Of the difference to the baseline; None: it is the baseline."""
    p: float | None = None
    """After Holm's correction over the arms' figures."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        i = self.interval
        about = {"arm": self.arm, "seeds": self.seeds, "figure": self.figure, "mean": self.mean}
        difference = None if i is None else {"difference": i.difference, "low": i.low, "high": i.high, "p": self.p}
        return about | {"seed_spread": self.seed_spread, "against_baseline": difference}


def cells(judge: SplitJudge, drawn: Mapping[str, Sequence[FloatArray]], baseline: str) -> list[Cell]:
    """Every figure of every arm. drawn: arm -> `SplitJudge.figures` of its seeds, in their order; of REFERENCES one.

    Arms with the baseline's number of seeds are paired with it, seed by seed.
    """
    found = []
    for arm, of_seeds in drawn.items():
        for index, figure in enumerate(FIGURES):
            ours, theirs = (np.stack([f[index] for f in side]) for side in (of_seeds, drawn[baseline]))
            paired = arm not in REFERENCES and len(ours) == len(theirs)
            interval = None
            if arm != baseline:
                interval = contrast(ours, theirs, judge.effective_users, paired=paired)
            found.append(
                Cell(
                    arm=arm,
                    seeds=0 if arm in REFERENCES else len(ours),
                    figure=figure,
                    mean=float(ours[:, 0].mean()),
                    seed_spread=float(ours[:, 0].std(ddof=1)) if len(ours) > 1 else None,
                    interval=interval,
                )
            )
    return _corrected(found)


def _corrected(found: list[Cell]) -> list[Cell]:
    judged = [n for n, c in enumerate(found) if c.interval is not None and c.arm not in REFERENCES]
    p = holm([c.p for n in judged if (c := found[n].interval) is not None])
    result = list(found)
    for n, value in zip(judged, p, strict=True):
        result[n] = replace(found[n], p=value)
    return result


def table(found: Sequence[Cell], published: Mapping[str, tuple[float, float]] | None) -> str:
    """Markdown: an arm a line, in percent; of all but the baseline also the difference to it in percentage points, and
    half of its 95% interval. published: figures of the whole log, where these are of it."""
    body = []
    for arm in dict.fromkeys(c.arm for c in found):
        of_arm = [c for c in found if c.arm == arm]
        seeds = f" ({of_arm[0].seeds})" if of_arm[0].seeds else ""
        body.append([f"{arm}{seeds}", *(_text(c) for c in of_arm)])
        if published and arm in published:
            gauc, ndcg = published[arm]
            body.append([f"{arm}, published", *(f"{100 * v:.2f}" for v in (gauc, ndcg, (gauc + ndcg) / 2))])
    return str(tabulate(body, headers=["arm (seeds)", *FIGURES], tablefmt="github", disable_numparse=True))


def _text(cell: Cell) -> str:
    mean, i = f"{100 * cell.mean:.2f}", cell.interval
    if i is None:
        return mean if cell.seed_spread is None else f"{mean} (seeds: {100 * cell.seed_spread:.2f})"
    mark = "" if cell.p is None or cell.p >= 0.05 else "▲" if i.difference > 0 else "▼"
    return f"{mean} ({100 * i.difference:+.2f} ±{50 * (i.high - i.low):.2f}{mark})"
