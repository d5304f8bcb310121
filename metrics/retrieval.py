"""How a two-tower model is judged (PAM, section 5.1.3): an item's user among users who did not meet it.

Three settings, each with the number of candidates beside its figures:

    recall@k            the users of the same `batch` rows of the stream, as the paper has it; whoever met the item
                        at any time, the same user included, is left out
    recall@k_of_<n>     `users` distinct users, drawn at random from those of the period
    recall@k_of_all     all distinct users of the period

In the last two a user is represented by the last of its rows that is not later than the positive's, or by its first.

Legend: R rows of a period, P positives, C candidates, N sets of user vectors (one per route), D width of a vector.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from coldrank.data import parquet
from coldrank.data.log import SAMPLED
from coldrank.data.negatives.alone import events_alone
from coldrank.models.model import Vectors

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
MetricRow = dict[str, str | float | int | None]
# Columns of scored rows that the vectors are in.
VECTORS = ("item_vector", "user_vectors", "route")


def vector_columns(vectors: Vectors) -> dict[str, Tensor]:
    """A batch's vectors as columns of its rows: float32 [B, D] and [B, N * D], and int64 [B]."""
    users = vectors.users.transpose(0, 1).flatten(1)
    return dict(zip(VECTORS, (vectors.item, users, vectors.group), strict=True))


# Cohorts that are judged by the last two settings as well.
STRICT = ("cold_item", "popular_item")
_NAMES = ("recall@", "ndcg@", "candidates")
# Scores held at a time.
_CHUNK = 4_000_000


@dataclass(kw_only=True, slots=True)
class RetrievalConfig:
    """How a two-tower model is judged."""

    ks: tuple[int, ...] = (5, 10, 20)
    """The K of Recall@K and NDCG@K."""
    batch: int = 1024
    """Rows that are each other's candidates."""
    users: int = 100
    """Distinct users of the stricter setting."""
    cold: tuple[int, int] = (5, 50)
    """Items with more views than the first and at most as many as the second are cold.

    Items with more are popular. The few others are a cohort of their own.
    """
    most: int = 2000
    """Positives of a cohort and period in the last two settings; of more, so many are drawn."""

    def cohorts(self, item_views: Ints) -> dict[str, NDArray[np.bool_]]:
        """Cohort -> which rows are in it, bool [R]. item_views: int64 [R]."""
        low, high = self.cold
        return {
            "cold_item": (item_views > low) & (item_views <= high),
            "popular_item": item_views > high,
            "unseen_item": item_views <= low,
            "all": np.ones(len(item_views), np.bool_),
        }

    def metrics(self) -> dict[str, list[str]]:
        """Each Recall@K and NDCG@K -> the cohorts that have it."""
        every = list(self.cohorts(np.empty(0, np.int64)))
        settings = {"": every, f"_of_{self.users}": list(STRICT), "_of_all": list(STRICT)}
        names = [f"{kind}@{k}" for kind in ("recall", "ndcg") for k in self.ks]
        return {f"{name}{among}": cohorts for among, cohorts in settings.items() for name in names}


class Met:
    """Which user met which item, in all events of some samples."""

    def __init__(self, files: list[Path]) -> None:
        frame = pl.concat([_events(f) for f in files])
        self.users = frame["user_id"].unique().sort().to_numpy()
        self.items = frame["item_id"].unique().sort().to_numpy()
        user = np.searchsorted(self.users, frame["user_id"].to_numpy())
        item = np.searchsorted(self.items, frame["item_id"].to_numpy())
        self.pairs = np.unique(item * len(self.users) + user)

    def table(self, items: Ints, users: Ints) -> NDArray[np.bool_]:
        """Whether each item met each user, bool [P, C].

        items, users: ids, int64 [P] and [C], all among those of the files.
        """
        item = np.searchsorted(self.items, items).astype(np.int64) * len(self.users)
        codes = item[:, None] + np.searchsorted(self.users, users)[None, :]
        nearest = np.minimum(np.searchsorted(self.pairs, codes), len(self.pairs) - 1)
        return np.asarray(self.pairs[nearest] == codes)


def _events(file: Path) -> pl.DataFrame:
    """Users and items of samples, without sampled negatives, which nobody met."""
    sampled = [n for n in parquet.schema(file).names if n == SAMPLED]
    return events_alone(parquet.read(file, ["user_id", "item_id", *sampled])).select("user_id", "item_id")


@lru_cache(1)
def met_in(files: tuple[Path, ...]) -> Met:
    """`Met` of some files, kept for the next call: it is the same for every period of a folder."""
    return Met(list(files))


@dataclass(frozen=True, slots=True)
class ScoredPeriod:
    """The R rows of a period, in order of time."""

    user_id: Ints
    """int64 [R]."""
    item_id: Ints
    """int64 [R]."""
    item_views: Ints
    """Events of the item before, int64 [R]."""
    label: NDArray[np.int8]
    """int8 [R]; -1 where unknown."""
    route: Ints
    """Which of the N sets of user vectors the item is scored by, int64 [R]."""
    item: Floats
    """Vector of the item, float32 [R, D]."""
    users: Floats
    """Vectors of the user, float32 [N, R, D]."""

    @classmethod
    def from_frame(cls, frame: pl.DataFrame, task: str) -> "ScoredPeriod":
        """frame: rows in order of time, with the columns `VECTORS`."""
        item = np.asarray(frame["item_vector"].to_numpy(), np.float32)
        users = np.asarray(frame["user_vectors"].to_numpy(), np.float32).reshape(len(frame), -1, item.shape[1])
        user, item_id, views = (frame[n].to_numpy().astype(np.int64) for n in ("user_id", "item_id", "item_views"))
        label = frame[f"label_{task}"].fill_null(-1).to_numpy()
        return cls(
            user, item_id, views, label, frame["route"].to_numpy(), item, np.ascontiguousarray(users.transpose(1, 0, 2))
        )


def judge(frame: pl.DataFrame, task: str, config: RetrievalConfig, met: Met, seed: int) -> list[MetricRow]:
    """Metrics of a scored period, as rows `{"cohort", "task", "metric", "value", "n"}`; n: positives.

    The metric `candidates` is the mean number of users that a positive stands among.
    seed: seeds what is drawn.
    """
    rows = ScoredPeriod.from_frame(frame, task)
    positives = np.flatnonzero(rows.label == 1)
    cohorts = config.cohorts(rows.item_views)
    metrics: list[MetricRow] = []
    rank, candidates = _in_batches(rows, positives, config.batch, met)
    for cohort, mask in cohorts.items():
        use = mask[positives]
        metrics += _metrics(rank[use], candidates[use], cohort, task, config.ks, "")
    rng = np.random.default_rng(seed)
    for cohort in STRICT:
        chosen = positives[cohorts[cohort][positives]]
        chosen = np.sort(rng.choice(chosen, config.most, replace=False)) if len(chosen) > config.most else chosen
        for name, draw in ((f"_of_{config.users}", config.users), ("_of_all", 0)):
            metrics += _metrics(*_among_users(rows, chosen, met, rng, draw), cohort, task, config.ks, name)
    return metrics


def _metrics(
    rank: NDArray[np.float64], candidates: Ints, cohort: str, task: str, ks: tuple[int, ...], name: str
) -> list[MetricRow]:
    n = len(rank)
    values: dict[str, NDArray[Any]] = {f"recall@{k}{name}": rank < k for k in ks}
    values |= {f"ndcg@{k}{name}": np.where(rank < k, 1 / np.log2(rank + 2), 0.0) for k in ks}
    values |= {f"candidates{name}": candidates}
    return [
        {"cohort": cohort, "task": task, "metric": metric, "value": float(v.mean()) if n else None, "n": n}
        for metric, v in values.items()
    ]


def _rank(mine: Floats, theirs: Floats, counts: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Candidates before the positive, float64 [P]; equal scores count half.

    mine: the positive's score, float32 [P]. theirs: scores, float32 [P, C]. counts: who is a candidate, bool [P, C].
    """
    above = ((theirs > mine[:, None]) & counts).sum(1)
    return np.asarray(above + 0.5 * ((theirs == mine[:, None]) & counts).sum(1))


def _in_batches(rows: ScoredPeriod, positives: Ints, batch: int, met: Met) -> tuple[NDArray[np.float64], Ints]:
    ranks, candidates = np.zeros(len(positives)), np.zeros(len(positives), np.int64)
    for first in range(0, len(rows.label), batch):
        inside = slice(*np.searchsorted(positives, (first, first + batch)))
        batch_positives = positives[inside]
        if not len(batch_positives):
            continue
        users = np.arange(first, min(first + batch, len(rows.label)))
        items, item_at = np.unique(rows.item_id[batch_positives], return_inverse=True)
        people, user_at = np.unique(rows.user_id[users], return_inverse=True)
        counts = ~met.table(items, people)[item_at][:, user_at]
        scores = _scores(rows, batch_positives, np.broadcast_to(users, (len(batch_positives), len(users))))
        ranks[inside] = _rank(scores[np.arange(len(batch_positives)), batch_positives - first], scores, counts)
        candidates[inside] = counts.sum(1) + 1
    return ranks, candidates


def _scores(rows: ScoredPeriod, positives: Ints, users: Ints) -> Floats:
    """Scores of the positives' items against users, float32 [P, C], by the weights of the item's group.

    positives: rows, int64 [P]. users: the rows that stand for the users, int64 [P, C].
    """
    scores = np.empty(users.shape, np.float32)
    one_set = users.strides[0] == 0  # the same users for all: one product
    for route in np.unique(rows.route[positives]):
        routed = rows.route[positives] == route
        vectors = rows.users[min(int(route), len(rows.users) - 1)]
        if one_set:
            scores[routed] = rows.item[positives[routed]] @ vectors[users[0]].T
        else:
            scores[routed] = np.einsum("pd,pcd->pc", rows.item[positives[routed]], vectors[users[routed]])
    return scores


def _among_users(
    rows: ScoredPeriod, positives: Ints, met: Met, rng: np.random.Generator, draw: int
) -> tuple[NDArray[np.float64], Ints]:
    """Ranks, float64 [P], and candidates, int64 [P], of positives among distinct users who never met the item.

    positives: rows, int64 [P]. draw: number of users; 0: all.
    """
    people, code = np.unique(rows.user_id, return_inverse=True)
    by_user = np.argsort(code, kind="stable")
    places = code[by_user] * len(code) + by_user  # ascending: row after row of user after user
    first = by_user[np.searchsorted(code[by_user], np.arange(len(people)))]
    ranks, candidates = [np.zeros(0)], [np.zeros(0, np.int64)]
    for part in _parts(positives, len(people)):
        last = np.searchsorted(places, np.arange(len(people)) * len(code) + part[:, None], side="right") - 1
        row = by_user[np.maximum(last, 0)]
        row = np.where((last >= 0) & (code[row] == np.arange(len(people))), row, first)
        counts = ~met.table(rows.item_id[part], people)
        if draw:
            lots = np.where(counts, rng.random(counts.shape), -1.0)
            nth = np.partition(lots, -min(draw, len(people)), axis=1)[:, -min(draw, len(people))]
            counts &= lots >= nth[:, None]
        scores = _scores(rows, part, row)
        mine = np.einsum("pd,pd->p", rows.item[part], _users_of(rows, part))
        ranks.append(_rank(mine, scores, counts))
        candidates.append(counts.sum(1) + 1)
    return np.concatenate(ranks), np.concatenate(candidates)


def _users_of(rows: ScoredPeriod, positives: Ints) -> Floats:
    """Vectors of the positives' own users, float32 [P, D]."""
    return rows.users[np.minimum(rows.route[positives], len(rows.users) - 1), positives]


def _parts(positives: Ints, candidates: int) -> Iterator[Ints]:
    size = max(1, _CHUNK // max(1, candidates))
    for start in range(0, len(positives), size):
        yield positives[start : start + size]


def mean_over_periods(rows: list[MetricRow]) -> list[MetricRow]:
    """The plain mean of each Recall@K, NDCG@K and number of candidates over the periods; n: positives of all."""
    kept: dict[tuple[str, str, str], list[tuple[float, int]]] = {}
    for row in rows:
        if row["value"] is not None and str(row["metric"]).startswith(_NAMES):
            key = (str(row["cohort"]), str(row["task"]), str(row["metric"]))
            kept.setdefault(key, []).append((float(row["value"]), int(row["n"] or 0)))
    return [
        {
            "cohort": cohort,
            "task": task,
            "metric": metric,
            "value": float(np.mean([value for value, _ in periods])),
            "n": sum(n for _, n in periods),
        }
        for (cohort, task, metric), periods in kept.items()
    ]
