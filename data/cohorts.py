"""Users and items that are new, and those that are not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(kw_only=True, slots=True)
class CohortConfig:
    """Where the cohorts part: users and items with at most so many views before the event are new."""

    new_user_max_views: int = 10
    new_item_max_views: int = 50


def cohort_masks(
    user_views: NDArray[np.integer], item_views: NDArray[np.integer], config: CohortConfig
) -> dict[str, NDArray[np.bool_]]:
    """Cohort name -> mask [N]; views count events strictly before the row's own."""
    new_user = user_views <= config.new_user_max_views
    new_item = item_views <= config.new_item_max_views
    return {
        "all": np.ones(len(user_views), dtype=np.bool_),
        "new_user": new_user,
        "regular_user": ~new_user,
        "new_item": new_item,
        "regular_item": ~new_item,
    }
