"""What the data room knows of an arm."""

from dataclasses import dataclass

from coldrank.models.features import FeatureSet


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmSettings:
    """The settings of an arm that the data is checked against."""

    name: str
    """The arm's name."""
    features: FeatureSet
    """What its model reads."""
    tasks: tuple[str, ...]
    """Its tasks: each has a column `label_<task>`."""
    fit: tuple[str, ...]
    """The splits that it trains on."""
    evaluate: str
    """The split that it is judged by."""
