from dataclasses import replace

import pytest
from tiny import sample_base, sample_features

from coldrank.models.features import Feature, FeatureSet, Input, Table
from coldrank.models.heads import Binary

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
    assert by_name["pc"].rows == 7  # missing, below the first of 5 edges, then one per edge
    assert [f.name for f in features.by_table["item"]] == ["item_id", "hist_item_id"]
    assert [f.name for f in features.numbers] == ["user_views", "item_views", "rate_user_long_view"]
    assert features.sequences["history"][0].keys == tuple(f"hist_item_id.{i}" for i in range(6))
    assert [c.name for c in features.inputs].count("user_views") == 1
    assert Input("item_id", "int", default=0, low=0, high=71) in features.inputs
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
        (replace(ITEM, kind="number", table="", role="pc"), "is read from a table"),
        (replace(ITEM, kind="vector", table="", length=3, dim=2, role="pc"), "is read from a table"),
        (replace(ITEM, kind="vector", table="", dim=2), "length=0, dim=2: a vector needs both"),
        (replace(ITEM, kind="vector", table="", length=3), "length=3, dim=0: a vector needs both"),
        (replace(ITEM, unit=False), "unit is for kind 'vector'"),
        (replace(HISTORY, length=0), "length >= 1"),
        (replace(HISTORY, many=True), "many is for"),
        (replace(ITEM, many=True, role="pc"), "many is for"),
        (replace(ITEM, many=True, kind="number", table=""), "many is for"),
        (replace(ITEM, salted=True), "salted is for ids of a hashed table"),
        (replace(ITEM, kind="number"), "table='item': only kind 'id' names a table"),
        (replace(ITEM, kind="bucket", table="", dim=2, buckets=1), "needs edges, or buckets >= 2"),
        (replace(ITEM, kind="bucket", table="", dim=2, edges=(1.0, 1.0)), "must ascend"),
        (replace(HISTORY, sequence=""), "length >= 1 and sequence"),
        (replace(HISTORY, kind="vector", table="", dim=2), "a sequence holds no vectors"),
        (replace(HISTORY, kind="signals", table="", dim=0, columns=("a",)), "needs the width"),
        (replace(ITEM, kind="signals", table="", dim=2, columns=("a",)), "signals need role 'sequence' and columns"),
        (replace(ITEM, sequence="history"), "sequence is for role 'sequence'"),
        (replace(HISTORY, kind="signals", table="", dim=2), "signals need"),
        (replace(ITEM, columns=("a",)), "columns are for"),
        (replace(ITEM, length=4), "length is for role 'sequence' and for kind 'vector'"),
    ],
)
def test_impossible_declarations_are_refused(changed: Feature, message: str):
    with pytest.raises(ValueError, match=message):
        FeatureSet([changed], [replace(TABLE, mapping="vocabulary" if changed.salted else "hash")])


SIGNALS = Feature(name="likes", role="sequence", kind="signals", columns=("a",), dim=2, sequence="h", length=5)
BUCKET = Feature(name="age", role="context", kind="bucket", buckets=2, dim=3)


@pytest.mark.parametrize(
    ("feature", "rows"),
    [
        (BUCKET, 3),  # missing, and two quantile buckets
        (replace(BUCKET, buckets=7), 8),
        (replace(BUCKET, buckets=0, edges=(1.0,)), 3),  # missing, below and from the edge on
        (replace(BUCKET, buckets=0, edges=(1.0, 2.0, 5.0), init=0.5), 5),
        (SIGNALS, 3),
        (replace(SIGNALS, columns=("a", "b", "c"), init=0.25), 27),
    ],
)
def test_buckets_and_signals_own_a_table(feature: Feature, rows: int):
    features = FeatureSet([ITEM, feature], [TABLE])
    wanted = Table(name=feature.name, rows=rows, dim=feature.dim, mapping="identity", init=feature.init)
    assert features.table(feature.name) == wanted and features.tables == (TABLE, wanted)
    assert features.dim(feature) == feature.dim and features.dim(ITEM) == 4
    assert wanted.reads == 1 and replace(TABLE, mapping="multi_hash", hashes=3).reads == 3


def test_what_is_just_possible_is_taken():
    for mapping in ("hash", "multi_hash"):
        FeatureSet([replace(ITEM, salted=True)], [replace(TABLE, mapping=mapping)])
    for mapping in ("growing", "managed"):
        FeatureSet([ITEM], [replace(TABLE, mapping=mapping, rows=2)])
    FeatureSet([ITEM], [replace(TABLE, mapping="managed", eviction="lfu")])
    for rows, blocks in ((2, 1), (33, 32), (5000, 1024)):
        FeatureSet([ITEM], [replace(TABLE, mapping="managed", rows=rows, blocks=blocks)])
    FeatureSet([ITEM, HISTORY], [replace(TABLE, mapping="vocabulary", min_count=3)])
    for mapping in ("growing", "managed"):
        FeatureSet([ITEM, HISTORY], [replace(TABLE, mapping=mapping, min_count=300)])
        FeatureSet([ITEM], [replace(TABLE, mapping=mapping, min_count=255, admission="sketch", counters=4096)])
    FeatureSet([ITEM], [replace(TABLE, mapping="managed", eviction="distance_lfu")])
    FeatureSet([replace(ITEM, many=True, role="context"), replace(HISTORY, length=1)], [TABLE])
    FeatureSet([ITEM, Feature(name="age", role="pc", kind="bucket", buckets=2, dim=3)], [TABLE])
    FeatureSet([ITEM, Feature(name="n", role="user", kind="number"), SIGNALS], [TABLE])


def test_raw_columns_say_what_they_hold():
    identity, hashed = replace(TABLE, mapping="identity"), Table(name="user", rows=9, dim=2)
    user = Feature(name="user", column="user_id", role="user", kind="id", table="user", default=-7)
    number = Feature(name="x", role="context", kind="number")
    tags = replace(ITEM, name="tags", many=True, default=5)
    features = FeatureSet([user, ITEM, tags, HISTORY, SIGNALS, BUCKET, number], [identity, hashed])
    assert features.inputs == (
        Input("user_id", "int", default=-7),
        Input("item_id", "int", default=0, low=0, high=7),
        Input("tags", "int", is_list=True, low=0, high=7),
        Input("hist", "int", is_list=True, low=0, high=7),
        Input("a", "int", is_list=True, low=-1, high=1),
        Input("age", "float"),
        Input("x", "float"),
    )
    assert features.sparse == (ITEM, tags, HISTORY, user, SIGNALS, BUCKET) and features.numbers == (number,)
    assert features.sequences == {"history": (HISTORY,), "h": (SIGNALS,)}
    assert [f.keys for f in (user, HISTORY, number)] == [("user",), ("hist.0", "hist.1", "hist.2"), ()]
    assert [f.table_name for f in (user, BUCKET, number)] == ["user", "age", ""]
    assert [f.is_list for f in (user, tags, HISTORY)] == [False, True, True]


def test_slots_of_one_transform_lie_together():
    numbers = [
        Feature(name=f"{transform}{i}", role="user", kind="number", transform=transform)
        for i in range(2)
        for transform in ("none", "logit", "log1p")
    ]
    order = [f.name for f in FeatureSet([ITEM, *numbers], [TABLE]).numbers]
    assert order == ["log1p0", "log1p1", "logit0", "logit1", "none0", "none1"]


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
        (replace(TABLE, hashes=3), "table 'item': hashes=3 is for mapping 'multi_hash'"),
        (replace(TABLE, mapping="growing", rows=1), "table 'item': rows=1: row 0 is for unknown ids"),
        (replace(TABLE, mapping="growing", min_count=0), "min_count=0: must be 1 or more"),
        (replace(TABLE, mapping="growing", admission="sketch"), "admission='sketch' is for .* with min_count above 1"),
        (
            replace(TABLE, mapping="vocabulary", min_count=2, admission="sketch"),
            "admission='sketch' is for mappings 'growing' and 'managed'",
        ),
        (replace(TABLE, mapping="growing", min_count=2, counters=8192), "counters=8192 is for admission 'sketch'"),
        (
            replace(TABLE, mapping="growing", min_count=2, admission="sketch", counters=5000),
            "counters=5000: must be a multiple of 4,096",
        ),
        (
            replace(TABLE, mapping="managed", min_count=256, admission="sketch"),
            "min_count=256: a sketch counts up to 255",
        ),
        (replace(TABLE, mapping="managed", rows=1), "table 'item': rows=1: row 0 is for unknown ids"),
        (replace(TABLE, mapping="growing", eviction="lfu"), "eviction='lfu' is for mapping 'managed'"),
        (replace(TABLE, mapping="growing", blocks=2), "blocks=2 is for mapping 'managed'"),
        (replace(TABLE, mapping="managed", rows=9, blocks=9), "blocks=9: must be 1 to 1024 and below rows=9"),
        (replace(TABLE, mapping="managed", rows=5000, blocks=1025), "blocks=1025: must be 1 to 1024"),
        (replace(TABLE, mapping="managed", blocks=0), "blocks=0: must be 1 to 1024"),
    ],
)
def test_impossible_tables_are_refused(table: Table, message: str):
    with pytest.raises(ValueError, match=message):
        FeatureSet([ITEM], [table])


def test_names_are_unique():
    with pytest.raises(ValueError, match="feature declared twice: item_id"):
        FeatureSet([ITEM, ITEM], [TABLE])
    with pytest.raises(ValueError, match="table declared twice: item"):
        FeatureSet([ITEM], [TABLE, replace(TABLE, rows=9)])
    with pytest.raises(ValueError, match="name 'keys' is taken"):
        FeatureSet([replace(ITEM, name="keys")], [TABLE])
    with pytest.raises(ValueError, match="name 'items' is taken"):
        FeatureSet([replace(ITEM, table="items")], [replace(TABLE, name="items")])
    with pytest.raises(ValueError, match="table declared twice: hist_signals"):
        FeatureSet(sample_features(), (*sample_base().tables, Table(name="hist_signals", rows=2, dim=2)))


def test_inputs_of_equal_heads_are_equal():
    one, other = (Input("label_like", "float", problem=Binary().label_problem) for _ in range(2))
    assert one == other and one != replace(other, required=True)
