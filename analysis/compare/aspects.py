"""In what runs may differ that makes them hard to compare."""

from enum import StrEnum


class Aspect(StrEnum):
    """Two runs are compared where they agree in all of these, or the caller allows the difference."""

    DATA = "data"
    SPLITS = "splits"
    FEATURES = "features"
    TASKS = "tasks"
    PASSES = "passes"
