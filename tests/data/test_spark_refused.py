"""What `prepare --engine spark` refuses, in one line; and a preparation that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_logs import SPEC, random_log
from growing_logs import command, write
from spark_logs import CONF, same, skip_without_spark, spark

from coldrank.cli.main import main
from coldrank.data.errors import RowError, UserError
from coldrank.data.location import location
from coldrank.data.log import Negatives
from coldrank.data.own_log import open_log
from coldrank.data.partitions import DatedPeriods, EqualPeriods
from coldrank.data.prepare import PrepareOptions
from coldrank.data.spark import session, tasks
from coldrank.data.spark.job import SparkJob, TaskSizes
from coldrank.data.spark.plan import seen_whole, write_tasks
from coldrank.data.spark.prepare import prepare_on_spark
from coldrank.data.spark.sort import TimeChunk
from coldrank.data.split import Split, split_by_share
from coldrank.data.state.state import Shape
from coldrank.data.whole import Known, Whole

__all__ = ["spark"]
ANYTHING: Any = None
# PySpark 4.1 leaves the socket of a `collect` to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


REFUSED = {
    "--append": (["--engine", "spark", "--append"], "--append: not with --engine spark"),
    "--candidates": (["--engine", "spark", "--candidates", "a", "b"], "--engine: has no effect with --candidates"),
    "--spark-conf alone": (["--spark-conf", "spark.master=local"], "--spark-conf: has no effect with --engine local"),
    "--spark-conf that is none": (["--engine", "spark", "--spark-conf", "master"], "'master': should be a setting"),
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.tried("logs", f"--engine spark, {c}", "refused by name")) for c in REFUSED],
)
def test_options_that_do_not_go_with_it(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(random_log(0), tmp_path / "log", "a")
    more, line = REFUSED[case]
    try:
        assert command(tmp_path, *more) == 2
    except SystemExit as stopped:  # argparse's, with its usage
        assert stopped.code == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("PySpark", "--engine spark: pyspark is not installed; pip install 'coldrank[spark]'"),
        ("Java", "--engine spark: found no Java; install a runtime of Java 17 (Debian: apt-get install"),
        ("Spark Connect", "--engine spark: SPARK_REMOTE is set, but not with Spark Connect"),
    ],
    ids=["PySpark", "Java", "Spark Connect"],
)
def test_what_is_not_there_is_named(
    what: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if what == "PySpark":
        monkeypatch.setitem(sys.modules, "pyspark.sql", ANYTHING)
        monkeypatch.setitem(sys.modules, "pyspark", ANYTHING)
    else:
        pytest.importorskip("pyspark")
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
        if what == "Spark Connect":
            monkeypatch.setenv("SPARK_REMOTE", "sc://somewhere")
    write(random_log(0), tmp_path / "log", "a")
    assert command(tmp_path, "--engine", "spark") == 2
    assert said(capsys).startswith(f"coldrank prepare: {line}")
    assert not (tmp_path / "out").exists()


def test_settings_of_a_session_that_is_there(spark: Any) -> None:
    line = "--spark-conf spark.master: has no effect, as there is a Spark session"
    with pytest.raises(UserError, match=line), session.spark_session({"spark.master": "local"}):
        pass


def test_errors_of_tasks_come_as_they_are(spark: Any) -> None:
    def work(number: int) -> int:
        if number:
            raise RowError(f"file {number}", number, "bad")
        return number

    with session.quiet():
        assert tasks.called(spark, 1, work) == [0] and tasks.called(spark, 0, work) == []
        # Of several, the first task's, whichever fails first.
        with pytest.raises(UserError, match=r"^file 1, row 1: bad$"):
            tasks.called(spark, 3, work)

        def lacking(number: int) -> None:
            import a_module_of_the_driver  # type: ignore[import-not-found]  # noqa: F401

        with pytest.raises(UserError, match="the Python of the executors has no 'a_module_of_the_driver'; name one"):
            tasks.called(spark, 1, lacking)


def test_an_executor_that_does_not_see_the_folder(tmp_path: Path) -> None:
    log = open_log(_written(tmp_path), SPEC)
    (tmp_path / "out").mkdir()
    job = SparkJob.start(log, [], Shape.of(SPEC, 4, 0), tmp_path / "out" / ".prepare-x", TaskSizes(), False)
    with pytest.raises(UserError, match=r"--out .*/out: an executor on .* does not see the driver's folder"):
        job.new("slices", 0)


@pytest.mark.tried("logs", "--engine spark of a spec with negatives, or into an object store", "refused by name")
@pytest.mark.parametrize("case", ["negatives", "object store"])
def test_what_spark_does_not_do_is_named(case: str, tmp_path: Path) -> None:
    spec = replace(SPEC, negatives=Negatives(keys={"author": "item", "tag": "event"}))
    log, out, line = open_log(_written(tmp_path), spec), tmp_path / "out", "spec: negatives: not with --engine spark"
    if case == "object store":
        pytest.importorskip("upath")
        log, out, line = (
            replace(log, spec=SPEC),
            location("s3://bucket/data"),
            "--out s3://bucket/data: not with --engine",
        )
    with pytest.raises(UserError, match=line):
        prepare_on_spark(ANYTHING, log, out, by_share, PrepareOptions(history=4, arguments={}))
    assert not (tmp_path / "out").exists()


def by_share(known: Known) -> Split:
    return split_by_share(known.times)


def _written(folder: Path) -> Path:
    write(random_log(0), folder / "log", "a")
    return folder / "log"


def chunk(first: int, last: int, counted: int, days: dict[int, int]) -> TimeChunk:
    rows = sum(days.values())
    return TimeChunk(
        path=Path(),
        times=Path(),
        rows=rows,
        rows_read=rows,
        whole=Whole(),
        total={},
        first=first,
        last=last,
        counted=counted,
        days=np.array(list(days), np.int32),
        day_rows=np.array(list(days.values())),
        users=np.empty(0, np.int64),
    )


def test_a_period_is_of_one_task_unless_it_is_long() -> None:
    chunks = [
        chunk(0, 1, 1, {0: 30, 1: 5}),
        chunk(2, 3, 3, {0: 2, 1: 40}),
        chunk(4, 5, 5, {2: 60}),
        chunk(6, 7, 7, {2: 60}),
    ]
    found = write_tasks(chunks, DatedPeriods(10), file_rows=100, cores=1)
    assert [t.parts for t in found] == [
        {0: {"1970-01-01"}, 1: {"1970-01-01"}},
        {0: {"1970-01-02"}, 1: {"1970-01-02"}},
        {2: {"1970-01-03"}},
        {3: {"1970-01-03"}},
    ]
    assert [t.rows for t in found] == [32, 45, 60, 60]
    # Small ones go together.
    found = write_tasks(chunks[:2], DatedPeriods(7), file_rows=1000, cores=1)
    assert [(t.parts, t.rows) for t in found] == [({0: {"1970-01"}, 1: {"1970-01"}}, 77)]
    equal = write_tasks(chunks, EqualPeriods(2, 197), file_rows=1000, cores=100)
    assert [(t.parts, t.rows) for t in equal] == [({0: {"p1"}, 1: {"p1"}, 2: {"p1"}}, 99), ({2: {"p2"}, 3: {"p2"}}, 98)]


def test_a_state_holds_the_chunks_that_are_seen_whole() -> None:
    shape = Shape.of(SPEC, 4, 0)
    # An outcome of the second chunk is known within the fourth.
    chunks = [chunk(0, 9, 9, {0: 1}), chunk(10, 19, 35, {0: 1}), chunk(20, 29, 29, {0: 1}), chunk(30, 39, 39, {0: 1})]
    assert seen_whole(chunks, shape) == [0, 1, 1, 1, 4]


@pytest.mark.tried(
    "data folders", "prepare --engine spark killed while it writes", "the old is read; again, it is whole"
)
def test_a_kill_leaves_the_folder_as_it_was(spark: Any, tmp_path: Path) -> None:
    write(random_log(1), tmp_path / "log", "a")
    assert command(tmp_path) == 0
    out = tmp_path / "out"
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for number in range(2):
        write(random_log(number + 2, 3000), tmp_path / "log", f"b{number}")
    paths = ["--data", tmp_path / "log", "--spec", tmp_path / "spec.py", "--out", out]
    settings = [word for name, value in CONF.items() for word in ("--spark-conf", f"{name}={value}")]
    process = subprocess.Popen(
        [sys.executable, "-m", "coldrank.cli.main", "prepare", "log", *paths, "--engine", "spark", *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not list(out.glob(".prepare-*/files/*/samples")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(out.glob(".prepare-*")) and {p: p.read_bytes() for p in before} == before
    assert command(tmp_path, "--engine", "spark") == 0
    made = json.loads((out / "manifest.json").read_text())
    assert main(["prepare", "log", *map(str, paths[:-1]), str(tmp_path / "local")]) == 0
    same(tmp_path / "local", json.loads((tmp_path / "local" / "manifest.json").read_text()), out, made)


def test_the_session_is_skipped_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(pytest.skip.Exception):
        skip_without_spark()
