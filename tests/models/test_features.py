from dataclasses import replace

import pytest
from tiny import sample_base, sample_features

from coldrank.models.features import Feature, FeatureSet, Input, Table

TABLE = Table(name="item", rows=8, dim=4)
ITEM = Feature(name="item_id", role="item", kind="id", table="item")
HISTORY = Feature(name="hist", role="sequence", kind="id", table="item", sequence="history", length=3)


def test_declaration_yields_tables_keys_and_slots():
    features = FeatureSet(sample_base().features, sample_base().tables)
    by_name = {t.name: t for t in features.tables}
    assert set(by_name) == {
        "user",
        "item",
        "tag",
        "user_views_bucket",
        "item_views_bucket",
        "user_gap_h",
        "hist_signals",
        "pc",
    }
    assert by_name["hist_signals"].rows == 9  # 3 states of 2 signals
    assert by_name["user_gap_h"].rows == 5  # missing, and 4 quantile buckets
    assert by_name["pc"].rows == 8  # missing, below the first of 6 edges, then one per edge
    assert [f.name for f in features.by_table["item"]] == ["item_id", "hist_item_id"]
    assert [f.name for f in features.numbers] == ["user_views", "item_views", "rate_user_long_view"]
    assert features.sequences["history"][0].keys == tuple(f"hist_item_id.{i}" for i in range(6))
    assert [c.name for c in features.inputs].count("user_views") == 1
    assert Input("item_id", "int", default=0, low=0, high=63) in features.inputs
    assert Input("hist_like", "int", is_list=True, low=-1, high=1) in features.inputs


def test_tables_without_a_feature_are_left_out():
    features = FeatureSet([ITEM], [TABLE, Table(name="user", rows=8, dim=4)])
    assert [t.name for t in features.tables] == ["item"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (replace(ITEM, table="itm"), "feature 'item_id': table='itm' is not declared; have \\['item'\\]"),
        (replace(ITEM, table="itm", salted=True), "is not declared"),
        (replace(ITEM, name="item.id"), "the name must be"),
        (replace(ITEM, kind="bucket", table=""), "needs the width"),
        (replace(ITEM, kind="bucket", table="", dim=2), "needs edges, or buckets"),
        (replace(ITEM, kind="bucket", table="", dim=2, edges=(2.0, 1.0)), "must ascend"),
        (replace(ITEM, kind="number", table="", role="pc"), "is embedded"),
        (replace(HISTORY, length=0), "length >= 1"),
        (replace(HISTORY, many=True), "many is for"),
        (replace(HISTORY, kind="signals", table="", dim=2), "signals need"),
        (replace(ITEM, columns=("a",)), "columns are for"),
        (replace(ITEM, length=4), "are for role 'sequence'"),
    ],
)
def test_impossible_declarations_are_refused(changed: Feature, message: str):
    with pytest.raises(ValueError, match=message):
        FeatureSet([changed], [TABLE])


def test_what_a_set_of_features_needs():
    with pytest.raises(ValueError, match="no embedded feature outside sequences"):
        FeatureSet([HISTORY], [TABLE])
    other = replace(ITEM, name="category", table="category")
    with pytest.raises(ValueError, match="table 'item': its vocabulary is taken from features outside sequences"):
        FeatureSet([other, HISTORY], [replace(TABLE, mapping="vocabulary"), replace(TABLE, name="category")])
    with pytest.raises(ValueError, match="column 'item_id' is read in another way"):
        FeatureSet([ITEM, Feature(name="x", column="item_id", role="item", kind="number")], [TABLE])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (replace(TABLE, mapping="multi_hash", hashes=1), "table 'item': hashes=1: must be 2 or more"),
        (replace(TABLE, mapping="growing", rows=1), "table 'item': rows=1: row 0 is for unknown ids"),
        (replace(TABLE, mapping="growing", min_count=2), "min_count=2 is for mapping 'vocabulary'"),
    ],
)
def test_impossible_tables_are_refused(table: Table, message: str):
    with pytest.raises(ValueError, match=message):
        FeatureSet([ITEM], [table])


def test_names_are_unique():
    with pytest.raises(ValueError, match="feature declared twice: item_id"):
        FeatureSet([ITEM, ITEM], [TABLE])
    with pytest.raises(ValueError, match="name 'items' is taken"):
        FeatureSet([replace(ITEM, table="items")], [replace(TABLE, name="items")])
    with pytest.raises(ValueError, match="table declared twice: hist_signals"):
        FeatureSet(sample_features(), (*sample_base().tables, Table(name="hist_signals", rows=2, dim=2)))
