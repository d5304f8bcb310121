"""A hash of 64-bit ids, one to one, and how ids are shared out by it."""

from math import gcd
from typing import NamedTuple

from torch import Tensor

BLOCKS = 1024  # of mixed ids, by their first ten bits


def mix64(ids: Tensor) -> Tensor:
    """Mixes int64 [..] into int64 [..], one to one: near ids end far apart. Scriptable.

    The step, the two multipliers and the three shifts of splitmix64 (Steele, Lea and Flood 2014), as signed numbers.
    """
    x = ids + -7046029254386353131
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


class Share(NamedTuple):
    """The part of the ids that a rank holds: of the blocks of mixed ids, in their order, the rank-th of `of` equal
    runs. What a block holds does not depend on how many ranks there are."""

    rank: int
    of: int

    def owners(self, ids: Tensor, blocks: int = BLOCKS) -> Tensor:
        """int64 [N] -> the rank, int64 [N], that holds each id."""
        return block_of(ids, blocks) * self.of // blocks

    def blocks(self, blocks: int) -> range:
        """The blocks that this rank holds: b with b * of // blocks == rank."""
        return range(*(-(-rank * blocks // self.of) for rank in (self.rank, self.rank + 1)))


def block_of(ids: Tensor, blocks: int = BLOCKS) -> Tensor:
    """The block, int64 [N] in 0..blocks-1, of ids int64 [N], by the first bits of the mixed id. blocks: up to
    `BLOCKS`, which are shared out evenly."""
    return ((mix64(ids) >> 54) + 512) * blocks >> 10


def stride(places: int) -> int:
    """A step with which one comes to every place, each once: so that the first places are far apart."""
    return next(s for s in range(int(0.618 * places) + 1, 2 * places + 2) if gcd(s, places) == 1)
