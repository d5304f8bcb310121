"""What the data room knows of an arm."""

from dataclasses import dataclass

from coldrank.models.features import FeatureSet


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """An arm's name, what its model reads, the tasks, the splits that it trains on and the one that it is judged by."""

    name: str
    features: FeatureSet
    tasks: tuple[str, ...]
    fit: tuple[str, ...]
    evaluate: str
