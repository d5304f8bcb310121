"""The base of arms over a log of one's own."""

from dataclasses import replace

import polars as pl
import pytest

from coldrank.configs import base as parts
from coldrank.configs import own
from coldrank.data.log import Group, History, LogSpec
from coldrank.models.features import FeatureSet
from coldrank.models.heads import Ordinal, Regression

SPEC = LogSpec(
    user="u",
    item="i",
    time="t",
    tasks={"buy": "buy"},
    numbers={"euros": "euros"},
    levels={"stars": "stars"},
    weight="w",
    user_features={"age": "age"},
    item_features={"brand": "brand", "tags": "tags", "born_ms": "born", "emb": "emb", "words": "words"},
    item_birth="item_born_ms",
    context={"type": "type", "shop": "shop"},
    keys={"brand": "brand"},
    groups=(Group(keys=("brand",)), Group(keys=("user", "brand"), parent="user")),
    history={"brand": "brand"},
    history_numbers={"price": "price"},
    histories={"bought": History(length=5, where="buy", columns=("item_id", "brand", "price", "hours", "buy"))},
)
GIVEN: dict[str, object] = {
    "rows": {"user": 100, "item": 50, "item_brand": 20},
    "numbers": ("user_age",),
    "lists": ("item_tags",),
    "weighted": ("item_words",),
    "vectors": {"item_emb": 12},
    "heads": {"stars": Ordinal(5)},
}


def config(spec: LogSpec = SPEC, **changes: object):
    return own.base(spec, **(GIVEN | changes))  # type: ignore[arg-type]


def test_every_column_of_the_spec_is_an_input():
    made = config()
    columns = {c for f in made.features for c in f.raw_columns}
    assert columns == {
        *("user_id", "item_id", "user_age", "item_brand", "item_tags", "type", "shop"),
        *("item_emb", "item_words", "item_words_weights"),
        *("item_age_h", "user_gap_h", "user_views", "item_views", "views_brand", "views_user_x_brand"),
        *(f"rate_{g}_buy" for g in ("user", "item", "brand", "user_x_brand")),
        *("hist_item_id", "hist_brand", "hist_buy", "hist_bought_item_id", "hist_bought_brand"),
        *("hist_bought_hours", "hist_price", "hist_bought_price"),
    }
    assert {f.name: f.table for f in made.features if f.table == "item_brand"} == {
        n: "item_brand" for n in ("item_brand", "hist_brand", "hist_bought_brand")
    }
    assert {f.name for f in made.features if f.table == "category"} == {"type_", "shop", "item_tags", "item_words"}
    assert made.data.weight_column == "weight"
    assert isinstance(made.tasks["euros"], Regression)
    assert set(FeatureSet(made.features, made.tables).sequences) == {"history", "bought"}


def test_nothing_bears_a_name_of_another_data_set():
    spec = LogSpec(user="u", item="i", time="t", tasks={"buy": "buy"})
    made = own.base(spec, rows={"user": 10, "item": 10})
    assert {t.name for t in made.tables} == {"user", "item"}
    assert "kuairand" not in str(made).lower() and "long_view" not in str(made)


def test_a_log_without_users_has_no_input_of_users():
    spec = replace(SPEC, user=None, user_features={}, histories={})
    made = config(spec, rows={"item": 50, "item_brand": 20}, numbers=())
    assert not any("user" in c for f in made.features for c in f.raw_columns)
    assert next(f for f in made.features if f.role == "pc").raw_columns == ("item_views",)
    model = parts.poso(made).model
    assert model.poso_mmoe and not model.poso_mha  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": ("age",)}, "numbers: 'age' is no column of the spec; there are user_age, item_brand"),
        ({"counts": ("user_age",)}, "'user_age' is in several of numbers, counts, lists, weighted, vectors, unused"),
        ({"rows": {"item": 5}}, "rows: 'user' is missing; how many rows has its table"),
        ({"rows": {"user": 5, "item": 5, "user_age": 5}}, "rows: 'user_age' is no column of ids; there are category"),
        ({"heads": {}}, "heads: 'stars' is a level; how many are there"),
        ({"heads": {"stars": Ordinal(5), "star": Ordinal(5)}}, "heads: 'star' is no task of the spec; these are buy"),
    ],
    ids=["unknown", "twice", "missing rows", "rows of a number", "no head", "unknown head"],
)
def test_what_does_not_go_with_the_spec_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_an_expression_may_be_a_birth():
    assert config(replace(SPEC, item_birth=pl.col("born")), unused=("item_born_ms",)).name == "base"
