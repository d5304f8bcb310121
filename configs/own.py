"""Arms of a log of one's own start here: `base(spec)` reads every column that the spec makes.

A module that `coldrank spec` writes calls it, and so does one written by hand (docs/own_data.md).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn

from coldrank.configs import base as parts
from coldrank.data.log import LogSpec
from coldrank.data.weighted import SUFFIX
from coldrank.models.features import Feature, Role, Table, Transform
from coldrank.models.heads import Binary, Head, Regression
from coldrank.models.ranker import Ranker
from coldrank.train.config import RunConfig
from coldrank.train.sections import DataConfig, DenseConfig, OptimConfig, TablesConfig, TrainConfig

# Of tables whose ids get rows of their own: wide where they are users and items.
_ID_DIM, _OWN_DIM, _SHARED_DIM = 16, 8, 4
_SHARED = "category"
_NONE: Mapping[str, Any] = MappingProxyType({})


def base(
    spec: LogSpec,
    *,
    rows: Mapping[str, int],
    numbers: Sequence[str] = (),
    counts: Sequence[str] = (),
    lists: Sequence[str] = (),
    weighted: Sequence[str] = (),
    vectors: Mapping[str, int] = _NONE,
    unused: Sequence[str] = (),
    heads: Mapping[str, Head] = _NONE,
    history: int = 50,
) -> RunConfig:
    """The plain ranker over a log: MHA over the histories, MMoE, towers. The personalization code is the user's view
    count; of a log without users it is the item's.

    rows: table -> its rows: `user`, `item`, and columns whose ids get rows of their own, such as `item_author`. All
    other categories share a hashed table, of 65,536 rows unless `category` says otherwise.
    numbers, counts, lists, weighted, vectors: columns of the samples (`user_age`, `item_tags`, a name of `context`)
    that are numbers, numbers from 0 on of which the logarithm is taken, lists of ids, ids with weights, and vectors
    with their lengths. Those in none of them are categories.
    unused: columns that are no inputs.
    heads: task -> its head. Without: `Binary()` for `tasks`, `Regression()` for `numbers`; `levels` need theirs.
    history: the longest of all events that is read.
    Raises ValueError for a column that the spec does not make, and for a level without a head.
    """
    columns = _columns(spec)
    given = {"numbers": numbers, "counts": counts, "lists": lists, "weighted": weighted, "vectors": tuple(vectors)}
    given["unused"] = unused
    _check_given(spec, columns, given, rows)
    kinds = {c: what for what, names in given.items() for c in names}
    features = [
        *_ids(spec),
        *(f for c, role in columns.items() for f in _inputs(c, role, kinds.get(c, ""), rows, vectors)),
        *_as_of_time(spec),
        *_histories(spec, rows, history),
        parts.personalization_code("user_views" if spec.user is not None else "item_views", dim=8),
    ]
    return RunConfig(
        name="base",
        tasks=_heads(spec, heads),
        features=tuple(features),
        tables=_tables(features, rows),
        model=Ranker(
            heads=4, head_dim=8, positions=True, experts=4, expert_hidden=(128, 64), tower_hidden=(32,), dropout=0.1
        ),
        data=DataConfig(batch_size=512, weight_column="weight" if spec.weight is not None else ""),
        optim=OptimConfig(
            tables=TablesConfig(lr=0.05), dense=DenseConfig(lr=1.8e-3, gate_lr_scale=3.0), decay="linear"
        ),
        train=TrainConfig(epochs=1),
    )


def _columns(spec: LogSpec) -> dict[str, Role]:
    """Columns of the samples that the spec makes of features and context, and whose they are."""
    roles: dict[str, Role] = {f"user_{n}": "user" for n in spec.user_features}
    roles |= {f"item_{n}": "item" for n in spec.item_features}
    roles |= {n: "context" for n in spec.context}
    roles.pop(spec.item_birth if isinstance(spec.item_birth, str) else "", None)
    return roles


def _check_given(
    spec: LogSpec, columns: Mapping[str, Role], given: Mapping[str, Sequence[str]], rows: Mapping[str, int]
) -> None:
    for what, names in given.items():
        for name in names:
            if name not in columns:
                raise ValueError(f"{what}: {name!r} is no column of the spec; there are {', '.join(columns) or 'none'}")
    twice = [c for c in columns if sum(c in names for names in given.values()) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is in several of {', '.join(given)}")
    needed = {"item"} | ({"user"} if spec.user is not None else set())
    if missing := needed - set(rows):
        raise ValueError(f"rows: {min(missing)!r} is missing; how many rows has its table?")
    ids = {
        *needed,
        _SHARED,
        *(c for c in columns if not any(c in given[w] for w in ("numbers", "counts", "vectors", "unused"))),
    }
    if unknown := set(rows) - ids:
        raise ValueError(f"rows: {min(unknown)!r} is no column of ids; there are {', '.join(sorted(ids))}")


def _ids(spec: LogSpec) -> list[Feature]:
    user = [Feature(name="user_id", role="user", kind="id", table="user")] if spec.user is not None else []
    return [*user, Feature(name="item_id", role="item", kind="id", table="item")]


def _inputs(column: str, role: Role, kind: str, rows: Mapping[str, int], vectors: Mapping[str, int]) -> list[Feature]:
    # A few names, such as `type`, are methods of torch's modules.
    name = f"{column}_" if hasattr(nn.ModuleDict, column) else column
    if kind == "unused":
        return []
    if kind in ("numbers", "counts"):
        bucket = Feature(name=f"{column}_bucket", column=column, role=role, kind="bucket", buckets=16, dim=_SHARED_DIM)
        transform: Transform = "log1p" if kind == "counts" else "none"
        return [Feature(name=name, column=column, role=role, kind="number", transform=transform), bucket]
    if kind == "vectors":
        return [Feature(name=name, column=column, role=role, kind="vector", length=vectors[column], dim=_ID_DIM)]
    own, of_list = column in rows, kind in ("lists", "weighted")
    return [
        Feature(
            name=name,
            column=column,
            role=role,
            kind="id",
            table=column if own else _SHARED,
            salted=not own,
            many=of_list,
            weights=f"{column}{SUFFIX}" if kind == "weighted" else "",
            default=0 if of_list else -1,
        )
    ]


def _as_of_time(spec: LogSpec) -> list[Feature]:
    """Counts, rates and ages that `prepare` makes of every log."""
    known = [g for g in spec.all_groups() if spec.user is not None or "user" not in g.keys]
    signals = list(spec.all_signals())
    names = [g.name for g in known]
    gap = (
        [Feature(name="user_gap_h", role="context", kind="bucket", buckets=32, dim=4)] if spec.user is not None else []
    )
    views = [n for n in ("user", "item") if n in names]
    return [
        Feature(name="item_age_h", role="item", kind="bucket", buckets=16, dim=4),
        *gap,
        *parts.counts([f"{n}_views" for n in views], dim=8),
        *parts.counts([f"views_{n}" for n in names if n not in views]),
        *parts.rates(names, signals),
        *parts.rate_buckets(names, signals, buckets=16, dim=4),
    ]


def _histories(spec: LogSpec, rows: Mapping[str, int], length: int) -> list[Feature]:
    """The last events of the user, and the histories that the spec names."""
    if spec.user is None:
        return []
    tables = {"item_id": "item"} | {n: _table_of(n, rows) for n in spec.history}
    ids = {f"hist_{n}": table for n, table in tables.items()}
    past: dict[str, Any] = {"role": "sequence", "sequence": "history", "length": length}
    features = parts.history(length, ids, list(spec.all_signals()))
    features += [_past_number(f"hist_{n}", past) for n in spec.history_numbers]
    for name, history in spec.histories.items():
        past = {"role": "sequence", "sequence": name, "length": history.length}
        for column in history.columns:
            whole = f"hist_{name}_{column}"
            if column in tables:
                features.append(Feature(name=whole, kind="id", table=tables[column], **past))
            elif column in spec.history_numbers:
                features.append(_past_number(whole, past))
            elif column == "hours":
                features.append(Feature(name=whole, kind="bucket", edges=parts.AGE_EDGES, dim=_SHARED_DIM, **past))
    return features


def _past_number(column: str, past: Mapping[str, Any]) -> Feature:
    return Feature(name=column, kind="bucket", buckets=16, dim=_SHARED_DIM, **past)


def _table_of(name: str, rows: Mapping[str, int]) -> str:
    """The table of an attribute of past events: that of the item's feature of the same name, where it has one."""
    return f"item_{name}" if f"item_{name}" in rows else f"hist_{name}"


def _heads(spec: LogSpec, heads: Mapping[str, Head]) -> dict[str, Head]:
    labels = spec.labels()
    if unknown := set(heads) - set(labels):
        raise ValueError(f"heads: {min(unknown)!r} is no task of the spec; these are {', '.join(labels)}")
    if missing := [t for t in spec.levels if t not in heads]:
        raise ValueError(f"heads: {missing[0]!r} is a level; how many are there? heads={{{missing[0]!r}: Ordinal(5)}}")
    usual: dict[str, Head] = {t: Binary() for t in spec.tasks} | {t: Regression() for t in spec.numbers}
    return {t: heads.get(t) or usual[t] for t in labels}


def _tables(features: Sequence[Feature], rows: Mapping[str, int]) -> tuple[Table, ...]:
    """User, item and large categories have rows of their own when seen twice in training; small ones are hashed."""
    named = dict.fromkeys(f.table for f in features if f.table)
    return tuple(
        Table(
            name=n, rows=rows[n], dim=_ID_DIM if n in ("user", "item") else _OWN_DIM, mapping="vocabulary", min_count=2
        )
        if n in rows and n != _SHARED
        else Table(
            name=n, rows=rows.get(n, 65_536 if n == _SHARED else 4_096), dim=_SHARED_DIM if n == _SHARED else _OWN_DIM
        )
        for n in named
    )
