"""What a served model takes and gives, as signature.json tells it, and which inputs belong to the candidate."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from coldrank.data.errors import UserError, meant
from coldrank.models.features import FeatureSet
from coldrank.models.heads.head import Head
from coldrank.serving.inputs import Served

_TYPES = {"int": "int64", "float": "float32"}


def candidate_columns(features: FeatureSet, change: Iterable[str] = (), counts: Iterable[str] = ()) -> set[str]:
    """The raw columns that differ between the candidates of a request. counts: columns that are read beside the
    features'.

    By default those that features of role `item` read, and of the columns that `coldrank prepare` makes all counts and
    rates but those of the user alone. change: `NAME` adds a column, `-NAME` takes one out. Raises UserError for a name
    that is none.
    """
    of_items = {c for f in features.features if f.role == "item" for c in f.raw_columns}
    pairs = [f.raw_columns for f in features.weighted]
    past = {c for f in features.features if f.role == "sequence" for c in f.raw_columns}
    known = {i.name for i in features.inputs} | set(counts)
    chosen = of_items | {name for name in known if _made_of_items(name)}
    for name in change:
        if name.removeprefix("-") not in known:
            raise UserError(f"--candidate {name}: no such input; {meant(name, sorted(known))}")
        if name in past:
            raise UserError(f"--candidate {name}: is of a sequence, which is given once per request")
        chosen = chosen - {name[1:]} if name.startswith("-") else chosen | {name}
    for ids, weights in pairs:
        if (ids in chosen) != (weights in chosen):
            raise UserError(f"--candidate: {ids} and {weights} go together; change both")
    return chosen


def _made_of_items(column: str) -> bool:
    if column.startswith("rate_"):
        return column.startswith("rate_user_x_") or not column.startswith("rate_user_")
    return column.startswith(("views_", "item_"))


def signature(
    inputs: tuple[Served, ...], tasks: Mapping[str, Head], meanings: dict[str, str], temperature: float | None = None
) -> dict[str, Any]:
    """What signature.json holds. meanings: column -> what it is, as the data's manifest says. temperature: of the
    two-tower model, which gives inner products."""
    return {
        "format": 1,
        "torch": torch.__version__,
        "rows": {
            "Q": "users in the request, as a rule 1",
            "C": "candidates, a multiple of Q: those of the first user first",
        },
        "inputs": [entry for i in inputs for entry in _entries(i, meanings.get(i.name, ""))],
        "outputs": [_output(task, head, temperature) for task, head in tasks.items()],
        "temperature": temperature,
        "padded": _padded(tasks),
    }


def _output(task: str, head: Head, temperature: float | None) -> dict[str, Any]:
    """`gives`: what the model answers, as the task's head has it. `column`: of the task in predictions."""
    gives, meaning = head.gives, f"{head.gives} of {task}"
    if temperature:
        gives = "inner product"
        meaning = (
            f"inner product of the vectors of user and item, -1 to 1, to rank by {task}; the sigmoid of it over the "
            "temperature is the probability that the evaluation reports"
        )
    shape = {"name": task, "dtype": "float32", "shape": ["C"], "task": task}
    return shape | {"gives": gives, "column": head.column(task), "meaning": meaning}


def _padded(tasks: Mapping[str, Head]) -> list[dict[str, Any]]:
    """The outputs of the form for servers that batch by themselves: B requests of N candidates each."""
    answers = "of each request, candidate and task, in the order of `outputs`; NaN where the request's status is not 0"
    status = (
        "0: answered; else the place in `inputs`, counted from 1, of the input whose value in this request is refused"
    )
    return [
        {"name": "probabilities", "dtype": "float32", "shape": ["B", "N", len(tasks)], "meaning": answers},
        {"name": "status", "dtype": "int64", "shape": ["B", 1], "meaning": status},
    ]


def _entries(i: Served, meaning: str) -> list[dict[str, Any]]:
    """A column's entry, and that of its lengths if it is a list."""
    rows = "C" if i.per == "candidate" else "Q"
    entry = {
        "name": i.name,
        "dtype": _TYPES[i.dtype],
        "shape": [rows],
        "per": i.per,
        "meaning": meaning,
        "default": _default(i),
    }
    if i.low is not None:
        entry |= {"low": i.low, "high": i.high}
    if not i.is_list:
        return [entry]
    entry["shape"] = [f"the sum of {i.name}.lengths"]
    if i.width:
        entry["width"] = i.width
    if i.finite:
        entry["finite"] = True
    if i.sequence and not i.length:
        entry["like"] = i.sequence
    if i.length:
        entry |= {"length": i.length, "sequence": i.sequence}
    lengths = {
        "name": f"{i.name}.lengths",
        "dtype": "int64",
        "shape": [rows],
        "per": i.per,
        "meaning": f"number of values of {i.name} in each row",
        "default": 0,
    }
    return [entry, lengths]


def _default(i: Served) -> Any:
    """What to send where the value is missing."""
    if i.is_list:
        return []
    return i.default if i.dtype == "int" else "NaN"
