"""nDCG@k of each user's rows, over all users, as the public protocol of KuaiRand-Pure has it."""

from dataclasses import dataclass

from pydantic import PositiveInt

from coldrank.metrics.metric import Metric, ScoredRows
from coldrank.metrics.values import ndcg_of_users


@dataclass(kw_only=True, slots=True)
class UserNdcg(Metric):
    """nDCG@k of each user's rows (`values.ndcg_of_users`), plain mean over ALL users of the cohort.

    A user without a positive counts 0, one without a negative 1, and one of a single row 0 or 1: no order of the rows
    changes these, so a perfect ranking stays below 1. Rows of equal predictions have the expectation over their orders,
    where the protocol's program leaves them in the order of its files. Of tasks of 0 and 1; nan of others.
    """

    k: PositiveInt = 5
    """Rows from the top that count."""

    def value(self, rows: ScoredRows) -> float:
        if not ((rows.labels == 0) | (rows.labels == 1)).all():
            return float("nan")
        return float(ndcg_of_users(rows.labels, rows.predictions, rows.user_id, self.k).mean())
