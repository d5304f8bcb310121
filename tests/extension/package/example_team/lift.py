"""A metric: how many times as many positives the best-scored rows hold as all rows do."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from coldrank.metrics.metric import Metric, ScoredRows


@dataclass(kw_only=True, slots=True)
class Lift(Metric):
    """The rate of positives among the best-scored `share` of the rows over that of all."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of the rows."""

    def value(self, rows: ScoredRows) -> float:
        best = np.argsort(-rows.predictions, kind="stable")[: max(1, round(self.share * len(rows.labels)))]
        rate = rows.labels.mean()
        return float(rows.labels[best].mean() / rate) if rate > 0 else float("nan")
