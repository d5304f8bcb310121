"""Users and items that are new, and those that are not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(kw_only=True, slots=True)
class CohortConfig:
    """Where the cohorts part."""

    new_user_max_views: int = 10
    """A user with at most so many views before the event is new."""
    new_item_max_views: int = 50
    """An item with at most so many views before the event is new."""


def cohort_masks(
    user_views: NDArray[np.integer], item_views: NDArray[np.integer], config: CohortConfig
) -> dict[str, NDArray[np.bool_]]:
    """Cohort -> which rows are in it, bool [N].

    user_views, item_views: events of the row's user and item strictly before the row's own, integers [N].
    """
    new_user = user_views <= config.new_user_max_views
    new_item = item_views <= config.new_item_max_views
    return {
        "all": np.ones(len(user_views), dtype=np.bool_),
        "new_user": new_user,
        "regular_user": ~new_user,
        "new_item": new_item,
        "regular_item": ~new_item,
    }
