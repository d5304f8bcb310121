"""What the data room knows of an arm."""

from collections.abc import Mapping
from dataclasses import dataclass

from coldrank.models.features import FeatureSet
from coldrank.models.heads.head import Head


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmSettings:
    """The settings of an arm that the data is checked against."""

    name: str
    """The arm's name."""
    features: FeatureSet
    """What its model reads."""
    tasks: Mapping[str, Head]
    """Its tasks: each has a column `label_<task>`, of labels that are right for its head."""
    fit: tuple[str, ...]
    """The splits that it trains on."""
    since: str
    """The first period whose samples it reads; empty: all are."""
    evaluate: str
    """The split that it is judged by."""
    reads_lengths: bool
    """Whether its model can read how long a sequence is: it learns positions, or is not known to average."""
    new_user_max_views: int
    """A user with at most so many views before the event is new."""
