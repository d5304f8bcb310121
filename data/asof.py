"""As-of-time statistics: what was known of an event's user, item and groups strictly before its time.

Events come as arrays of equal length N, sorted by time. "Before" means a strictly smaller time: events at the same time
see neither each other nor themselves. Everything is one stable sort per group and segmented sums, without a loop over
events. An outcome counts as known at any later time, as the logs don't tell when it became known.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
Int8s = NDArray[np.int8]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Floats = NDArray[np.float32]

# The rate of the whole log starts from one half, with the weight of one event.
LOG_PRIOR, LOG_SMOOTHING = 0.5, 1.0
# In the place of a time: there was no event.
NONE = np.iinfo(np.int64).min


def stable_order(codes: Ints) -> Int64s:
    """Stable argsort, int64 [N], of non-negative integers [N]; by 16-bit digits, which NumPy sorts by radix."""
    order = np.argsort((codes & 0xFFFF).astype(np.uint16), kind="stable")
    top = int(codes.max(initial=0))
    for shift in range(16, top.bit_length(), 16):
        digit = ((codes >> shift) & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def combine(codes: list[Ints]) -> Int64s:
    """One code per event, int64 [N], from several of integers [N]; -1 (unknown) in any makes -1."""
    total = codes[0].astype(np.int64)
    for other in codes[1:]:
        size = int(other.max(initial=0)) + 1
        if int(total.max(initial=0)) >= np.iinfo(np.int64).max // size:
            known = total >= 0
            total[known] = np.unique(total[known], return_inverse=True)[1]
        total = np.where((total < 0) | (other < 0), -1, total * size + other)
    return total


@dataclass(frozen=True, slots=True)
class Grouping:
    """The events of all groups of a kind: one group after the other, each in the order in which they count.

    N events in all, M of them in a known group. A position is a place in this order, 0 to M - 1.
    """

    size: int
    """N."""
    order: Int64s
    """Event at each position, int64 [M]."""
    start: Int32s
    """Position at which the event's group begins, int32 [M]."""
    before: Int32s
    """Position of the first event of the same group that it does not see, int32 [M].

    So the events before the one at a position are order[start:before].
    """
    firsts: Int64s
    """Position at which each of the G groups begins, int64 [G], in the order of their codes."""
    group: Int32s
    """The group at each position, 0 to G - 1, int32 [M]."""

    @classmethod
    def from_codes(
        cls, codes: Ints, time: Int64s, *, when: Int64s | None = None, seen: Int64s | None = None
    ) -> "Grouping":
        """codes: [N], equal for events of a group, -1 for events of none. time: int64 [N], ascending.

        when: from when on each event counts, int64 [N]; None: from its time. seen: each event sees those that count
        before this, int64 [N]; None: before its time. With `when`, groups are in its order.
        """
        known = np.flatnonzero(codes >= 0)
        if when is not None:
            known = known[np.argsort(when[known], kind="stable")]
        every = len(known) == len(codes) and when is None
        order = stable_order(codes) if every else known[stable_order(codes[known])]
        code, counts = codes[order], (time if when is None else when)[order]
        new_group = np.ones(len(order), bool)
        new_group[1:] = code[1:] != code[:-1]
        number = np.cumsum(new_group, dtype=np.int32) - np.int32(1)
        if when is None and seen is None:
            new_time = new_group.copy()
            new_time[1:] |= counts[1:] != counts[:-1]
            before = _last_true(new_time)
        else:
            before = _counted_before(number, counts, (time if seen is None else seen)[order])
        return cls(len(codes), order, _last_true(new_group), before, np.flatnonzero(new_group), number)

    def representatives(self) -> Int64s:
        """The first event of each group, int64 [G]."""
        return self.order[self.firsts]

    def views(self, earlier: Int64s) -> Int32s:
        """Events of the group before: int32 [N]; 0 where the group is unknown.

        earlier: how many each group had before these events, int64 [G].
        """
        return self.spread((self.before - self.start + earlier[self.group]).astype(np.int32), 0)

    def rate(self, signal: Int8s, prior: Floats | float, smoothing: float, earlier: tuple[Int64s, Int64s]) -> Floats:
        """Smoothed rate of a signal before the event: (positives + a * prior) / (known + a), float32 [N].

        signal: int8 [N], 1, 0 or -1 (unknown: counts nowhere).
        prior: float32 [N] or a number. It is also the rate of events of no group.
        smoothing: the weight a of the prior, in events.
        earlier: positives and known outcomes of each group before these events, int64 [G].
        """
        values = signal[self.order]
        positives, known = (
            self._sum_before(part) + base[self.group]
            for part, base in zip((values == 1, values >= 0), earlier, strict=True)
        )
        full = np.broadcast_to(np.asarray(prior, np.float32), self.size)
        result = full.copy()
        result[self.order] = (positives + smoothing * full[self.order].astype(np.float64)) / (known + smoothing)
        return result

    def sizes(self) -> Int64s:
        """Events of each group, int64 [G]."""
        return np.diff(self.firsts, append=len(self.order))

    def total(self, flags: NDArray[np.bool_]) -> Int64s:
        """How many events of each group have a flag, int64 [G]. flags: bool [N]."""
        if flags.all():  # of no events, too
            return self.sizes()
        return np.add.reduceat(flags[self.order], self.firsts, dtype=np.int64)

    def hours_since_last(self, time: Int64s, earlier: Int64s) -> Floats:
        """Hours since the group's last event before: float32 [N]; NaN where there is none.

        earlier: when each group had its last event before these, int64 [G]; NONE where it had none.
        """
        within = time[self.order][np.maximum(self.before - 1, 0)]
        return self._hours_since(np.where(self.before > self.start, within, earlier[self.group]), time)

    def hours_since_first(self, time: Int64s, earlier: Int64s) -> Floats:
        """Hours since the group's first event before: float32 [N]; NaN where there is none. earlier: its time."""
        known = earlier[self.group]
        within = np.where(self.before > self.start, time[self.order][self.start], NONE)
        return self._hours_since(np.where(known == NONE, within, known), time)

    def spread(self, by_position: NDArray[Any], default: float) -> NDArray[Any]:
        """Values by position [M] as values by event [N], of the same dtype. Events of no group get the default."""
        if self.size == len(self.order):
            result = np.empty(self.size, by_position.dtype)
        else:
            result = np.full(self.size, default, by_position.dtype)
        result[self.order] = by_position
        return result

    def _hours_since(self, moment: Int64s, time: Int64s) -> Floats:
        hours = (time[self.order] - moment) / 3_600_000
        return self.spread(np.where(moment == NONE, np.nan, hours).astype(np.float32), np.nan)

    def _sum_before(self, flags: NDArray[np.bool_]) -> Int32s:
        if flags.all():  # as where a signal is always known
            return self.before - self.start
        total = np.zeros(len(flags) + 1, np.int32)
        np.cumsum(flags, out=total[1:])
        return np.asarray(total[self.before] - total[self.start])


def _counted_before(group: Int32s, counts: Int64s, seen: Int64s) -> Int32s:
    """By position, where the events of its group begin that do not count before `seen`.

    group: int32 [M], ascending; counts: from when on each counts, int64 [M], ascending within a group.
    """
    moments, rank = np.unique(counts, return_inverse=True)
    # Group and moment in one number: fewer than 2^31 of each.
    size = len(moments) + 1
    place = group.astype(np.int64) * size
    return np.searchsorted(place + rank, place + np.searchsorted(moments, seen)).astype(np.int32)


def _last_true(flags: NDArray[np.bool_]) -> Int32s:
    """Position of the last True at or before each position; flags[0] is True."""
    return np.maximum.accumulate(np.where(flags, np.arange(len(flags), dtype=np.int32), 0)).astype(np.int32)


@dataclass(frozen=True, slots=True)
class Histories:
    """The past events of each event's group, a user or an item. An event's history is order[first:end].

    The events are numbered from those that each group had before these: `skip` of them.
    """

    order: Int64s
    """Event at each position of the grouping, int64 [M]."""
    first: Int32s
    """By event, where its history begins, int32 [N]."""
    end: Int32s
    """By event, where its history ends, int32 [N]."""
    skip: int = 0
    """How many earlier events stand before the first event of these."""

    @classmethod
    def from_grouping(cls, groups: Grouping, length: int, skip: int = 0) -> "Histories":
        """The last `length` events of each event's group, at most."""
        first = np.maximum(groups.start, groups.before - np.int32(length))
        return cls(groups.order, groups.spread(first, 0), groups.spread(groups.before, 0), skip)

    def gather(self, rows: Int64s) -> tuple[Int32s, Int64s]:
        """The histories of some events, most recent event first: offsets int32 [R + 1] and events int64 [V].

        rows: the events, int64 [R], counted without the earlier ones. The events of histories count from those.
        """
        rows = rows + self.skip
        end = self.end[rows]
        lengths = end - self.first[rows]
        offsets = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        back = np.arange(offsets[-1], dtype=np.int64) - np.repeat(offsets[:-1], lengths)
        return offsets, self.order[np.repeat(end, lengths) - 1 - back]


def last_of_each(groups: Grouping, length: int) -> tuple[Int64s, Int64s]:
    """The last `length` events of each group at most, oldest first: how many, int64 [G], and the events, int64 [V]."""
    ends = groups.firsts + groups.sizes()
    lengths = np.minimum(groups.sizes(), length)
    before = np.cumsum(lengths) - lengths
    return lengths, groups.order[np.arange(int(lengths.sum())) + np.repeat(ends - lengths - before, lengths)]
