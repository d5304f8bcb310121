"""Which files of a folder are a log, and what the names of its folders say."""

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from event_logs import DAY_MS, START
from test_kuairand import HEADER, days, write_log
from test_movielens import RATINGS, write_1m

from coldrank.cli.main import main
from coldrank.data.errors import UserError
from coldrank.data.kuairand import open_kuairand
from coldrank.data.log import LogSpec
from coldrank.data.movielens import open_movielens
from coldrank.data.own_log import open_log
from coldrank.data.spool import load_events

SPEC = LogSpec(user="user", item="item", time="time", tasks={"click": "click"}, context={"n": "n"})
SPEC_FILE = """
from coldrank.data.log import LogSpec
spec = LogSpec(user="user", item="item", time="time", tasks={"click": "click"}, context={"n": "n"})
"""


def put(path: Path, *numbers: int, **columns: object) -> Path:
    """An event a number, each of its own day; `n` says which."""
    path.parent.mkdir(parents=True, exist_ok=True)
    events = {"user": 1, "item": 2, "click": 1, **columns}
    frame = pl.DataFrame(
        {"n": numbers, "time": [START + n * DAY_MS for n in numbers]}, schema_overrides={"n": pl.Int64}
    )
    frame.with_columns(pl.lit(v).alias(k) for k, v in events.items()).write_parquet(path)
    return path


def read(folder: Path, spec: LogSpec = SPEC) -> list[int]:
    return load_events(open_log(folder, spec)).frame["n"].to_list()


def left_out(folder: Path) -> list[str]:
    return [str(left) for left in open_log(folder, SPEC).left_out]


def linked_folder(log: Path) -> None:
    put(log.parent / "elsewhere" / "b.parquet", 2)
    (log / "more").symlink_to(log.parent / "elsewhere")


def linked_file(log: Path) -> None:
    (log / "b.parquet").symlink_to(put(log.parent / "elsewhere" / "b.parquet", 2))


def folder_that_ends_in_parquet(log: Path) -> None:
    put(log / "day.parquet" / "part-0.snappy.parquet", 2)


def loop(log: Path) -> None:
    put(log / "x" / "b.parquet", 2)
    (log / "x" / "back").symlink_to(log)
    (log / "x" / "self").symlink_to(log / "x")


def patterns(log: Path) -> None:
    put(log / "[ab]*.parquet", 2)


READ: list[tuple[str, Callable[[Path], object], str]] = [
    ("a linked folder", linked_folder, ""),
    ("a link to a file", linked_file, ""),
    ("a link to a folder around it", loop, "x/back/, x/self/ (the same as the folder that it lies in)"),
    ("a folder that is named like a file", folder_that_ends_in_parquet, ""),
    ("a name that looks like a pattern", patterns, ""),
    *(
        (f"`b{ending}` beside `a.parquet`", lambda log, ending=ending: put(log / f"b{ending}", 2), "")
        for ending in (".PARQUET", ".parq", ".Pq")
    ),
]


@pytest.mark.parametrize(
    ("add", "listed"),
    [pytest.param(add, listed, marks=pytest.mark.tried("logs", case, "read")) for case, add, listed in READ],
)
def test_what_is_read(add: Callable[[Path], object], listed: str, tmp_path: Path) -> None:
    put(tmp_path / "log" / "a.parquet", 1)
    add(tmp_path / "log")
    assert read(tmp_path / "log") == [1, 2]
    lines = left_out(tmp_path / "log")
    assert any(listed in line for line in lines) if listed else lines == []


def second_link(log: Path) -> None:
    (log / "b.parquet").symlink_to(log / "a.parquet")
    os.link(log / "a.parquet", log / "c.parquet")


def not_parquet(log: Path) -> None:
    for name in ("README.md", "b.json", "c.parquet.crc"):
        (log / name).touch()


DELTA = "a Delta table's own; the files beside it are read as they lie, also those that it has replaced"
LEFT_OUT: list[tuple[str, Callable[[Path], object], list[str]]] = [
    ("the same file under three names", second_link, ["b.parquet, c.parquet (the same as a.parquet)"]),
    ("files of other kinds", not_parquet, ["README.md, b.json, c.parquet.crc (not Parquet, CSV, TSV or JSON lines)"]),
    ("a file without rows", lambda log: put(log / "b.parquet"), ["b.parquet (no rows)"]),
    *(
        (f"`{name}`", lambda log, name=name: put(log / name, 2), [f"{name.split('/')[0]}/ (name begins with _ or .)"])
        for name in ("_temporary/0/b.parquet", ".ipynb_checkpoints/a.parquet")
    ),
    ("`_b.parquet`", lambda log: put(log / "_b.parquet", 2), ["_b.parquet (name begins with _ or .)"]),
    (
        "a Delta table",
        lambda log: put(log / "_delta_log" / "00000010.checkpoint.parquet", 2),
        [f"_delta_log/ ({DELTA})"],
    ),
]


@pytest.mark.parametrize(
    ("add", "listed"),
    [
        pytest.param(add, listed, marks=pytest.mark.tried("logs", case, "left out, and named"))
        for case, add, listed in LEFT_OUT
    ],
)
def test_what_is_left_out(add: Callable[[Path], object], listed: list[str], tmp_path: Path) -> None:
    put(tmp_path / "log" / "a.parquet", 1)
    add(tmp_path / "log")
    assert read(tmp_path / "log") == [1] and left_out(tmp_path / "log") == listed


def link_to_nothing(log: Path) -> None:
    (log / "b.parquet").symlink_to(log / "gone")


def broken(log: Path) -> None:
    (log / "b.parquet").write_bytes(b"PAR1 and no more")


def nothing(log: Path) -> None:
    (log / "a.parquet").unlink()


def only_others(log: Path) -> None:
    (log / "a.parquet").rename(log / "a.txt")


def two_values(log: Path) -> None:
    put(log / "ch=1" / "b.parquet", 2)
    (log / "ch=2").symlink_to(log / "ch=1")


def contradiction(log: Path) -> None:
    put(log / "ch=2" / "b.parquet", 2, 3, ch=1)


def named_twice(log: Path) -> None:
    put(log / "ch=2" / "ch=3" / "b.parquet", 2)


REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    ("a link to nothing", link_to_nothing, r"log/b.parquet: a link that leads nowhere \(No such file"),
    ("a broken file", broken, r"log/b.parquet: "),
    ("an empty file", lambda log: (log / "b.parquet").touch(), r"log/b.parquet: "),
    ("an empty folder", nothing, r"--data .*log: no file with events there$"),
    (
        "a folder without a file of a format that is read",
        only_others,
        r"no file with events there; left out: a.txt \(not Parquet, CSV",
    ),
    (
        "one folder linked as `ch=1` and `ch=2`",
        two_values,
        r"log/ch=2: the same as .*ch=1, under folders that name other",
    ),
    (
        "a column that contradicts its folder",
        contradiction,
        r"b.parquet: column ch, row 1: 1, but the folder says ch=2",
    ),
    ("a column that two folders name", named_twice, r"b.parquet: two folders name the column 'ch'"),
]


@pytest.mark.parametrize(
    ("add", "message"),
    [pytest.param(add, line, marks=pytest.mark.tried("logs", case, "refused")) for case, add, line in REFUSED],
)
def test_what_is_refused(add: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    put(tmp_path / "log" / "a.parquet", 1)
    add(tmp_path / "log")
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / "log")
    assert "\n" not in str(error.value)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "log" / "a.parquet", 1).rename(tmp_path / "log" / os.fsdecode(b"\xff.parquet"))
    with pytest.raises(UserError, match=r"log: '\\udcff.parquet': a name that is not UTF-8"):
        read(tmp_path / "log")


@pytest.mark.tried("logs", "a broken file whose name holds a line break", "refused in one line")
def test_a_name_with_a_line_break_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (put(tmp_path / "log" / "a.parquet", 1).parent / "b\nc.parquet").write_bytes(b"no Parquet")
    (tmp_path / "spec.py").write_text(SPEC_FILE)
    arguments = ["--data", str(tmp_path / "log"), "--spec", str(tmp_path / "spec.py"), "--out", str(tmp_path / "out")]
    assert main(["prepare", "log", *arguments]) == 2
    error = capsys.readouterr().err
    assert r"log/b\nc.parquet: " in error and error.count("\n") == 1


COLUMNS = [
    ("ch=0 and ch=12", ["ch=0", "ch=12"], [0, 12]),
    ("ch=1 and ch=x y (escaped)", ["ch=1", "ch=x%20y"], ["1", "x y"]),
    ("ch=01 and ch=2", ["ch=01", "ch=2"], ["01", "2"]),
    ("ch=2 and null", ["ch=2", "ch=__HIVE_DEFAULT_PARTITION__"], [2, None]),
    ("ch=0.5 and ch=2", ["ch=0.5", "ch=2"], [0.5, 2.0]),
    ("days", ["ch=2022-05-04", "ch=2022-05-05"], [date(2022, 5, 4), date(2022, 5, 5)]),
    ("a day that there is not", ["ch=2022-02-28", "ch=2022-02-30"], ["2022-02-28", "2022-02-30"]),
    ("integers beyond 63 bits", ["ch=1", f"ch={2**64 - 1}"], [1, 2**64 - 1]),
    ("integers beyond 64 bits", ["ch=1", f"ch={2**64}"], ["1", str(2**64)]),
    ("an escaped name", ["a/%63h=7", "b/ch=8"], [7, 8]),
]


@pytest.mark.parametrize(
    ("folders", "values"),
    [
        pytest.param(folders, values, marks=pytest.mark.tried("logs", f"folders named {case}", "a column of one type"))
        for case, folders, values in COLUMNS
    ],
)
def test_columns_in_the_names_of_folders(folders: list[str], values: list[object], tmp_path: Path) -> None:
    for n, folder in enumerate(folders):
        put(tmp_path / "log" / folder / "a.parquet", n)
    log = open_log(tmp_path / "log", SPEC)
    assert [f.frame.collect()["ch"].to_list() for f in log.files] == [[v] for v in values]
    assert len({f.frame.collect_schema()["ch"] for f in log.files}) == 1


@pytest.mark.tried("logs", "a column in the file and, equal, in its folder's name", "read once")
@pytest.mark.parametrize(
    ("folder", "value"),
    [
        ("ch=2", 2),
        ("ch=02", 2),
        ("ch=2", 2.0),
        ("ch=x", "x"),
        ("ch=x", b"x"),
        ("ch=true", True),
        ("ch=2022-05-04", date(2022, 5, 4)),
    ],
)
def test_a_folder_may_repeat_a_column(folder: str, value: object, tmp_path: Path) -> None:
    put(tmp_path / "log" / folder / "a.parquet", 1, 2, ch=value)
    assert open_log(tmp_path / "log", SPEC).files[0].frame.collect()["ch"].to_list() == [value] * 2


def test_tables_are_no_events_wherever_they_lie(tmp_path: Path) -> None:
    put(tmp_path / "log" / "a.parquet", 1)
    ids = pl.DataFrame({"user_id": [1], "n": [7]})
    (tmp_path / "log" / "users").mkdir()
    ids.write_parquet(tmp_path / "log" / "users" / "part-0.PARQUET")
    spec = LogSpec(
        user="user", item="item", time="time", tasks={"click": "click"}, user_table="users", context={"n": "n"}
    )
    assert read(tmp_path / "log", spec) == [1] and open_log(tmp_path / "log", spec).left_out == ()
    (tmp_path / "log" / "users").rename(tmp_path / "log" / "_users")
    (tmp_path / "log" / "users").symlink_to(tmp_path / "log" / "_users")
    assert read(tmp_path / "log", spec) == [1]


@pytest.mark.tried("logs", "a log of several files", "files, rows and days are printed, and what was left out")
def test_what_was_read_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    put(log / "day[12].parquet", 1, 2)
    put(log / "day1.parquet", 3, 4)
    put(log / "none.parquet")
    (tmp_path / "spec.py").write_text(SPEC_FILE)
    for i in range(7):
        (log / f"{i}.txt").touch()
    arguments = ["--data", str(log), "--spec", str(tmp_path / "spec.py"), "--out", str(tmp_path / "out")]
    assert main(["prepare", "log", *arguments, "--valid-days", "1"]) == 0
    read = "2 files, 4 rows, 4 days read"
    others = "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more (not Parquet, CSV, TSV or JSON lines)"
    left_out = f"{others}; none.parquet (no rows)"
    assert f"{read}; left out: {left_out}\n" in capsys.readouterr().out


@pytest.mark.tried("logs", "KuaiRand's files with endings in capitals", "read")
def test_kuairand_in_any_case(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", days()[:3])
    for path in list(log.iterdir()):
        path.rename(log / path.name.replace(".csv", ".CSV"))
    (log / "LOG_more.csv").write_text(HEADER + "".join(days()[3:]))
    (log / "log_random_x.Csv").touch()
    opened = open_kuairand(log)
    assert len(load_events(opened).time) == 5
    listed = ["log_random_x.Csv (read with --include-random)"]
    assert [str(left) for left in opened.left_out if "random" in str(left)] == listed


@pytest.mark.tried("logs", "MovieLens' files in capitals", "read")
def test_movielens_in_any_case(tmp_path: Path) -> None:
    for path in list(write_1m(tmp_path).iterdir()):
        path.rename(tmp_path / path.name.upper())
    (tmp_path / "README").touch()
    log = open_movielens(tmp_path)
    assert len(load_events(log).time) == len(RATINGS) and log.users is not None
    assert [str(left) for left in log.left_out] == ["README (not of the layout)"]
    (tmp_path / "Ratings.dat").touch()
    with pytest.raises(UserError, match=r"RATINGS.DAT and Ratings.dat: which one\?"):
        open_movielens(tmp_path)
