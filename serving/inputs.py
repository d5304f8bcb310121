"""What a request holds.

A request ranks C candidates for Q users (nearly always one): an input of the request has Q values, one of the
candidates C, those of the first user first; C is a multiple of Q. With Q = C every candidate has a user of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from coldrank.models.features import FeatureSet

Per = Literal["request", "candidate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """An input of the served model. A list `c` comes as `c`, the values of all rows end to end, and `c.lengths`.

    dtype: int (any integer type) or float (any real type). per: whether there is a value for every request or every
    candidate. default: what to send for an id that is missing (a missing number is NaN). low, high: values outside are
    an error. length: the longest list that is read (0: any); what follows is left out. sequence: its columns, or ids
    and their weights, have equal lengths. width: how many values a list has if it has any (0: any number). finite: a
    number of it that is NaN or infinite is an error.
    """

    name: str
    dtype: Literal["int", "float"]
    per: Per
    is_list: bool = False
    default: int | None = None
    low: int | None = None
    high: int | None = None
    length: int = 0
    sequence: str = ""
    width: int = 0
    finite: bool = False


def served_inputs(features: FeatureSet, candidate: Iterable[str], counts: Iterable[str] = ()) -> tuple[Served, ...]:
    """The inputs of the features, and counts that no feature reads. candidate: the raw columns that differ between the
    candidates of a request; none of a sequence."""
    columns = set(candidate)
    sequences = {c: f for f in features.features if f.role == "sequence" for c in f.raw_columns}
    pairs = {c: f.raw_columns[0] for f in features.weighted for c in f.raw_columns}
    read = tuple(
        Served(
            name=i.name,
            dtype=i.dtype,
            per="candidate" if i.name in columns else "request",
            is_list=i.is_list,
            default=i.default,
            low=i.low,
            high=i.high,
            length=sequences[i.name].length if i.name in sequences else 0,
            sequence=sequences[i.name].sequence if i.name in sequences else pairs.get(i.name, ""),
            width=i.width,
            finite=i.is_list and i.required,
        )
        for i in features.inputs
    )
    more = [name for name in counts if name not in {i.name for i in read}]
    return (
        *read,
        *(Served(name=n, dtype="int", per="candidate" if n in columns else "request", default=0) for n in more),
    )
