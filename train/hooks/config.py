"""The settings of the hooks: for each a class, and a field of RunConfig that has the hook's name."""

from dataclasses import dataclass
from typing import Literal

# Hooks by name, in the order in which a message lists them.
NAMES: tuple[str, ...] = ("metacf", "mwuf", "pam")


@dataclass(kw_only=True, slots=True)
class MetaCFConfig:
    """The embedding of a user with at most `max_views` events is one adapted to them (docs/metacf.md).

    user, items: the features of the user's id and of the history's items; their tables are equally wide. signal: the column of
    the history's signals that tells a positive event from a negative one ('': hist_<task> of the first task that has one, and none
    for a history without signals; none: every event is positive). negatives: where no signal tells, so many times an event's weight
    goes to items that are not in the history, drawn from those of the last batch.
    learner, hidden: of the initial embedding. steps, rate: of the adaptation; learn_rates: the rates are trained too.
    first_order: nothing is learnt through the steps, as in the paper. fraction: of the embedding that is adapted, 0 to 1.
    """

    user: str = "user_id"
    items: str = "hist_item_id"
    signal: str = ""
    negatives: int = 3
    max_views: int = 10
    learner: Literal["general", "linear", "neural"] = "neural"
    hidden: int = 32
    steps: int = 5
    rate: float = 0.1
    learn_rates: bool = True
    first_order: bool = False
    fraction: float = 1.0
