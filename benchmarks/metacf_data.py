"""MovieLens-1M as MetaCF's experiment has it: users split 1:2:1, few records of each new user, and the metrics.

U users, N items, L support, Q query records (padded with -1), C candidates.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

LEAST, MOST = 2, 10


class RatingLog(NamedTuple):
    """R ratings, sorted by user; each counts as 1."""

    items: np.ndarray
    """The items rated, int64 [R], numbered from 0."""
    starts: np.ndarray
    """Where each user's ratings begin and end, int64 [U + 1]."""
    item_count: int
    """N."""

    @staticmethod
    def read(folder: Path) -> "RatingLog":
        """Reads ratings.dat of MovieLens-1M."""
        text = pl.read_csv(
            folder / "ratings.dat", separator=":", has_header=False, columns=[0, 2], glob=False
        ).to_numpy()
        users, items = np.unique(text[:, 0], return_inverse=True)[1], np.unique(text[:, 1], return_inverse=True)[1]
        order = np.argsort(users, kind="stable")
        return RatingLog(items[order], np.searchsorted(users[order], np.arange(users.max() + 2)), int(items.max()) + 1)

    @staticmethod
    def of(matrix: Tensor) -> "RatingLog":
        """The ratings of a matrix of 0 and 1, float32 [U, N]."""
        users, items = (x.numpy() for x in matrix.nonzero(as_tuple=True))
        return RatingLog(items, np.searchsorted(users, np.arange(len(matrix) + 1)), matrix.shape[1])

    def select(self, users: np.ndarray) -> "RatingLog":
        """The ratings of some users alone, in their order. users: int64 [V]."""
        lengths = self.starts[users + 1] - self.starts[users]
        rows = np.repeat(self.starts[users] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
        return RatingLog(self.items[rows], np.concatenate([[0], np.cumsum(lengths)]), self.item_count)

    @property
    def users(self) -> np.ndarray:
        """User of every rating, int64 [R]."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def matrix(self) -> Tensor:
        """1 where a user rated an item, else 0: float32 [U, N]."""
        matrix = torch.zeros(len(self.starts) - 1, self.item_count)
        matrix[torch.from_numpy(self.users), torch.from_numpy(self.items)] = 1.0
        return matrix


class Episodes(NamedTuple):
    """Few records of E users each."""

    users: Tensor
    """int64 [E]."""
    support: Tensor
    """Items, int64 [E, L], padded with -1."""
    query: Tensor
    """Items, int64 [E, Q], padded with -1."""

    @staticmethod
    def concat(parts: list["Episodes"]) -> "Episodes":
        """Episodes one after the other."""
        users, *lists = zip(*parts, strict=True)
        width = [max(x.shape[1] for x in columns) for columns in lists]
        wide = [[F.pad(x, (0, w - x.shape[1]), value=-1) for x in c] for w, c in zip(width, lists, strict=True)]
        return Episodes(torch.cat(users), *(torch.cat(columns) for columns in wide))


def draw(log: RatingLog, rng: np.random.Generator, support: int = 0, query: int = 0) -> Episodes:
    """n ~ U{2..10} random records of every user: floor(n / 2) of them are the support, the rest the query.

    support: so many in the support, and 5 in the query; 0: by n. query: so many in the query; 0: by n.
    A user with fewer records has fewer in the query.
    """
    lengths = np.diff(log.starts)
    order = np.lexsort((rng.random(len(log.items)), log.users))
    total = rng.integers(LEAST, MOST + 1, len(lengths))
    first = np.full(len(lengths), support) if support else total // 2
    if support or query:
        total = first + (query or MOST // 2)
    total = np.minimum(total, lengths)
    first = np.minimum(first, total - 1)
    place = np.arange(max(first.max(), (total - first).max()))
    records = lambda start, end: np.where(
        place < (end - start)[:, None],
        log.items[order[np.minimum(log.starts[:-1, None] + start[:, None] + place, len(order) - 1)]],
        -1,
    )
    parts = records(np.zeros_like(first), first), records(first, total)
    return Episodes(torch.arange(len(lengths)), *(torch.from_numpy(part) for part in parts))


@dataclass(frozen=True)
class UserSplit:
    """The users of the experiment."""

    pretrain: RatingLog
    """All ratings of a quarter of the users."""
    meta: Episodes
    """Few records of half of the users."""
    test: Episodes
    """Few records of the last quarter, drawn several times; users are numbered as in the whole log."""

    @property
    def known(self) -> Tensor:
        """All that may be learnt from, the ratings of pretrain and the records of meta: 0 or 1, float32 [U, N]."""
        few = torch.zeros(len(self.meta.users), self.pretrain.item_count + 1)
        few.scatter_(1, torch.cat([self.meta.support, self.meta.query], 1) % few.shape[1], 1.0)
        return torch.cat([self.pretrain.matrix(), few[:, :-1]])


def split(log: RatingLog, seed: int, *, draws: int = 1, support: int = 0) -> UserSplit:
    """Users 1:2:1 by `seed`. Seed 0 is for tuning: its test users are in no other seed's test.

    draws: how often records of the test's users are drawn. support: records in the test's support; 0: floor(n / 2).
    """
    users = np.random.default_rng(0).permutation(len(log.starts) - 1)
    quarter = len(users) // 4
    tuning, others = users[:quarter], users[quarter:]
    rng = np.random.default_rng(seed)
    test = tuning if seed == 0 else rng.permutation(others)[:quarter]
    rest = rng.permutation(np.setdiff1d(users, test))
    meta = draw(log.select(rest[quarter:]), rng)
    tests = [draw(log.select(test), rng, support) for _ in range(draws)]
    tests = [e._replace(users=torch.from_numpy(test)) for e in tests]
    return UserSplit(log.select(rest[:quarter]), meta, Episodes.concat(tests))


def measure(scores: Tensor, support: Tensor, query: Tensor, k: int = 10) -> Tensor:
    """Ranks the items outside the support: HR@k = hits / min(|query|, k), NDCG@k, and whether there is a hit.

    scores: of all items, float32 [E, N]. support, query: int64 [E, L] and [E, Q]. Returns float32 [E, 3].
    """
    scores = mask(scores, support)
    top = scores.topk(k, 1).indices
    hits = (top.unsqueeze(2) == query.unsqueeze(1)).any(2).to(torch.float32)
    most = (query >= 0).sum(1).clamp(max=k)
    gains = 1.0 / torch.log2(torch.arange(k) + 2.0)
    ndcg = (hits @ gains) / gains.cumsum(0)[most - 1]
    return torch.stack([hits.sum(1) / most, ndcg, hits.amax(1)], 1)


def mask(scores: Tensor, support: Tensor) -> Tensor:
    """The scores, float32 [E, N], with those of the support at minus infinity."""
    wide = torch.cat([scores, scores[:, :1]], 1)  # a column for the padding
    return wide.scatter(1, support % wide.shape[1], float("-inf"))[:, :-1]
