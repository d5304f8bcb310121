"""What `coldrank prepare` writes and refuses, on small logs of one's own."""

import dataclasses
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_logs import DAY_MS, SPEC, START, prepare_frame, random_log, read_samples
from polars.testing import assert_frame_equal

from coldrank.cli.main import main
from coldrank.data.errors import UserError
from coldrank.data.ids import hash_strings, string_id
from coldrank.data.log import Group, LogSpec
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, prepare
from coldrank.data.split import as_date, split_by_time
from coldrank.data.spool import load_events

SPEC_FILE = """
import polars as pl
from coldrank.data.log import Group, LogSpec

spec = LogSpec(
    user="who", item="what", time="at", time_unit="s",
    tasks={"click": "clicked", "stay": pl.col("seconds") > 10},
    user_table="users.csv", user_table_id="who", user_features={"city": "city"},
    item_table="items.parquet", item_table_id="what", item_features={"author": "author", "tags": "tags"},
    keys={"author": "item_author", "city": "user_city"},
    groups=(Group(keys=("author",)), Group(keys=("city", "author"), parent="author")),
    history={"author": "item_author"},
    truth={"click": "p"},
)
"""


def write_own_log(folder: Path) -> Path:
    """String ids, seconds, two files of events in a sub-folder, a CSV and a Parquet table."""
    (folder / "log" / "events").mkdir(parents=True)
    (folder / "spec.py").write_text(SPEC_FILE)
    days = [START // 1000 + 86_400 * d for d in (0, 0, 1, 2, 3, 4)]
    log = pl.DataFrame(
        {
            "who": ["ann", "bob", "ann", "ann", "zoe", "bob"],
            "what": ["x", "x", "y", "x", "y", "z"],
            "at": days,
            "clicked": [1, None, 0, 1, 1, 0],
            "seconds": [20.0, 3.0, None, 11.0, 1.0, 10.0],
            "p": [0.9, 0.5, 0.1, 0.8, 0.7, 0.2],
        }
    )
    folder = folder / "log"
    log[:4].write_parquet(folder / "events" / "a.parquet")
    pl.concat([log[4:], log[5:]]).write_parquet(folder / "events" / "b.parquet")
    (folder / "users.csv").write_text("who,city\nann,Oslo\nbob,\n")
    items = {"what": ["y", "x"], "author": ["A", "B"], "tags": [["t", "u"], None]}
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    return folder.parent


def run(folder: Path, *more: str) -> int:
    fixed = [
        "prepare",
        "log",
        "--data",
        str(folder / "log"),
        "--spec",
        str(folder / "spec.py"),
        "--out",
        str(folder / "out"),
    ]
    return main([*fixed, "--valid-days", "1", *more])


def test_a_spec_file_prepares_a_log_of_strings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write_own_log(tmp_path)) == 0
    assert "1 of 7 rows (14.3%) were exact duplicates and dropped" in capsys.readouterr().out
    samples = read_samples(tmp_path).sort("time", "user_id").drop("path").with_row_index().to_dicts()
    ann = [s for s in samples if s["user_id"] == string_id("ann")]
    assert [s["user_views"] for s in ann] == [0, 1, 2]
    assert [s["label_stay"] for s in ann] == [1, None, 1]
    assert ann[2]["hist_item_id"] == [string_id("y"), string_id("x")]
    assert ann[2]["hist_author"] == [string_id("A"), string_id("B")]
    assert ann[2]["hist_stay"] == [-1, 1] and ann[2]["true_click"] == pytest.approx(0.8)
    assert ann[1]["item_tags"] == [string_id("t"), string_id("u")] and ann[0]["item_tags"] == []
    zoe, last = (next(s for s in samples if s["time"] == START + 86_400_000 * d) for d in (3, 4))
    assert zoe["user_city"] is None and zoe["views_author"] == 1 and zoe["views_city_x_author"] == 0
    assert last["item_author"] is None and last["item_tags"] == [] and last["views_author"] == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"]["users_without_features"] == manifest["counts"]["items_without_features"] == 1


def test_the_manifest_tells_what_the_files_hold(tmp_path: Path) -> None:
    manifest = prepare_frame(random_log(0), tmp_path)
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    for part in manifest["partitions"]:
        frame = pl.read_parquet(tmp_path / "out" / part["path"], hive_partitioning=False)
        assert frame.select("time", "user_id", "item_id").rows() == sorted(
            frame.select("time", "user_id", "item_id").rows()
        )
        assert (part["rows"], part["time_min"], part["time_max"]) == (
            len(frame),
            frame["time"].min(),
            frame["time"].max(),
        )
        schema = pq.read_schema(tmp_path / "out" / part["path"])
        assert [c["name"] for c in manifest["columns"]] == schema.names
        assert [c["nullable"] for c in manifest["columns"]] == [f.nullable for f in schema]
        for column in manifest["columns"]:
            assert column["nullable"] or frame[column["name"]].null_count() == 0, column
    kinds = {c["name"]: c["type"] for c in manifest["columns"]}
    assert kinds["label_click"] == "int8" and kinds["user_views"] == kinds["views_author"] == "int32"
    assert kinds["rate_user_click"] == "float32" and kinds["hist_like"] == "list<int8>" and kinds["time"] == "int64"
    train = read_samples(tmp_path).filter(pl.col("path").str.contains("split=train"))["label_click"].drop_nulls()
    assert manifest["label_rates"]["train"]["click"] == {"known": len(train), "rate": train.mean()}
    assert sum(s["rows"] for s in manifest["splits"].values()) == len(read_samples(tmp_path))


def test_exact_duplicates_are_one_event_and_near_ones_are_two(tmp_path: Path) -> None:
    log = random_log(3).unique(maintain_order=True)
    twice = pl.concat([log, log[10:30], log[10:12], log[5:6].with_columns(click=1 - pl.col("click").fill_null(0))])
    manifest = prepare_frame(twice.sample(fraction=1, shuffle=True, seed=1), tmp_path)
    assert manifest["counts"]["events_read"] == len(twice)
    assert manifest["counts"]["duplicates_dropped"] == 22
    assert len(read_samples(tmp_path)) == len(log) + 1


def test_the_same_log_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        prepare_frame(random_log(0), tmp_path / name)
    written = {name: sorted((tmp_path / name / "out").rglob("*.*")) for name in "ab"}
    assert len(written["a"]) > 4
    for a, b in zip(written["a"], written["b"], strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_out_is_replaced_if_it_is_prepared_data_and_else_refused(tmp_path: Path) -> None:
    prepare_frame(random_log(0), tmp_path)
    (tmp_path / "out" / "samples" / "old").touch()
    prepare_frame(random_log(1), tmp_path)
    assert not (tmp_path / "out" / "samples" / "old").exists()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="holds something else than prepared data"):
        prepare_frame(random_log(1), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "out"]


def test_a_failed_preparation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        prepare_frame(random_log(0), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


ERRORS = [
    (
        pl.col("click").fill_null(0) + 2,
        r"events.parquet: column click \(label_click\), row 1: \d is neither 0, 1 nor empty",
    ),
    (pl.col("tag").alias("click"), r"column click \(label_click\): type String; should be 0, 1 or empty"),
    (pl.lit(None, pl.Int64).alias("user"), r"column user \(user_id\), row 1: None should not be empty"),
    (
        pl.col("user") + 0.5,
        r"column user \(user_id\), row \d+: \d+.5; should be an integer or a string: a whole number",
    ),
    (pl.col("time") * 1000, r"column time \(time\), row 1: \d+ is outside 1970..2100; is the time unit really ms\?"),
    (pl.col("time").cast(pl.String), r"column time \(time\), row 1: '\d+' should be a time like 2022-05-04T12:30:00Z"),
    (pl.col("tag").alias("birth"), r"column birth \(birth\), row \d+: '\w+' should be a time like"),
    *(
        (
            pl.when(pl.int_range(pl.len()) == 2).then(number).otherwise(pl.col("time")).alias("time"),
            rf"events.parquet: column time \(time\), row 3: {number} should be a number of ms since 1970",
        )
        for number in (float("nan"), float("inf"))
    ),
    (pl.lit(2**63, pl.UInt64).alias("time"), rf"row 1: {2**63} should be a number of ms since 1970"),
]


@pytest.mark.parametrize(("change", "message"), ERRORS)
def test_wrong_values_are_named(change: pl.Expr, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        prepare_frame(random_log(0).with_columns(change), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.tried("logs", "a wrong value beyond what is read at a time", "its row of the file is named")
def test_a_wrong_value_far_down_is_named_by_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldrank.data.spool.ROWS", 16)
    log = random_log(0).with_columns(click=pl.when(pl.int_range(pl.len()) == 148).then(7).otherwise("click"))
    with pytest.raises(UserError, match=r"events.parquet: column click \(label_click\), row 149: 7 is neither 0, 1"):
        prepare_frame(log, tmp_path)


def test_a_missing_column_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"events.parquet: no column 'like'; it has user, item, time, click, author"):
        prepare_frame(random_log(0).drop("like"), tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"tasks": {}}, "tasks, numbers and levels are empty"),
        ({"groups": (Group(keys=("autor",)),)}, "group 'autor': key 'autor' is not in keys"),
        ({"groups": (Group(keys=("author",), parent="tag"),)}, "group 'author': parent 'tag' is no group"),
        ({"groups": (Group(keys=("author",), smoothing=0.0),)}, "smoothing=0.0; should be above 0"),
        ({"context": {"Place": "tag"}}, "context: name 'Place'"),
        ({"context": {"user_views": "tag"}}, "two columns are named 'user_views'"),
        ({"truth": {"buy": "tag"}}, "truth: 'buy' is no task"),
        ({"history": {"click": "author"}}, "history: 'click' is taken"),
    ],
)
def test_a_wrong_spec_is_named(spec: dict[str, object], message: str, tmp_path: Path) -> None:
    fields = {"user": "user", "item": "item", "time": "time", "tasks": {"click": "click"}, "keys": {"author": "author"}}
    with pytest.raises(UserError, match=message):
        prepare_frame(random_log(0), tmp_path, LogSpec(**(fields | spec)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nspec = LogSpec()", "spec.py, line 2: name 'LogSpec' is not defined"),
        ("spec = (", "spec.py, line 1: '(' was never closed"),
        ("spec = 3", "spec is int; should be a LogSpec"),
    ],
)
def test_a_wrong_spec_file_is_one_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (write_own_log(tmp_path) / "spec.py").write_text(text)
    assert run(tmp_path) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_table_with_two_rows_of_an_id_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write_own_log(tmp_path) / "log" / "users.csv").write_text("who,city\nann,Oslo\nbob,\nann,Rome\n")
    assert run(tmp_path) == 2
    assert "users.csv: user_id, row 1: ann stands twice" in capsys.readouterr().err


def test_samples_are_never_read_as_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write_own_log(tmp_path), "--out", str(tmp_path / "log" / "out")) == 2
    assert "lies in --data" in capsys.readouterr().err


def test_datetimes_and_unsigned_ids(tmp_path: Path) -> None:
    log = random_log(0).with_columns(
        time=pl.from_epoch("time", time_unit="ms")
        .dt.replace_time_zone("Europe/Oslo")
        .cast(pl.Datetime("us", "Europe/Oslo")),
        item=pl.col("item").cast(pl.UInt64) + 2**63,
    )
    prepare_frame(log, tmp_path)
    samples = read_samples(tmp_path)
    assert samples["time"].min() == START - 7_200_000  # midnight in Oslo in April is 22:00 UTC
    assert samples["item_id"].max() < 0


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_fractional_times_become_the_nearest_millisecond(unit: str, tmp_path: Path) -> None:
    log = random_log(0).with_columns(pl.col("time") + 123)
    floats = log.with_columns(pl.col("time") * {"s": 1e-3, "ms": 1.0, "us": 1e3, "ns": 1e6}[unit])
    assert floats["time"].dtype == pl.Float64
    prepare_frame(floats, tmp_path, dataclasses.replace(SPEC, time_unit=unit))
    assert sorted(read_samples(tmp_path)["time"]) == sorted(log.unique()["time"])


def test_a_nan_birth_is_unknown(tmp_path: Path) -> None:
    log = random_log(0)
    prepare_frame(log, tmp_path / "null")
    prepare_frame(log.with_columns(pl.col("birth").cast(pl.Float64).fill_null(float("nan"))), tmp_path / "nan")
    null, nan = (read_samples(tmp_path / name).drop("path") for name in ("null", "nan"))
    assert null["item_age_h"].null_count() > 0
    assert_frame_equal(null, nan)


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["z", "y", "x", "zoe", "bob", "ann"])])
@pytest.mark.parametrize("coded", [("log",), ("table",), ("log", "table")])
def test_categories_are_joined_by_their_text(
    kind: pl.DataType | type[pl.DataType], coded: tuple[str, ...], tmp_path: Path
) -> None:
    for name in ("text", "coded"):
        log = write_own_log(tmp_path / name) / "log"
        if name == "coded" and "log" in coded:
            for file in (log / "events").iterdir():
                pl.read_parquet(file).with_columns(pl.col("who", "what").cast(kind)).write_parquet(file)
        if name == "coded" and "table" in coded:
            items = pl.read_parquet(log / "items.parquet")
            items.with_columns(pl.col("what").cast(kind)).write_parquet(log / "items.parquet")
        assert run(tmp_path / name) == 0
    text, codes = (read_samples(tmp_path / name).drop("path") for name in ("text", "coded"))
    assert set(text["item_author"]) == {string_id("A"), string_id("B"), None}
    assert_frame_equal(text, codes)


def test_rows_that_differ_in_a_category_are_two_events_in_any_files(tmp_path: Path) -> None:
    log = random_log(0, rows=1)
    (tmp_path / "log").mkdir()
    for name, words in (("a", ["news", "café"]), ("b", ["café", "news"]), ("c", ["news", "café"])):
        tag = pl.Series("tag", words[:1], pl.Enum(words))
        log.with_columns(tag).write_parquet(tmp_path / "log" / f"{name}.parquet")
    events = load_events(open_log(tmp_path / "log", SPEC))
    assert events.frame["place"].to_list() == [string_id("news"), string_id("café")]


def test_hash_strings_keeps_null_and_hashes_each_distinct_value_alike() -> None:
    hashed = hash_strings(pl.Series(["b", None, "a", "b", ""])).to_list()
    assert hashed == [string_id("b"), None, string_id("a"), string_id("b"), string_id("")]


def test_row_groups_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldrank.data.partitions.ROW_GROUP", 16)
    manifest = prepare_frame(random_log(0), tmp_path)
    for part in manifest["partitions"]:
        metadata = pq.ParquetFile(tmp_path / "out" / part["path"]).metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        assert sum(sizes) == part["rows"] and max(sizes) <= 16
    assert pa.types.is_list(pq.read_schema(tmp_path / "out" / part["path"]).field("hist_item_id").type)
    assert SPEC.period == "day" and {p["period"] for p in manifest["partitions"]} == {
        f"2022-04-1{d}" for d in range(5, 10)
    }


@pytest.mark.parametrize("seed", range(3))
def test_days_that_come_later_leave_the_files_of_earlier_ones_as_they_were(tmp_path: Path, seed: int) -> None:
    """With `--test-from` given; the log is prepared anew, as for a stream whose data grows."""
    log, test_from = random_log(seed), as_date(START // DAY_MS + 2)
    before = {}
    for days in (3, 5):
        folder = tmp_path / str(days)
        (folder / "log").mkdir(parents=True)
        log.filter(pl.col("time") < START + days * DAY_MS).write_parquet(folder / "log" / "events.parquet")
        opened = open_log(folder / "log", SPEC)
        split = lambda known: split_by_time(known.days, test_from, 1)
        content = prepare(opened, folder / "out", split, PrepareOptions(history=4, arguments={}))
        files = {p["path"]: (p, (folder / "out" / p["path"]).read_bytes()) for p in content["partitions"]}
        assert len(files) == days and before.items() <= files.items()
        before = files
