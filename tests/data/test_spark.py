"""`prepare --engine spark` makes the samples of the local engine, byte for byte, of logs of all shapes."""

import gzip
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from event_logs import DAY_MS, SPEC, START, random_log
from growing_logs import cut, write
from spark_logs import same, spark
from test_delays import SPECS, log_of

from coldrank.cli.main import main
from coldrank.data.errors import UserError
from coldrank.data.log import EventLog, Group, History, LogSpec
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, append, prepare
from coldrank.data.spark.job import TaskSizes
from coldrank.data.spark.prepare import TaskRows, prepare_on_spark
from coldrank.data.split import Split, split_by_share, split_by_users
from coldrank.data.whole import Known

Json = dict[str, Any]
__all__ = ["spark"]
# PySpark 4.1 leaves the socket of a `collect` to the garbage collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")]
SMALL = TaskSizes(read_rows=100, chunk_rows=60, state_rows=1000)


def by_share(known: Known) -> Split:
    return split_by_share(known.times)


def options(**more: Any) -> PrepareOptions:
    return PrepareOptions(**({"history": 4, "item_history": 3, "arguments": {"split": "time"}} | more))


def both(
    spark: Any, log: EventLog, folder: Path, rule: Any = by_share, sizes: TaskSizes = SMALL, **more: Any
) -> tuple[Json, TaskRows]:
    """Prepares a log by both engines, holds that they are the same; the manifest and the rows of Spark's tasks."""
    local, loads = prepare(log, folder / "local", rule, options(**more)), TaskRows()
    made = prepare_on_spark(spark, log, folder / "spark", rule, options(**more), sizes, loads)
    same(folder / "local", local, folder / "spark", made)
    return made, loads


@pytest.mark.parametrize("case", ["by event", "all"])
def test_delays_refreshes_and_histories(case: str, spark: Any, tmp_path: Path) -> None:
    for number, part in enumerate(cut(log_of(1), [START + DAY_MS, START + 3 * DAY_MS])):
        write(part, tmp_path / "log", str(number))
    both(spark, open_log(tmp_path / "log", SPECS[case]), tmp_path)


def test_the_simulators_log_by_the_command(spark: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--events", "20000", "--out", str(tmp_path / "log")]) == 0
    made = {}
    for engine in ("local", "spark"):
        command = ["prepare", "kuairand", "--data", str(tmp_path / "log"), "--out", str(tmp_path / engine)]
        assert main([*command, "--test-from", "2022-05-04", "--engine", engine]) == 0
        made[engine] = json.loads((tmp_path / engine / "manifest.json").read_text())
        assert made[engine]["arguments"]["engine"] == engine
    same(tmp_path / "local", made["local"], tmp_path / "spark", made["spark"])
    # What the commands say differs by the folder alone.
    said = [line for line in capfd.readouterr().out.splitlines() if "samples: train" in line]
    assert said[0].replace("local", "spark") == said[1]


HOT = LogSpec(
    user="viewer",
    item="clip",
    time="time",
    time_unit="s",
    tasks={"click": "click"},
    keys={"author": "author"},
    groups=(Group(keys=("author",), refresh_h=1.0), Group(keys=("user", "author"), parent="user")),
    history={"author": "author"},
    histories={"clicks": History(length=3, where="click", columns=("item_id", "hours"))},
    known_after={"click": 600},
)


def hot_log(rows: int) -> pl.DataFrame:
    """Text for ids; a tenth of all events, and half of those of one hour, are of one clip; users are few in number."""
    rng = np.random.default_rng(0)
    clip = np.where(rng.random(rows) < 0.1, 0, rng.integers(1, 500, rows))
    seconds = np.sort(rng.integers(0, 4 * 86_400, rows))
    seconds[rows // 2 : rows // 2 + rows // 10] = seconds[rows // 2] // 3600 * 3600 + rng.integers(0, 3600, rows // 10)
    return pl.DataFrame(
        {
            "viewer": [f"u{n}" for n in rng.zipf(1.3, rows) % 3000],
            "clip": [f"clip {n}" for n in clip],
            "time": START // 1000 + seconds,
            "click": rng.integers(0, 2, rows),
            "author": [f"a{n % 20}" if n else None for n in clip],
        }
    )


def test_no_task_has_a_hot_item_for_itself(spark: Any, tmp_path: Path) -> None:
    rows = 20_000
    # Each file has events of all days.
    for number in range(3):
        write(hot_log(rows).gather_every(3, number), tmp_path / "log", str(number))
    sizes = TaskSizes(read_rows=4000, chunk_rows=1500, file_rows=4000, state_rows=10000)
    log = open_log(tmp_path / "log", HOT)
    local = prepare(log, tmp_path / "local", by_share, options())
    loads = TaskRows()
    made = prepare_on_spark(spark, log, tmp_path / "spark", by_share, options(), sizes, loads)
    # The item alone has 2,000 events, an hour as many; the whole log's rate has all.
    assert max(loads.by_job["read"]) <= 4000 and max(loads.by_job["sort"]) <= 1500
    # A task looks at its samples' chunks, of which the first and the last may have other samples as well.
    assert max(loads.by_job["write"]) <= 4000 + 3 * 1500 and sum(loads.by_job["sort"]) == rows
    # A chunk says a row at most of a group, however many events it has.
    assert max(loads.by_job["compose"]) < 10000
    # Days of more than 4,000 events are cut into files; their rows are the same, in the same order.
    assert len(made["partitions"]) > len(local["partitions"])
    for split in ("train", "valid", "test"):
        one, other = (
            pl.concat(
                pl.read_parquet(tmp_path / name / p["path"], hive_partitioning=False)
                for p in m["partitions"] if p["split"] == split
            )
            for name, m in (("local", local), ("spark", made))
        )  # fmt: skip
        assert one.equals(other) and one.schema == other.schema
    kept = local.keys() - {"partitions", "state", "splits"}
    assert {n: local[n] for n in kept} == {n: made[n] for n in kept}


def text_log(folder: Path) -> LogSpec:
    """Days in folders, of CSV, gzip and JSON lines; anonymous users, vectors, a table, duplicates, empty values."""
    rng = np.random.default_rng(2)
    frame = random_log(2, 300).drop("birth").with_columns(
        user=pl.when(pl.Series(rng.random(300) < 0.2)).then(None).otherwise(pl.format("u{}", "user")),
        x=pl.Series([[i / 7, 1.5] if i % 3 else None for i in range(300)], dtype=pl.List(pl.Float64)),
        score=pl.Series([i / 3 if i % 4 else None for i in range(300)]),
    )  # fmt: skip
    days = frame.with_columns(day=pl.from_epoch("time", time_unit="ms").dt.date()).partition_by("day", as_dict=True)
    for number, ((day,), rows) in enumerate(sorted(days.items())):
        rows = pl.concat([rows.drop("day"), rows.drop("day").head(4)])
        text = "".join(json.dumps(row) + "\n" for row in rows.to_dicts()).encode()
        path = folder / f"day={day}" / f"part.jsonl{'.gz' if number % 2 else ''}"
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(text) if number % 2 else text)
    items = pl.DataFrame(
        {"id": range(7), "kind": ["a", "b", None, "a", "c", "a", "b"], "size": [i / 2 for i in range(7)]}
    )
    items.write_csv(folder / "items.csv")
    return replace(
        SPEC, anonymous="own", item_birth=None, context={"x": "x", "score": "score"}, numbers={"score": "score"},
        item_table="items.csv", item_table_id="id", item_features={"kind": "kind", "size": "size"}, formats=("jsonl",),
        day="day",
    )  # fmt: skip


def test_text_tables_vectors_and_anonymous_users(spark: Any, tmp_path: Path) -> None:
    log = open_log(tmp_path / "log", text_log(tmp_path / "log"))
    rule: Any = lambda known: split_by_users(known.users, 0.3, 0.2, 1)
    made, _ = both(spark, log, tmp_path, rule, arguments={"split": "users"})
    assert (
        made["counts"]["anonymous_events"] and made["counts"]["duplicates"] and made["counts"]["items_without_features"]
    )


@pytest.mark.parametrize("case", ["periods", "months", "kept duplicates, days apart"])
def test_periods(case: str, spark: Any, tmp_path: Path) -> None:
    frame = random_log(3, 250)
    # A day in the log's own calendar overlaps others in time.
    shift = pl.Series(np.random.default_rng(3).integers(-3, 4, 250) * 3_600_000)
    frame = frame.with_columns(dated=pl.from_epoch(pl.col("time") + shift, time_unit="ms").dt.date())
    spec, more = replace(SPEC, day="dated"), {}
    if case == "periods":
        more = {"periods": 7}
    elif case == "months":
        spec = replace(spec, period="month")
        frame = frame.with_columns(time=pl.col("time") + pl.col("item") * 9 * DAY_MS).with_columns(
            dated=pl.from_epoch("time", time_unit="ms").dt.date()
        )
    else:
        more = {"keep_duplicates": True}
        frame = pl.concat([frame, frame.head(20), frame.head(1).with_columns(time=pl.lit(START - 400 * DAY_MS))])
    write(frame, tmp_path / "log", "a")
    both(spark, open_log(tmp_path / "log", spec), tmp_path, **more)


def test_what_spark_has_prepared_is_added_to(spark: Any, tmp_path: Path) -> None:
    early, late = cut(log_of(4, 300).with_columns(user=pl.col("user") * 7), [START + 3 * DAY_MS])
    write(early, tmp_path / "log", "a")
    prepare_on_spark(spark, open_log(tmp_path / "log", SPECS["all"]), tmp_path / "out", by_share, options(), SMALL)
    write(late, tmp_path / "log", "b")
    log = open_log(tmp_path / "log", SPECS["all"])
    grown, whole = (
        append(log, tmp_path / "out", by_share, options()),
        prepare(log, tmp_path / "all", by_share, options()),
    )
    assert grown is not None
    one, other = (
        {(p["split"], p["period"]): (folder / p["path"]).read_bytes() for p in m["partitions"]}
        for folder, m in ((tmp_path / "out", grown), (tmp_path / "all", whole))
    )
    assert one == other


@pytest.mark.tried("logs", "--engine spark: a value that is none, in the midst of a file", "file, column and row")
def test_a_wrong_value_is_named_as_without_spark(spark: Any, tmp_path: Path) -> None:
    write(
        random_log(0).with_columns(click=pl.when(pl.int_range(160) == 111).then(7).otherwise("click")),
        tmp_path / "log",
        "a",
    )
    log = open_log(tmp_path / "log", SPEC)
    said = []
    for make in (prepare, partial(prepare_on_spark, spark)):
        with pytest.raises(UserError) as error:
            make(log, tmp_path / "out", by_share, options())  # type: ignore[operator]
        said.append(str(error.value))
    assert said[0] == said[1] and "row 112" in said[0]
    assert not (tmp_path / "out").exists()
