"""AUC as a Mann-Whitney count, for many groups of rows and many weightings after a single sort.

    AUC of a group = (sum over its positives of the negatives scored lower + half of those scored equal)
                     / (positives * negatives)

Legend: N rows, P positives, M negatives, G groups.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Numbers = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedPairs:
    """The positives and negatives of the groups that have both, in the order of (group, score)."""

    groups: IntArray
    """The groups' numbers, [G]."""
    positives: IntArray
    """Index into the weights of each positive, [P]."""
    negatives: IntArray
    """Index into the weights of each negative, [M]."""
    below: IntArray
    """How many negatives sort before the positive with a smaller score, [P], counted from the first group on."""
    upto: IntArray
    """The same with a smaller or equal score."""
    positive_starts: IntArray
    """Where each group's positives begin and end, [G + 1]."""
    negative_starts: IntArray
    """Where each group's negatives begin and end, [G + 1]."""

    def of_units(self, units: IntArray) -> "RankedPairs":
        """The same pairs with weights per unit. units: the unit, say the user, of each row, integers [N]."""
        return replace(self, positives=units[self.positives], negatives=units[self.negatives])

    def auc(self, weights: Numbers | None = None) -> FloatArray:
        """AUC per group, float64 [G]; nan where a class weighs nothing. weights: how often a row counts; None: once.

        Whole weights are added as whole numbers, which is several times faster than adding floats, and exact.
        """
        if len(self.groups) == 0:
            return np.empty(0)
        if weights is None:
            positive = np.ones(len(self.positives), dtype=np.int64)
            lower = np.arange(len(self.negatives) + 1)
        else:
            number = np.int64 if weights.dtype.kind in "iub" else np.float64
            lower = _running_total(weights[self.negatives], number)
            positive = weights[self.positives].astype(number)
        wins = positive * (lower[self.below] + lower[self.upto])
        starts = self.positive_starts[:-1]
        positive_total = np.add.reduceat(positive, starts)
        before, after = lower[self.negative_starts[:-1]], lower[self.negative_starts[1:]]
        pairs = positive_total * (after - before)
        won = 0.5 * np.add.reduceat(wins, starts) - positive_total * before
        return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class SortedRows:
    """The N labelled rows of a table in the order of (group, score). The order among equals is of no consequence."""

    rows: IntArray
    """Their numbers in the table, [N]."""
    labels: Numbers
    """0 or 1, [N]."""
    scores: Numbers
    """[N]."""
    groups: IntArray | None
    """Number of each row's group, [N]; None: all rows are one group."""

    @classmethod
    def from_scores(cls, labels: Numbers, scores: Numbers, known: BoolArray | None = None) -> "SortedRows":
        """The rows of a table of T rows in the order of the score.

        labels, scores: [T]. known: which rows count, bool [T]; None: all. Their labels must be 0 or 1.
        """
        order = np.argsort(scores)
        if known is not None and not known.all():
            order = order[known[order]]
        return cls(rows=order, labels=labels[order], scores=scores[order], groups=None)

    def grouped(self, groups: IntArray) -> "SortedRows":
        """The same rows in the order of (group, score). groups: numbers from 0, integers [T]."""
        group = groups[self.rows]
        order = np.argsort(group, kind="stable")
        return SortedRows(
            rows=self.rows[order], labels=self.labels[order], scores=self.scores[order], groups=group[order]
        )

    def where(self, mask: BoolArray) -> "SortedRows":
        """Only the rows of the table that a mask, bool [T], allows."""
        return self._take(mask[self.rows])

    def _take(self, keep: BoolArray) -> "SortedRows":
        if keep.all():
            return self
        groups = None if self.groups is None else self.groups[keep]
        return SortedRows(rows=self.rows[keep], labels=self.labels[keep], scores=self.scores[keep], groups=groups)

    def pairs(self) -> RankedPairs:
        """For every positive the negatives below it in its group. Groups with one class only are left out."""
        group_rows, present = self._with_both_classes()
        positive = group_rows.labels == 1
        starts = group_rows._block_starts()
        block = np.repeat(np.arange(len(starts) - 1), np.diff(starts))[positive]
        negatives_before = np.zeros(len(positive) + 1, dtype=np.int64)
        np.cumsum(~positive, out=negatives_before[1:])
        at_starts = negatives_before[starts]
        group = np.zeros(len(positive), dtype=np.int8) if group_rows.groups is None else group_rows.groups
        return RankedPairs(
            groups=present,
            positives=group_rows.rows[positive],
            negatives=group_rows.rows[~positive],
            below=at_starts[block],
            upto=at_starts[block + 1],
            positive_starts=_bounds(group[positive], present),
            negative_starts=_bounds(group[~positive], present),
        )

    def _with_both_classes(self) -> tuple["SortedRows", IntArray]:
        """The rows in groups with both classes, and these groups [G]."""
        if self.groups is None:
            both = 0 < np.count_nonzero(self.labels == 1) < len(self.labels)
            return self._take(np.full(len(self.labels), both)), np.arange(int(both))
        rows = np.bincount(self.groups)
        positives = np.bincount(self.groups[self.labels == 1], minlength=len(rows))
        both_classes = (positives > 0) & (positives < rows)
        return self._take(both_classes[self.groups]), np.flatnonzero(both_classes)

    def _block_starts(self) -> IntArray:
        """Where each run of equal (group, score) starts, and the number of rows as the last element."""
        first = self.scores[1:] != self.scores[:-1]
        if self.groups is not None:
            first |= self.groups[1:] != self.groups[:-1]
        inner = np.flatnonzero(first) + 1
        return np.concatenate([[0], inner, [len(self.scores)]]) if len(self.scores) else np.zeros(1, dtype=np.int64)


def _bounds(sorted_groups: IntArray, present: IntArray) -> IntArray:
    return np.append(np.searchsorted(sorted_groups, present), len(sorted_groups))


def _running_total(values: Numbers, number: type[np.int64] | type[np.float64]) -> Numbers:
    total = np.zeros(len(values) + 1, dtype=number)
    np.cumsum(values, dtype=number, out=total[1:])
    return total
