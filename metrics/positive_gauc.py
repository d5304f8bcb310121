"""GAUC with the positives of a user for its weight, as the public protocol of KuaiRand-Pure has it."""

from dataclasses import dataclass

import numpy as np

from coldrank.metrics.mann_whitney import FloatArray, IntArray, Numbers, SortedRows
from coldrank.metrics.metric import Metric, ScoredRows


@dataclass(kw_only=True, slots=True)
class PositiveGauc(Metric):
    """AUC of each user's rows, over the users that have both classes, weighted by their POSITIVES; nan without one.

        sum_u P_u AUC_u / sum_u P_u

    `gauc`, which every run has, weighs by rows. Rows of equal predictions count half. Of tasks of 0 and 1; nan of
    others.
    """

    def value(self, rows: ScoredRows) -> float:
        if not ((rows.labels == 0) | (rows.labels == 1)).all():
            return float("nan")
        users = np.unique(rows.user_id, return_inverse=True)[1]
        weighted, positives = positive_aucs(rows.labels, rows.predictions, users)
        return float(weighted.sum() / positives.sum()) if positives.any() else float("nan")


def positive_aucs(labels: Numbers, scores: Numbers, users: IntArray) -> tuple[FloatArray, FloatArray]:
    """Of each user P_u AUC_u and P_u, float64 [U] each; both 0 of a user without both classes.

    labels: 0 or 1 [N]. scores: [N]. users: integers [N], 0 to U - 1, each there.
    """
    pairs = SortedRows.from_scores(labels, scores).grouped(users).pairs()
    weighted, positives = np.zeros((2, int(users.max(initial=-1)) + 1))
    positives[pairs.groups] = np.diff(pairs.positive_starts)
    weighted[pairs.groups] = positives[pairs.groups] * pairs.auc()
    return weighted, positives
