"""MovieLens-1M as MetaCF's experiment has it: users split 1:2:1, few records of each new user, and how a ranking is measured.

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


class Log(NamedTuple):
    """Ratings as 1, sorted by user. items: int64 [R], numbered from 0. starts: int64 [U + 1], where each user's begin."""

    items: np.ndarray
    starts: np.ndarray
    item_count: int

    @staticmethod
    def read(folder: Path) -> "Log":
        """Reads ratings.dat of MovieLens-1M."""
        text = pl.read_csv(
            folder / "ratings.dat", separator=":", has_header=False, columns=[0, 2], glob=False
        ).to_numpy()
        users, items = np.unique(text[:, 0], return_inverse=True)[1], np.unique(text[:, 1], return_inverse=True)[1]
        order = np.argsort(users, kind="stable")
        return Log(items[order], np.searchsorted(users[order], np.arange(users.max() + 2)), int(items.max()) + 1)

    def of(self, users: np.ndarray) -> "Log":
        """The ratings of these users alone, in their order."""
        lengths = self.starts[users + 1] - self.starts[users]
        rows = np.repeat(self.starts[users] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
        return Log(self.items[rows], np.concatenate([[0], np.cumsum(lengths)]), self.item_count)

    @property
    def users(self) -> np.ndarray:
        """User of every rating."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def matrix(self) -> Tensor:
        """float32 [U, N]: 1 where a user rated an item."""
        matrix = torch.zeros(len(self.starts) - 1, self.item_count)
        matrix[torch.from_numpy(self.users), torch.from_numpy(self.items)] = 1.0
        return matrix


class Episodes(NamedTuple):
    """Records of some users. users: int64 [E]. support: int64 [E, L], query: int64 [E, Q]; padded with -1."""

    users: Tensor
    support: Tensor
    query: Tensor

    @staticmethod
    def concat(parts: list["Episodes"]) -> "Episodes":
        """Episodes one after the other."""
        users, *lists = zip(*parts, strict=True)
        width = [max(x.shape[1] for x in columns) for columns in lists]
        wide = [[F.pad(x, (0, w - x.shape[1]), value=-1) for x in c] for w, c in zip(width, lists, strict=True)]
        return Episodes(torch.cat(users), *(torch.cat(columns) for columns in wide))


def draw(log: Log, rng: np.random.Generator, support: int = 0, query: int = 0) -> Episodes:
    """n ~ U{2..10} random records of every user, floor(n / 2) of them the support and the rest the query. support: so many, and 5
    in the query. query: so many there. A user with fewer records has fewer in the query."""
    lengths = np.diff(log.starts)
    order = np.lexsort((rng.random(len(log.items)), log.users))
    total = rng.integers(LEAST, MOST + 1, len(lengths))
    first = np.full(len(lengths), support) if support else total // 2
    if support or query:
        total = first + (query or MOST // 2)
    total = np.minimum(total, lengths)
    first = np.minimum(first, total - 1)
    place = np.arange(max(first.max(), (total - first).max()))
    at = lambda start, end: np.where(
        place < (end - start)[:, None],
        log.items[order[np.minimum(log.starts[:-1, None] + start[:, None] + place, len(order) - 1)]],
        -1,
    )
    parts = at(np.zeros_like(first), first), at(first, total)
    return Episodes(torch.arange(len(lengths)), *(torch.from_numpy(part) for part in parts))


@dataclass(frozen=True)
class Split:
    """pretrain: all ratings of a quarter of the users. meta: the few records of half of them. test: those of the last quarter,
    drawn several times; its users are numbered as in the whole log."""

    pretrain: Log
    meta: Episodes
    test: Episodes

    @property
    def known(self) -> Tensor:
        """float32 [U, N]: all that may be learnt from, the ratings of pretrain and the records of meta."""
        few = torch.zeros(len(self.meta.users), self.pretrain.item_count + 1)
        few.scatter_(1, torch.cat([self.meta.support, self.meta.query], 1) % few.shape[1], 1.0)
        return torch.cat([self.pretrain.matrix(), few[:, :-1]])


def split(log: Log, seed: int, *, draws: int = 1, support: int = 0) -> Split:
    """Users 1:2:1 by `seed`. Seed 0 is for tuning: its test users are in no other seed's test. support: records in the test's
    support (0: the protocol's floor(n / 2))."""
    users = np.random.default_rng(0).permutation(len(log.starts) - 1)
    quarter = len(users) // 4
    tuning, others = users[:quarter], users[quarter:]
    rng = np.random.default_rng(seed)
    test = tuning if seed == 0 else rng.permutation(others)[:quarter]
    rest = rng.permutation(np.setdiff1d(users, test))
    meta = draw(log.of(rest[quarter:]), rng)
    tests = [draw(log.of(test), rng, support) for _ in range(draws)]
    tests = [e._replace(users=torch.from_numpy(test)) for e in tests]
    return Split(log.of(rest[:quarter]), meta, Episodes.concat(tests))


def measure(scores: Tensor, support: Tensor, query: Tensor, k: int = 10) -> Tensor:
    """scores: float [E, N] of all items. Ranks the items outside the support. Returns float [E, 3]: HR@k = hits / min(|query|, k),
    NDCG@k, and whether there is any hit."""
    scores = mask(scores, support)
    top = scores.topk(k, 1).indices
    hits = (top.unsqueeze(2) == query.unsqueeze(1)).any(2).to(torch.float32)
    most = (query >= 0).sum(1).clamp(max=k)
    gains = 1.0 / torch.log2(torch.arange(k) + 2.0)
    ndcg = (hits @ gains) / gains.cumsum(0)[most - 1]
    return torch.stack([hits.sum(1) / most, ndcg, hits.amax(1)], 1)


def mask(scores: Tensor, support: Tensor) -> Tensor:
    """The scores with those of the support at minus infinity."""
    wide = torch.cat([scores, scores[:, :1]], 1)  # a column for the padding
    return wide.scatter(1, support % wide.shape[1], float("-inf"))[:, :-1]
