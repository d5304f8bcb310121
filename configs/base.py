"""Pieces that the arms of every data set are made of. An arm is a function: call the base, change a few fields,
return."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from coldrank.models.features import Feature, Role, Transform
from coldrank.models.pepnet import PEPNet
from coldrank.models.ranker import Ranker
from coldrank.modules.attention import Fold
from coldrank.train.config import RunConfig
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.posterior import Posterior

Arm = Callable[[], RunConfig]


def octave_edges(per_octave: int, octaves: int = 12) -> tuple[int, ...]:
    """Log2-spaced whole numbers from 1 to 2 ** octaves: `per_octave` to a doubling, fewer where whole numbers are wider
    apart."""
    return tuple(sorted({round(2 ** (k / per_octave)) for k in range(per_octave * octaves + 1)}))


# Edges of the personalization code, up to 4,096 views: 0 | 1 | 2 | 3 | 4-5 | 6-7 | 8-10 | ...
AVC_EDGES = octave_edges(2)
# Hours, up to 3.7 years.
AGE_EDGES = octave_edges(4, octaves=15)


def rates(groups: Sequence[str], signals: Sequence[str]) -> list[Feature]:
    """Smoothed rates as log-odds in dense slots."""
    return [Feature(name=n, role="context", kind="number", transform="logit") for n in _rate_columns(groups, signals)]


def rate_buckets(groups: Sequence[str], signals: Sequence[str], *, buckets: int, dim: int) -> list[Feature]:
    """Smoothed rates as embedded quantile buckets."""
    return [
        Feature(name=f"{n}_bucket", column=n, role="context", kind="bucket", buckets=buckets, dim=dim)
        for n in _rate_columns(groups, signals)
    ]


def _rate_columns(groups: Sequence[str], signals: Sequence[str]) -> list[str]:
    return [f"rate_{group}_{signal}" for group in groups for signal in signals]


def counts(columns: Sequence[str], *, dim: int = 0) -> list[Feature]:
    """Counts as log(1 + n) in dense slots, and also embedded in log2-spaced buckets if `dim` is given."""
    features = [Feature(name=c, role="context", kind="number", transform="log1p") for c in columns]
    if dim:
        features += [
            Feature(name=f"{c}_bucket", column=c, role="context", kind="bucket", edges=AVC_EDGES, dim=dim)
            for c in columns
        ]
    return features


def numbers(
    columns: Sequence[str], role: Role, *, transform: Transform = "none", buckets: int = 0, dim: int = 0
) -> list[Feature]:
    """Columns of numbers, such as the thirty of an ad log, each in a dense slot; and embedded in `buckets` quantile
    buckets of width `dim` as well, if there are any."""
    features = [Feature(name=c, role=role, kind="number", transform=transform) for c in columns]
    if buckets:
        embedded = lambda c: Feature(name=f"{c}_bucket", column=c, role=role, kind="bucket", buckets=buckets, dim=dim)
        features += [embedded(c) for c in columns]
    return features


def cross(*of: str, rows: int, dim: int, role: Role = "context") -> Feature:
    """Two or more features, ids and buckets, hashed together into a table of so many rows; named `a_x_b`."""
    return Feature(name="_x_".join(of), role=role, kind="cross", of=of, rows=rows, dim=dim)


def history(length: int, ids: dict[str, str], signals: Sequence[str] = (), *, dim: int = 8) -> list[Feature]:
    """The last `length` events: id columns (column -> table), and the joint state of the signals as one embedding."""
    features = [
        Feature(name=column, role="sequence", kind="id", table=table, sequence="history", length=length)
        for column, table in ids.items()
    ]
    if signals:
        names = tuple(f"hist_{s}" for s in signals)
        features.append(
            Feature(
                name="hist_signals",
                role="sequence",
                kind="signals",
                columns=names,
                dim=dim,
                sequence="history",
                length=length,
            )
        )
    return features


def personalization_code(column: str, *, dim: int, edges: Sequence[float] = AVC_EDGES) -> Feature:
    """The feature that feeds POSO's gates: a bucketized count or age. It begins with a deviation of 1: a gate that sees
    numbers near 0 is as good as constant until its table has grown."""
    return Feature(name="pc", column=column, role="pc", kind="bucket", edges=tuple(edges), dim=dim, init=1.0)


def ranker(base: RunConfig, **fields: Any) -> Ranker:
    """The base's ranker with other settings."""
    assert isinstance(base.model, Ranker)
    return replace(base.model, **fields)


def poso_mha(base: RunConfig) -> RunConfig:
    """POSO(MHA), Eq. 14."""
    return replace(base, name="poso_mha", model=ranker(base, poso_mha=True))


def poso_mmoe(base: RunConfig) -> RunConfig:
    """POSO(MMoE), Eq. 17-18."""
    return replace(base, name="poso_mmoe", model=ranker(base, poso_mmoe=True))


def poso_mlp(base: RunConfig) -> RunConfig:
    """POSO(MLP) towers, Eq. 11."""
    return replace(base, name="poso_mlp", model=ranker(base, poso_mlp=True))


def poso(base: RunConfig) -> RunConfig:
    """All POSO parts together; without sequences, all but the attention's."""
    has_sequences = any(f.role == "sequence" for f in base.features)
    model = ranker(base, poso_mha=has_sequences, poso_mmoe=True, poso_mlp=True)
    return replace(base, name="poso", model=model)


def pepnet(base: RunConfig, **fields: Any) -> RunConfig:
    """PEPNet, POSO's closest rival: EPNet by the personalization code, PPNet by the ids of user and item."""
    plain = {f.name: getattr(base.model, f.name) for f in dataclasses.fields(PEPNet) if hasattr(base.model, f.name)}
    return replace(base, name="pepnet", model=PEPNet(**(plain | fields)))


def tells_views(feature: Feature) -> bool:
    """Whether an input tells how much was seen of the user, as `prepare` names its columns: their id; counts and rates
    of the user and of crosses with the user; the time since their events."""
    return any(
        column in ("user_id", "user_views", "user_gap_h")
        or column.startswith(("views_", "rate_"))
        and "user" in re.split("_x_|_", column)
        or column.startswith("hist_")
        and column.endswith("_hours")
        for column in feature.raw_columns
    )


def without_avc(base: RunConfig) -> RunConfig:
    """Control: drops all of the ordinary inputs that tell how much was seen of the user (`tells_views`), and the
    positions of histories, which make their length readable. The gates, where there are any, still take the AVC. That a
    history is empty can still be seen; `coldrank compare` prints how well the inputs that are left tell new users."""
    gone = {f.name for f in base.features if f.role != "pc" and tells_views(f)}
    kept = tuple(f for f in base.features if f.name not in gone and not gone & set(f.of))
    read = {f.table for f in kept}
    tables = tuple(t for t in base.tables if t.name in read)
    model: Any = base.model
    if getattr(model, "positions", False):
        model = replace(model, positions=False)
    return replace(base, name=f"{base.name}_without_avc", features=kept, tables=tables, model=model)


def avc_in_gates_only(poso: RunConfig) -> RunConfig:
    """Control: `without_avc`, gates that take the AVC beside it."""
    return replace(without_avc(poso), name=f"{poso.name}_avc_in_gates_only")


def with_avc(base: RunConfig) -> RunConfig:
    """The AVC as an ordinary input, as number and in buckets."""
    return replace(base, name=f"{base.name}_avc", features=(*base.features, *counts(["user_views"], dim=8)))


def constant_pc(base: RunConfig) -> RunConfig:
    """Gates with a constant input: POSO's parameters without its personalization."""
    return replace(base, name=f"{base.name}_constant_pc", model=ranker(base, pc="constant"))


def with_code(base: RunConfig, name: str, *codes: Feature) -> RunConfig:
    """Other personalization codes in the place of the base's: the gates take them side by side."""
    features = (*(f for f in base.features if f.role != "pc"), *codes)
    return replace(base, name=f"{base.name}_{name}", features=features)


def id_codes(base: RunConfig, name: str, *columns: str) -> RunConfig:
    """Table 6: ids as the personalization code, whose embeddings begin with the spread of the AVC's (a deviation of 1)
    in tables of their own, of the size of the ids'. In the ranker's own tables, which begin near 0, gates would see
    nothing for most of a run."""
    table_of = {f.raw_columns[0]: f.table for f in base.features if f.kind == "id" and f.role in ("user", "item")}
    by_name = {t.name: t for t in base.tables}
    codes = [Feature(name=f"pc_{c}", column=c, role="pc", kind="id", table=f"pc_{c}") for c in columns]
    tables = [replace(by_name[table_of[c]], name=f"pc_{c}", init=1.0) for c in columns]
    return replace(with_code(base, name, *codes), tables=(*base.tables, *tables))


def all_features(base: RunConfig) -> RunConfig:
    """Table 6: gates that take every input outside the sequences."""
    return replace(base, name=f"{base.name}_all_features", model=ranker(base, pc="static"))


def is_new_user(base: RunConfig) -> RunConfig:
    """Table 6: the code tells new users (cohorts.new_user_max_views) from the others, and nothing else."""
    edges = (base.cohorts.new_user_max_views + 1,)
    return with_code(base, "is_new_user", personalization_code("user_views", dim=8, edges=edges))


def avc_fine(base: RunConfig) -> RunConfig:
    """AVC in four buckets per octave: every count up to 8 has its own."""
    return with_code(base, "avc_fine", personalization_code("user_views", dim=8, edges=octave_edges(4)))


def avc_coarse(base: RunConfig) -> RunConfig:
    """AVC in one bucket per octave."""
    return with_code(base, "avc_coarse", personalization_code("user_views", dim=8, edges=octave_edges(1)))


def video_age(base: RunConfig) -> RunConfig:
    """Table 3: the code is the hours since the upload, in four buckets per octave."""
    return with_code(base, "video_age", personalization_code("item_age_h", dim=8, edges=AGE_EDGES))


def item_views(base: RunConfig) -> RunConfig:
    """Item cold start with the other half of section 4.5's definition of a new video: the code is the item's views."""
    return with_code(base, "item_views", personalization_code("item_views", dim=8))


def mha_fold(base: RunConfig, fold: Fold) -> RunConfig:
    """A row of Table 7: how far Q, K and V are personalized."""
    return replace(base, name=f"{base.name}_{fold}", model=ranker(base, mha_fold=fold))


def cold_weighted(base: RunConfig, weight: float = 2.0) -> RunConfig:
    """Control: the samples of new users weigh more in the loss, a rival of POSO's that costs nothing."""
    return replace(base, name=f"{base.name}_cold_weighted", cold_weight=weight)


def cold_pass(base: RunConfig) -> RunConfig:
    """Control: a last pass over the samples of new users alone, POSO's other rival; the learning rates fall over both
    passes."""
    return replace(base, name=f"{base.name}_cold_pass", train=replace(base.train, cold_passes=1))


def gate_pass(base: RunConfig) -> RunConfig:
    """A last pass over the samples of new users that trains POSO's gates alone: they are too few to learn samples by
    heart."""
    train = replace(base.train, cold_passes=1, cold_trains="gates")
    return replace(base, name=f"{base.name}_gate_pass", train=train)


def metacf(base: RunConfig, **settings: Any) -> RunConfig:
    """MetaCF: the embeddings of users with few events are adapted to these."""
    return replace(base, name=f"{base.name}_metacf", hooks=(*base.hooks, MetaCF(**settings)))


def posterior(base: RunConfig, **settings: Any) -> RunConfig:
    """The ID embeddings of cold items are posterior means."""
    return replace(base, name=f"{base.name}_posterior", hooks=(*base.hooks, Posterior(**settings)))
