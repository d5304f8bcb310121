"""Logs that are text: CSV, TSV and JSON lines give the samples of the same log in Parquet, or a line that names the
fault."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from event_logs import DAY_MS, SPEC, START, prepare_log, random_log, read_samples

from coldrank.cli.main import main
from coldrank.data.errors import UserError
from coldrank.data.ids import string_id
from coldrank.data.log import LogSpec
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, append, prepare
from coldrank.data.split import split_by_time
from coldrank.data.spool import load_events
from coldrank.data.text import csv_rows
from coldrank.data.text import file as text_file
from coldrank.data.text.settle import blocks

PLAIN = LogSpec(user="user", item="item", time="time", tasks={"click": "click"}, context={"x": "x"})
HEAD = "user,item,time,click,x\n"


def compressed(path: Path, text: bytes) -> Path:
    """Writes text as the ending of its file says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text))
    elif path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(text)
    else:
        path.write_bytes(text)
    return path


def as_text(frame: pl.DataFrame, kind: str) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in frame.to_dicts()).encode()
    return frame.write_csv(separator="\t" if kind == "tsv" else ",").encode()


def events(folder: Path, spec: LogSpec = PLAIN) -> pl.DataFrame:
    return load_events(open_log(folder, spec)).frame


def rows(values: list[str], first: int = 0) -> str:
    """An event an hour for each value of the column x."""
    return HEAD + "".join(f"1,2,{START + 3_600_000 * (first + i)},1,{v}\n" for i, v in enumerate(values))


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(
            e, marks=pytest.mark.tried("logs", f"a log of `{e}` files", "the samples of the same log in Parquet")
        )
        for e in ("csv", "csv.gz", "csv.zst", "tsv", "tsv.gz", "jsonl", "ndjson.zst", "JSONL.gz")
    ],
)
def test_text_gives_the_samples_of_parquet(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two folders that name a column, in blocks of 7 rows."""
    monkeypatch.setattr("coldrank.data.text.settle.BLOCK_ROWS", 7)
    log = random_log(3).with_columns(tag=pl.when(pl.col("tag") == "news").then(pl.lit('a, "b"\nc')).otherwise("tag"))
    spec = replace(SPEC, context={"place": "tag", "ch": "ch"})
    kind = {"ndjson": "jsonl"}.get(ending.split(".")[0].lower(), ending.split(".")[0].lower())
    for n, part in enumerate((log[:90], log[90:])):
        (tmp_path / "parquet" / "log" / f"ch={n}").mkdir(parents=True)
        part.write_parquet(tmp_path / "parquet" / "log" / f"ch={n}" / "a.parquet")
        compressed(tmp_path / "text" / "log" / f"ch={n}" / f"a.{ending}", as_text(part, kind))
    made = {n: prepare_log(open_log(tmp_path / n / "log", spec), tmp_path / n) for n in ("parquet", "text")}
    assert made["text"]["columns"] == made["parquet"]["columns"]
    assert read_samples(tmp_path / "text").drop("path").equals(read_samples(tmp_path / "parquet").drop("path"))
    assert made["text"]["counts"] == made["parquet"]["counts"]


# Values of a column over two files -> its type, and its values.
SETTLED: list[tuple[str, list[str], list[str], Any, list[Any]]] = [
    ("integers", ["1", "-2", ""], ["3"], pl.Int64, [1, -2, None, 3]),
    ("`1.0` beside `1`", ["1", "2.0"], ["3.00"], pl.Int64, [1, 2, 3]),
    ("fractions beside integers", ["1", "2"], ["0.5", "1e2"], pl.Float32, [1.0, 2.0, 0.5, 100.0]),
    ("`true` and `False`", ["true", ""], ["False"], pl.Int64, [1, None, 0]),
    ("integers from 2^63 on", ["1", str(2**63)], [str(2**64 - 1)], pl.Int64, [1, -(2**63), -1]),
    ("integers in one file, text in the other", ["1", "2"], ["a"], pl.Int64, [*map(string_id, "12a")]),
    ("leading zeros", ["1", "2"], ["007"], pl.Int64, [*map(string_id, ["1", "2", "007"])]),
    ("integers beyond 64 bits", ["1"], [str(2**64)], pl.Int64, [string_id("1"), string_id(str(2**64))]),
    ("`NA` beside other text", ["NA", "FR"], ["1"], pl.Int64, [*map(string_id, ["NA", "FR", "1"])]),
    ("empty in one file", ["", ""], ["0.5"], pl.Float32, [None, None, 0.5]),
    ("empty throughout", ["", ""], [""], pl.Int64, [None, None, None]),
]


@pytest.mark.parametrize(
    ("first", "second", "kind", "values"),
    [
        pytest.param(*r, marks=pytest.mark.tried("logs", f"a column of CSV: {g}", "one type over all files"))
        for g, *r in SETTLED
    ],
)
def test_types_are_settled_over_all_files(
    first: list[str], second: list[str], kind: Any, values: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(rows(first))
    (tmp_path / "b.csv").write_text(rows(second, len(first)))
    found = events(tmp_path)["x"]
    assert found.dtype == kind and found.to_list() == values


def test_json_has_types_of_its_own(tmp_path: Path) -> None:
    base = {"user": "7", "item": 2**63 + 5, "click": True}
    of_line = [
        {"x": 1, "page": {"url": "a", "n": 1}, "tags": [1, None], "words": ["é"], "rest": [{"a": 1}]},
        {"x": 0.5, "page": {"url": None}, "tags": [], "words": []},
        {"tags": None, "more": 3, "rest": []},
    ]
    lines = [json.dumps(base | {"time": START + i * DAY_MS} | extra) for i, extra in enumerate(of_line)]
    (tmp_path / "a.jsonl").write_text("\n\n".join(lines))
    names = ("x", "page.url", "page.n", "tags", "words", "more", "rest")
    spec = replace(PLAIN, context={n.replace(".", "_"): n for n in names})
    frame = events(tmp_path, spec)
    assert frame["user_id"].to_list() == [string_id("7")] * 3 and frame["item_id"].to_list() == [-(2**63) + 5] * 3
    assert frame["label_click"].to_list() == [1, 1, 1] and frame["x"].to_list() == [1.0, 0.5, None]
    assert frame["page_url"].to_list() == [string_id("a"), None, None] and frame["page_n"].to_list() == [1, None, None]
    assert frame["tags"].to_list() == [[1], [], []] and frame["words"].to_list() == [[string_id("é")], [], []]
    assert frame["more"].to_list() == [None, None, 3]
    assert frame["rest"].to_list() == [string_id('[{"a":1}]'), None, string_id("[]")]


@pytest.mark.tried("logs", "CSV with `;`, without a header, `NA` for unknown", "read as the spec says")
def test_a_dialect(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(f"1;2;{START};1;NA\r\n1;3;{START};0;'a;b'\r\n\r\n".encode())
    spec = replace(PLAIN, separator=";", quote="'", header=("user", "item", "time", "click", "x"), null_values=("NA",))
    assert events(tmp_path, spec)["x"].to_list() == [None, string_id("a;b")]


@pytest.mark.tried("logs", "CSV with decimal commas", "read with `decimal=','`, without it refused with a hint")
def test_decimal_commas(tmp_path: Path) -> None:
    head = HEAD.replace(",", ";")
    values = ["-0,25", "3", "1,5e2", "", ",5"]
    (tmp_path / "a.csv").write_text(head + "".join(f"u{i};2;{START};1;{v}\n" for i, v in enumerate(values)))
    spec = replace(PLAIN, separator=";", decimal=",")
    frame = events(tmp_path, spec)
    by_user = dict(zip(frame["user_id"], frame["x"], strict=True))
    numbers = [by_user[string_id(f"u{i}")] for i in range(5)]
    assert numbers == [-0.25, 3.0, 150.0, None, 0.5]
    (tmp_path / "a.csv").write_text(f"{head}1;2;{START};1;-0,25\n1;3;{START};1;3\n")
    with pytest.raises(UserError, match=r"line 2: '-0,25' is what may mean unknown, but a number in .*; decimal=','"):
        events(tmp_path, replace(PLAIN, separator=";"))
    (tmp_path / "b.csv").write_text(f"{head}1;2;{START};1;1.5\n")
    with pytest.raises(UserError, match=r"b.csv: column x, line 2: '1.5' is what may mean unknown"):
        events(tmp_path, spec)


@pytest.mark.tried("logs", "decimal commas in texts, and points in JSON lines beside them", "are what they are")
def test_decimal_commas_change_no_text_and_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEAD + f'u,2,{START},1,"1,5"\nu,3,{START},1,b\n')
    assert events(tmp_path, replace(PLAIN, decimal=","))["x"].to_list() == [string_id("1,5"), string_id("b")]
    (tmp_path / "a.csv").write_text(HEAD + f'1,2,{START},1,"1,5"\n')
    (tmp_path / "b.jsonl").write_text(json.dumps({"user": 1, "item": 3, "time": START, "click": 1, "x": 2.5}) + "\n")
    spec = replace(PLAIN, decimal=",", formats=("csv", "jsonl"))
    assert events(tmp_path, spec)["x"].to_list() == [1.5, 2.5]


@pytest.mark.tried("logs", "CSV with the mark of UTF-8 at its head, as Excel writes it", "read")
def test_the_mark_of_utf8_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeff" + rows(["5"]), encoding="utf-8")
    assert events(tmp_path)["x"].to_list() == [5]


ROW = f"1,2,{START},1,"
FAULTS: list[tuple[str, str, bytes, str]] = [
    ("a row of too few fields", "a.csv", f"{HEAD}{ROW}5\n1,2\n".encode(), "column time, line 3: 2 fields; should be 5"),
    ("a row of too many fields", "a.csv", f"{HEAD}{ROW}5,6\n".encode(), "line 2: 6 fields; should be 5"),
    (
        "too many fields after a row of two lines",
        "a.tsv",
        f'{HEAD}{ROW}"a\nb"\n\n{ROW}5,6\n'.replace(",", "\t").encode(),
        "line 5: 6 fields",
    ),
    (
        "a quote within a quoted field",
        "a.csv",
        f'{HEAD}{ROW}5\n1,"b"c,{START},1,5\n'.encode(),
        "column item, line 3: a quote within a quoted field",
    ),
    (
        "a quote that is never closed",
        "a.csv",
        f'{HEAD}{ROW}5\n{ROW}"b\n{ROW}7\n'.encode(),
        "column x, line 3: a quote that is opened is never closed",
    ),
    (
        "lines that end with carriage returns",
        "a.csv",
        f"{HEAD}{ROW}5\n{ROW}6\r{ROW}7\n".encode(),
        "line 3: a carriage return within a row",
    ),
    (
        "a field of 200,000 characters",
        "a.csv",
        f"{HEAD}{ROW}{'5' * 200_000}\n".encode(),
        "column x, line 2: a field of more than 131,072 characters",
    ),
    (
        "bytes that are not UTF-8",
        "a.csv",
        f"{HEAD}{ROW}5\n{ROW}".encode() + b"\xff\n",
        r"column x, line 3: .*not UTF-8",
    ),
    (
        "bytes that are not UTF-8",
        "a.jsonl",
        b'{"user": 1}\n{"user": 1, "x": "\xff"}\n',
        r"column x, line 2: .*not UTF-8",
    ),
    ("text of UTF-16", "a.csv", (HEAD + ROW).encode("utf-16"), "not UTF-8"),
    (
        "a column that stands twice",
        "a.csv",
        b"user,item,user\n1,2,3\n",
        "column user, line 1: stands twice in the header",
    ),
    (
        "`NA` beside numbers",
        "a.csv",
        rows(["1", "NA"]).encode(),
        "column x, line 3: 'NA' is what may mean unknown, but",
    ),
    ("`NA` throughout", "a.csv", rows(["NA"]).encode(), "column x, line 2: 'NA' is what may .* null_values"),
    ("a comma in numbers", "a.csv", rows(['"0,5"', "1"]).encode(), "column x, line 2: '0,5' is what may"),
    ("`true` beside numbers", "a.csv", rows(["true", "1"]).encode(), "line 2: 'true' is true or false, but a number"),
    ("a line that is no JSON", "a.jsonl", b'{"user": 1}\n{"user": 1,\n', "line 2: is no JSON: Expecting"),
    ("a line that is no object", "a.jsonl", b'{"user": 1}\n\n[1]\n', "line 3: should be an object"),
    (
        "a field that stands twice",
        "a.jsonl",
        b'{"user": 1, "user": 2}\n',
        "line 1: is no JSON: the field 'user' stands twice",
    ),
    (
        "an object's field that another is named like",
        "a.jsonl",
        b'{"a.b": 1, "a": {"b": 2}}\n',
        "line 1: the field 'a.b' stands twice",
    ),
    (
        "numbers and text in a field of JSON",
        "a.jsonl",
        b'{"x": 1}\n{"x": "1"}\n',
        "column x, line 2: text, but a number in line 1",
    ),
    (
        "numbers and text in the lists of a field",
        "a.jsonl",
        b'{"x": [1]}\n{"x": ["1"]}\n',
        "column x, line 2: .*a list with text, but a list with a number",
    ),
    (
        "a gzip file that is cut off",
        "a.csv.gz",
        gzip.compress(rows(["5"] * 9).encode(), mtime=0)[:-12],
        "is no whole gzip file",
    ),
    (
        "a gzip file that is none",
        "a.csv.gz",
        rows(["5"]).encode(),
        "after line 0: is no whole gzip file: Not a gzipped",
    ),
    ("a zstd file that is none", "a.csv.zst", rows(["5"]).encode(), "after line 0: is no whole zstd file"),
    ("no such column", "a.csv", b"user,item\n1,2\n", "no column 'time'; it has user, item"),
    (
        "a label that is no number",
        "a.csv",
        f"{HEAD}1,2,{START},yes,5\n".encode(),
        r"column click \(label_click\): type String",
    ),
    (
        "an id with a fraction",
        "a.csv",
        f"{HEAD}1.5,2,{START},1,5\n".encode(),
        r"column user \(user_id\), row 1: 1.5; should",
    ),
]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param(
            *r,
            marks=pytest.mark.tried("logs", f"`{r[0].partition('.')[2]}`: {g}", "refused, with file and line"),
            id=f"{r[0]}: {g}",
        )
        for g, *r in FAULTS
    ],
)
def test_faults_are_named(name: str, text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(UserError, match=f"{name}: .*{message}|{name}: {message}") as error:
        events(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.tried("logs", "a zstd file that is cut off", "refused, with the lines before")
def test_a_zstd_file_that_is_cut_off(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.jsonl.zst", b"".join(b'{"x": %d}\n' % (i * 7919) for i in range(20_000)))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"a.jsonl.zst: after line \d+: is no whole zstd file: Truncated"):
        events(tmp_path)


@pytest.mark.tried("logs", "a line of more than 64 MiB", "refused, with the line")
def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldrank.data.text.lines._LONGEST", 1000)
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n' + "x" * 70_000)
    with pytest.raises(UserError, match="a.jsonl: line 2: is longer than 64 MiB"):
        events(tmp_path)


def put(folder: Path, name: str, first: int = 0) -> None:
    compressed(folder / name, as_text(pl.read_csv(rows([str(first)], first).encode()), name.split(".")[1]))


@pytest.mark.tried("logs", "files of two formats in one folder", "refused, unless the spec names what is read")
def test_files_of_two_formats(tmp_path: Path) -> None:
    put(tmp_path, "a.csv")
    put(tmp_path, "b.jsonl", 1)
    pl.read_csv(rows(["2"], 2).encode()).write_parquet(tmp_path / "c.parquet")
    message = r"holds files of csv \(a.csv\) and jsonl \(b.jsonl\) and parquet \(c.parquet\): which are events\?"
    with pytest.raises(UserError, match=message):
        events(tmp_path)
    both = replace(PLAIN, formats=("csv", "parquet"))
    assert events(tmp_path, both)["x"].to_list() == [0, 2]
    assert [str(left) for left in open_log(tmp_path, both).left_out] == ["b.jsonl (not CSV or Parquet)"]
    assert events(tmp_path, replace(PLAIN, formats=("parquet", "csv", "jsonl")))["x"].to_list() == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(*r, marks=pytest.mark.tried("logs", f"a spec with {g}", "refused"))
        for g, *r in [
            (
                "`formats` of none that is read",
                {"formats": ("xml",)},
                "formats: 'xml' is none; should be among parquet, csv",
            ),
            ("a separator of two characters", {"separator": "::"}, "separator='::'; should be one character"),
            ("one sign as quote and separator", {"separator": "'", "quote": "'"}, 'quote and separator are both "\'"'),
            ("`null_values` where nothing is CSV", {"null_values": ("NA",)}, "null_values: has no effect"),
            ("a decimal sign of another kind", {"decimal": "'"}, "decimal=\"'\"; should be '.' or ','"),
            ("a decimal sign where nothing is CSV", {"decimal": ","}, "decimal: has no effect, as no file of events"),
            ("a separator where nothing is CSV", {"separator": ";"}, "separator: has no effect, as no file of events"),
        ]
    ],
)
def test_fields_that_cannot_be(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl")
    with pytest.raises(UserError, match=f"spec: {message}"):
        open_log(tmp_path, replace(PLAIN, **change))


@pytest.mark.tried("logs", "text files without a row or without a byte", "left out, and named")
def test_empty_files(tmp_path: Path) -> None:
    put(tmp_path, "a.csv")
    compressed(tmp_path / "b.csv", HEAD.encode())
    compressed(tmp_path / "c.csv.gz", b"")
    compressed(tmp_path / "d.csv", b"\n\n")
    log = open_log(tmp_path, PLAIN)
    assert [str(left) for left in log.left_out] == ["b.csv, c.csv.gz, d.csv (no rows)"]
    assert len(load_events(log).frame) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("users.csv", "id,age\n007,5\n8,6.5\n"),
        ("users.tsv.gz", "id\tage\n007\t5\n8\t6.5\n"),
        ("users.jsonl", '{"id": "007", "age": 5}\n{"id": "8", "age": 6.5}\n'),
        ("users/part.csv.zst", "id,age\n007,5\n8,6.5\n"),
    ],
)
@pytest.mark.tried("logs", "tables of users as CSV, TSV and JSON lines, in a file or in a folder", "read as logs are")
def test_tables_of_text(name: str, text: str, tmp_path: Path) -> None:
    compressed(tmp_path / "log" / name, text.encode())
    compressed(tmp_path / "log" / "a.csv", f"{HEAD}007,1,{START},1,5\n8,1,{START},1,5\n".encode())
    table = {"user_table": name.split("/")[0], "user_table_id": "id", "user_features": {"age": "age"}}
    log = open_log(tmp_path / "log", replace(PLAIN, **table, context={"age": pl.col("user_age")}))
    assert log.users is not None and log.users.rows() == [("007", 5.0), ("8", 6.5)]
    assert sorted(load_events(log).frame.select("user_id", "age").rows()) == sorted(
        [(string_id("007"), 5.0), (string_id("8"), 6.5)]
    )


def test_a_broken_table_of_text_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.csv")
    (tmp_path / "users.csv").write_text("id,age\n1\n")
    with pytest.raises(UserError, match=r"users.csv: column age, line 2: 1 field; should be 2"):
        open_log(tmp_path, replace(PLAIN, user_table="users.csv", user_table_id="id", user_features={"age": "age"}))


def options(**more: Any) -> PrepareOptions:
    return PrepareOptions(history=2, arguments={"split": "time"}, **more)


def days(values: list[str], first: int = 0) -> str:
    return HEAD + "".join(f"{v},2,{START + DAY_MS * (first + i)},1,\n" for i, v in enumerate(values))


def rule(known: Any) -> Any:
    return split_by_time(known.days, None, 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(["1", "a", "2", "3"], ["1"], "", marks=pytest.mark.tried(
            "logs", "--append of CSV whose ids look like numbers to a log of text", "the same ids as all at once")),
        pytest.param(["1", "2", "3", "4"], ["5", "1"], ""),
        pytest.param(["1", "2", "3", "4"], ["01"], "text, but numbers in what was", marks=pytest.mark.tried(
            "logs", "--append of CSV whose ids are text to a log of numbers", "refused")),
    ],
)  # fmt: skip
def test_days_of_text_that_are_added(old: list[str], new: list[str], message: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    compressed(log / "a.csv", days(old).encode())
    prepare(open_log(log, PLAIN), tmp_path / "out", rule, options())
    compressed(log / "b.csv.gz", days(new, len(old)).encode())
    if message:
        with pytest.raises(UserError, match=rf"column user \(user_id\): {message}"):
            append(open_log(log, PLAIN), tmp_path / "out", rule, options())
        return
    content = append(open_log(log, PLAIN), tmp_path / "out", rule, options())
    prepare(open_log(log, PLAIN), tmp_path / "all" / "out", rule, options())
    assert content is not None and content["counts"]["files_read"] == 2
    kept = [pl.read_parquet(tmp_path / "out" / p["path"], hive_partitioning=False) for p in content["partitions"]]
    assert pl.concat(kept).sort("time").equals(read_samples(tmp_path / "all").drop("path").sort("time"))


@pytest.mark.tried("logs", "--candidates as CSV without the outcomes", "their samples")
def test_candidates_of_text(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (log / "ch=1").mkdir(parents=True)
    (log / "ch=1" / "a.csv").write_text(days(["1", "a", "2", "a"]))
    spec = 'spec = LogSpec(user="user", item="item", time="time", tasks={"click": "click"}, context={"ch": "ch"})\n'
    (tmp_path / "spec.py").write_text(f"from coldrank.data.log import LogSpec\n{spec}")
    (tmp_path / "next.csv").write_text(f"user,item,time,ch\n2,2,{START + 9 * DAY_MS},1\n3,2,{START + 9 * DAY_MS},\n")
    arguments = ["--data", str(log), "--spec", str(tmp_path / "spec.py"), "--out", str(tmp_path / "out")]
    command = ["prepare", "log", *arguments, "--valid-days", "1"]
    assert main(command) == 0
    assert main([*command, "--candidates", str(tmp_path / "next.csv"), str(tmp_path / "s.parquet")]) == 0
    samples = pl.read_parquet(tmp_path / "s.parquet").sort("user_views")
    assert samples.select("user_id", "user_views", "item_views", "label_click", "ch").rows() == [
        (string_id("3"), 0, 4, None, None),
        (string_id("2"), 1, 4, None, 1),
    ]


def test_blocks_name_the_line_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n\n1,"x\ny"\n2,\n\n3,z\n')
    file = text_file.TextFile(path=path, kind="csv")
    for size in (1, 2, 10):
        lines = [(b.frame["a"][i], b.line(i)) for b in blocks(file, size) for i in range(len(b.frame))]
        assert lines == [("1", 3), ("2", 5), ("3", 7)]


@pytest.mark.parametrize("size", [1 << 16, 5])
def test_lines_do_not_depend_on_how_a_file_is_read(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldrank.data.text.lines._FIRST", size)
    monkeypatch.setattr("coldrank.data.text.lines._SIZE", size)
    text = 'a,b\n1,"é\r\n日本"\r\n2,\u2028\n'
    (tmp_path / "a.csv").write_bytes(text.encode())
    (block,) = csv_rows.csv_blocks(text_file.TextFile(path=tmp_path / "a.csv", kind="csv"), 100)
    assert block.frame.rows() == [("1", "é\r\n日本"), ("2", "\u2028")]
