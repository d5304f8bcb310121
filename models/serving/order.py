"""Which of training's columns the columns of a served side are."""

from collections.abc import Callable, Sequence

from coldrank.models.features import Feature, FeatureSet
from coldrank.models.serving.stage import Order


def places(features: FeatureSet, order: Order) -> list[int]:
    """Where the columns of a side, embeddings and then numbers, stand among the static inputs of training."""
    fixed = [f for f in features.sparse if f.role not in ("sequence", "pc")]
    spans = _spans([*fixed, *features.numbers], lambda f: 1 if f.kind == "number" else features.dim(f))
    return [c for f in [*order.static, *order.dense] for c in spans[f.name]]


def code_places(features: FeatureSet, order: Sequence[Order]) -> list[int]:
    """Where the columns of the codes of both sides, one after the other, stand among those of training."""
    spans = _spans([f for f in features.sparse if f.role == "pc"], features.dim)
    return [c for o in order for f in o.pc for c in spans[f.name]]


def _spans(features: Sequence[Feature], dim: Callable[[Feature], int]) -> dict[str, list[int]]:
    """Columns of each feature, one after another."""
    spans, at = {}, 0
    for f in features:
        spans[f.name] = list(range(at, at + dim(f)))
        at += dim(f)
    return spans
