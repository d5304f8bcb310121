"""Random event logs: what their rows say, and files that say it in some odd way or with one fault."""

import csv
import gzip
import io
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from math import isnan
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from event_logs import DAY_MS, START

from coldrank.data.formats import format_of
from coldrank.data.log import FORMATS, Group, LogSpec

Row = dict[str, Any]
TEXTS = ["ann", "", "Ünal", "b c", "a/b", "x=y", "50%", "日本", 'O\'Hara, "J"']
POOLS: dict[str, list[Any]] = {
    "small": list(range(5)),
    "negative": [-3, -1, 0, 2, 7],
    "wide": [2**53, 2**53 + 1, -(2**62), 2**62 + 3, 9],
    "unsigned": [2**63, 2**63 + 5, 2**64 - 1, 5, 6],
    "text": TEXTS,
}
FIELDS = ("user", "item", "time", "click", "author", "n", "x", "place", "tags", "junk")
FILE_NAMES = ("a", "b", "log[12]", "log1", "e *?", "ü", "100%41", "k=v", "-f", "{x}")
FOLDERS = ((), ("sub",), ("s[ab]",), ("deep", "er.parquet"), ("Ö x",))
PARQUET = (".parquet", ".PARQUET", ".parq", ".pq", ".snappy.parquet")
ENDINGS = {"parquet": PARQUET, "csv": (".csv", ".CSV"), "tsv": (".tsv",), "jsonl": (".jsonl", ".ndjson")}
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass
class File:
    """A file of events."""

    path: Path
    """Relative to the log's folder."""
    rows: list[Row]
    """What its rows say."""
    columns: dict[str, pa.Array]
    """Field -> Arrow array."""

    @property
    def format(self) -> str:
        return str(format_of(self.path.name))


@dataclass
class Log:
    """A written log."""

    data: Path
    """Its folder."""
    spec: LogSpec
    """What its columns mean."""
    files: list[File]
    """Its files in the order in which they are read."""
    ages: dict[Any, Any] | None
    """User -> age; None: no user table."""
    fault: str = ""
    """What the one line of the refusal must hold; empty: it must be read."""

    @property
    def rows(self) -> list[Row]:
        return [row for file in self.files for row in file.rows]


@dataclass
class Writer:
    """Writes a log below `root`, by a seed."""

    root: Path
    seed: int
    pools: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        chance = self.rng
        self.formats = chance.sample(FORMATS, chance.randint(1, 3)) if chance.random() < 0.5 else ["parquet"]
        self.has_csv = not {"csv", "tsv"}.isdisjoint(self.formats)
        self.separator = chance.choice([None, None, ";", "|"]) if self.has_csv else None
        self.nulls = ("NA",) if self.has_csv and chance.random() < 0.3 else ()
        # Whether times are text, in a zone. All files of a log say them alike, as what is text is no number.
        self.zone = chance.choice(["UTC", "America/New_York", "Asia/Tokyo", None]) if chance.random() < 0.3 else ""
        # How files of text write what is 0 or 1: in one way.
        self.flags = chance.random() < 0.3
        self.pools = {n: chance.choice(list(POOLS)) for n in ("user", "item", "author")}
        self.pools |= {n: chance.choice(["small", "text"]) for n in ("place", "tags")}
        self.junk = chance.choice(["time", "decimal", "text", "struct", "binary"])
        self.unit = chance.choice(list(PER_SECOND))
        odd = chance.choice(["{}", "{} x", "ä.{}", "[{}]", "{}%", "^{}.*$"])
        self.names = {n: odd.format(n) for n in FIELDS}
        if chance.random() < 0.2:
            self.names[chance.choice(FIELDS)] = "*"
        self.data = root_of(self.root, chance)

    def write(self) -> Log:
        rows = self._rows()
        files = self._split(rows)
        ages = self._ages(rows) if self.rng.random() < 0.5 else None
        log = Log(self.data, self._spec(ages is not None, files), files, ages)
        if self.rng.random() < 0.3:
            self._spoil(log)
        for file in files:
            self._put(file)
        self._noise(files)
        log.files = [f for f in sorted(files, key=lambda f: f.path.parts) if f.rows]
        return log

    def _spec(self, has_users: bool, files: list[File]) -> LogSpec:
        names = self.names
        table = (
            {"user_table": self._table, "user_table_id": "who", "user_features": {"age": "years"}} if has_users else {}
        )
        old = {"old": pl.col("user_age") > 25} if has_users else {}
        kinds = {file.format for file in files}
        formats = () if kinds == {"parquet"} else tuple(self.formats)
        has_csv = not kinds.isdisjoint({"csv", "tsv"}) or (has_users and self._table.endswith(".csv"))
        text = {"separator": self.separator, "null_values": self.nulls} if has_csv else {}
        lists = () if self.has_csv else ("tags",)  # CSV has none
        return LogSpec(
            formats=formats,
            **text,  # type: ignore[arg-type]
            user=names["user"],
            item=names["item"],
            time=names["time"],
            time_unit="ms" if self.zone != "" else self.unit,  # type: ignore[arg-type]
            time_zone=self.zone or None,
            tasks={"click": names["click"]},
            keys={"author": names["author"]},
            groups=(Group(keys=("author",)), Group(keys=("user", "author"), parent="user")),
            history={"author": names["author"]},
            context={n: names[n] for n in ("n", "x", "place", *lists)} | old,
            **table,  # type: ignore[arg-type]
        )

    def _rows(self) -> list[Row]:
        rng = self.rng
        rows = []
        for i in range(rng.randint(4, 16)):
            day = i if i < 4 else rng.randrange(4)
            row = {n: rng.choice(self._pool(n)) for n in ("user", "item", "author", "place")}
            row |= {
                "time": START + day * DAY_MS + 1000 * rng.randrange(3),
                "click": rng.choice([0, 1, None]),
                "n": rng.choice([0, 1, 7, 300, None]),
                "x": rng.choice([-0.0, 0.0, 0.125, -2.5, 3.0, None]),
                "tags": rng.choice([None, (), (None,)]) if rng.random() < 0.4 else self._tags(),
                "junk": rng.choice([0, 1, None]),
            }
            rows += [row] * (2 if rng.random() < 0.3 else 1)
            for name in ("author", "place"):
                row[name] = None if rng.random() < 0.2 else row[name]
        rng.shuffle(rows)
        return [dict(row) for row in rows]

    def _pool(self, name: str) -> list[Any]:
        """What a field may be. In CSV the empty text is null, as it is of a user."""
        return [v for v in POOLS[self.pools[name]] if v != "" or not (self.has_csv or name == "user")]

    def _tags(self) -> tuple[Any, ...]:
        return tuple(self.rng.choices(POOLS[self.pools["tags"]], k=self.rng.randint(1, 3)))

    def _split(self, rows: list[Row]) -> list[File]:
        """Files of the rows. Where their folders name the place, all rows of a file are of one."""
        rng, count = self.rng, self.rng.randint(1, 4)
        in_folders = rng.random() < 0.4
        names = [n + self._ending() for n in rng.sample(FILE_NAMES, count)]
        groups: list[list[Row]] = [[] for _ in names]
        for row in rows:
            groups[rng.randrange(count)].append(row)
        files = []
        for name, of_file in zip(names, groups, strict=True):
            folder, columns = rng.choice(FOLDERS), list(FIELDS)
            if in_folders and of_file:
                place = of_file[0]["place"]
                for row in of_file:
                    row["place"] = place
                text = "__HIVE_DEFAULT_PARTITION__" if place is None else quote(str(place), safe=" ü")
                folder = (*folder, f"{quote(self.names['place'])}={text}")
                if rng.random() < 0.7:
                    columns.remove("place")
            of_text = format_of(name) != "parquet"
            if of_text or rng.random() < 0.2:
                columns.remove("junk")
                for row in of_file:
                    row["junk"] = None
            if self.has_csv:
                columns.remove("tags")
                for row in of_file:
                    row["tags"] = None
            rng.shuffle(columns)
            arrays = {n: getattr(self, f"make_{n}", self._ids)([r[n] for r in of_file], n) for n in columns}
            for of_ids in ("user", "item", "author", "place"):
                if not of_text and of_ids in arrays and pa.types.is_string(arrays[of_ids].type) and rng.random() < 0.2:
                    arrays[of_ids] = arrays[of_ids].cast(pa.binary())
            if of_text and self.zone == "":
                arrays["time"] = self._text_time([r["time"] for r in of_file])
            files.append(File(Path(*folder, name), of_file, arrays))
        return files

    def _ending(self) -> str:
        kind = self.rng.choice(self.formats)
        compression = self.rng.choice(["", "", ".gz", ".zst"]) if kind != "parquet" else ""
        return self.rng.choice(ENDINGS[kind]) + compression

    def _text_time(self, values: list[int]) -> pa.Array:
        in_unit = [v // 1000 * PER_SECOND[self.unit] for v in values]
        return pa.array(map(self.rng.choice([int, float]), in_unit))

    # Columns: values of a field -> an array of some type that holds them.

    def _none(self, count: int, *kinds: pa.DataType) -> pa.Array:
        return pa.nulls(count, self.rng.choice([pa.null(), *kinds]))

    def _ids(self, values: list[Any], name: str) -> pa.Array:
        known = [v for v in values if v is not None]
        if not known:
            nan = [pa.float64()] if name == "author" else []
            return self._none(len(values), pa.int32(), pa.string(), *nan)
        if self.pools[name] == "text":
            array = pa.array(values, self.rng.choice([pa.string(), pa.large_string()]))
        else:
            array = self._integers(values)
        return array.dictionary_encode() if self.rng.random() < 0.2 else array

    def _integers(self, values: list[Any]) -> pa.Array:
        known = [v for v in values if v is not None]
        fitting = []
        for bits in (8, 16, 32, 64):
            if all(-(2 ** (bits - 1)) <= v < 2 ** (bits - 1) for v in known):
                fitting.append(getattr(pa, f"int{bits}")())
            if all(0 <= v < 2**bits for v in known):
                fitting.append(getattr(pa, f"uint{bits}")())
        return pa.array(values, self.rng.choice(fitting))

    def make_time(self, values: list[int], _: str) -> pa.Array:
        if self.zone != "":
            place = ZoneInfo(self.zone or "UTC")
            return pa.array(f"{datetime.fromtimestamp(v / 1000, place):%Y-%m-%d %H:%M:%S}" for v in values)
        in_unit = [v // 1000 * PER_SECOND[self.unit] for v in values]
        if (kind := self.rng.choice(["integer", "float", "datetime", "zoned"])) == "integer":
            return pa.array(in_unit, self.rng.choice([pa.int64(), pa.uint64()]))
        if kind == "float":
            return pa.array(map(float, in_unit), pa.float64())
        zone = self.rng.choice(["UTC", "Asia/Tokyo"]) if kind == "zoned" else None
        return pa.array(values, pa.timestamp("ms")).cast(pa.timestamp(self.rng.choice(["s", "ms", "us", "ns"]), zone))

    def make_click(self, values: list[Any], _: str) -> pa.Array:
        if all(v is None for v in values) and self.rng.random() < 0.5:
            return self._none(len(values), pa.bool_(), pa.float32())
        kind = self.rng.choice(["bool", "integer", "float", "nan", "decimal"])
        if kind == "bool":
            return pa.array([None if v is None else bool(v) for v in values], pa.bool_())
        if kind == "decimal":
            return pa.array([None if v is None else Decimal(v) for v in values], pa.decimal128(4, 1))
        return self._integers(values) if kind == "integer" else self._floats(values)

    def _floats(self, values: list[Any]) -> pa.Array:
        missing = self.rng.choice([None, float("nan")])
        floats = [missing if v is None else float(v) for v in values]
        return pa.array(floats, self.rng.choice([pa.float32(), pa.float64()]))

    def make_n(self, values: list[Any], _: str) -> pa.Array:
        if all(v is None for v in values):
            return self._none(len(values), pa.int8(), pa.float64(), pa.string())
        return self._integers(values) if self.rng.random() < 0.7 else self._floats(values)

    def make_x(self, values: list[Any], _: str) -> pa.Array:
        if all(v is None for v in values):
            return self._none(len(values), pa.float32(), pa.int8())
        if all(v is None or v % 1 == 0 for v in values) and self.rng.random() < 0.5:
            return self._integers([None if v is None else int(v) for v in values])
        if self.rng.random() < 0.2:
            return pa.array([None if v is None else Decimal(str(v)) for v in values], pa.decimal128(9, 3))
        return self._floats(values)

    def make_tags(self, values: list[Any], _: str) -> pa.Array:
        inner = pa.string() if self.pools["tags"] == "text" else self.rng.choice([pa.int8(), pa.uint16(), pa.int64()])
        if all(v is None for v in values):
            return self._none(len(values), pa.list_(inner))
        return pa.array(values, self.rng.choice([pa.list_, pa.large_list])(inner))

    def make_junk(self, values: list[Any], _: str) -> pa.Array:
        rng = self.rng
        if all(v is None for v in values):
            return self._none(len(values))
        make: dict[str, tuple[Callable[[int], Any], list[pa.DataType]]] = {
            "time": (lambda v: START + v, [pa.timestamp("ms"), pa.timestamp("ns", "UTC")]),
            "decimal": (lambda v: Decimal(v) / 4, [pa.decimal128(9, 2), pa.decimal128(30, 5)]),
            "text": (lambda v: TEXTS[v], [pa.string(), pa.large_string()]),
            "struct": (lambda v: {"p": v, "q": None}, [pa.struct({"p": pa.int8(), "q": pa.string()})]),
            "binary": (lambda v: bytes([v]), [pa.binary(), pa.large_binary()]),
        }
        convert, kinds = make[self.junk]
        return pa.array([None if v is None else convert(v) for v in values], kinds[0]).cast(rng.choice(kinds))

    # Files.

    def _put(self, file: File) -> None:
        """Writes a file where it stands, or elsewhere with a link to it or to its folder."""
        path = self.data / file.path
        way = self.rng.random()
        if way < 0.7 or path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(file, path)
            return
        elsewhere = self.root / "elsewhere" / str(len(os.listdir(self.root)) + self.rng.randrange(10**9))
        elsewhere.mkdir(parents=True)
        self._write(file, elsewhere / path.name)
        if way < 0.85 and len(file.path.parts) > 1 and not path.parent.exists():
            path.parent.parent.mkdir(parents=True, exist_ok=True)
            path.parent.symlink_to(elsewhere)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(elsewhere / path.name)

    def _write(self, file: File, path: Path) -> None:
        table = pa.table({self.names.get(n, n): a for n, a in file.columns.items()})
        if file.format == "parquet":
            pq.write_table(table, path)
            return
        rows = [{n: self._said(n, v) for n, v in row.items()} for row in table.to_pylist()]
        text = self._json(rows) if file.format == "jsonl" else self._csv(rows, table.column_names, file.format)
        if path.suffix == ".zst":
            with pa.CompressedOutputStream(str(path), "zstd") as out:
                out.write(text)
        else:
            path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)

    def _said(self, name: str, value: Any) -> Any:
        """A value as text files write it: a flag in one way, a decimal as a number."""
        value = float(value) if isinstance(value, Decimal) else value
        if name == self.names["click"] and value in (0, 1):
            return bool(value) if self.flags else self.rng.choice([int(value), float(value)])
        return value

    def _json(self, rows: list[Row]) -> bytes:
        """Nulls may lack, and lines be empty."""
        lines = [
            {n: v for n, v in row.items() if v is not None or self.rng.random() < 0.8} if len(rows) > 1 and i else row
            for i, row in enumerate(rows)
        ]
        ends = [self.rng.choice(["\n", "\r\n", "\n\n"]) for _ in lines]
        ascii_only = self.rng.random() < 0.5
        return "".join(
            json.dumps(line, ensure_ascii=ascii_only) + e for line, e in zip(lines, ends, strict=True)
        ).encode()

    def _csv(self, rows: list[Row], names: list[str], kind: str) -> bytes:
        rng, out = self.rng, io.StringIO()
        separator = self.separator or {"csv": ",", "tsv": "\t"}[kind]
        end, quoting = rng.choice(["\n", "\r\n"]), rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
        writer = csv.writer(out, delimiter=separator, lineterminator=end, quoting=quoting)
        writer.writerow(names)
        for row in rows:
            writer.writerow(self._field(row[n], n == self.names["time"]) for n in names)
        mark = "\ufeff" if rng.random() < 0.2 else ""
        return (mark + out.getvalue()).encode()

    def _field(self, value: Any, is_time: bool) -> str:
        if value is None or (isinstance(value, float) and isnan(value) and not is_time):
            return self.rng.choice(["", *self.nulls])
        return self.rng.choice([str, str.lower, str.upper])(str(value)) if isinstance(value, bool) else str(value)

    def _ages(self, rows: list[Row]) -> dict[Any, Any]:
        """Writes a table of some of the users."""
        rng = self.rng
        users = rng.sample([u for u in POOLS[self.pools["user"]] if u != ""], rng.randint(1, 5))
        ages = {u: rng.choice([20, 30.5, None]) for u in users}
        kind = pa.string() if self.pools["user"] == "text" else None
        if kind is None:
            kind = pa.uint64() if min(users) >= 0 else pa.int64()
        self.table = {"who": pa.array(users, kind), "years": pa.array(list(ages.values()), pa.float64())}
        self._table = rng.choice(["users.csv", "users.jsonl", "users.parquet", "u[1].PQ", "users"])
        self._write_table()
        return ages

    def _write_table(self) -> None:
        path = self.data / self._table
        if path.suffix == "":
            path.mkdir(exist_ok=True)
            path = path / "part-0.parquet"
        frame = pl.DataFrame(pa.table(self.table))
        if path.suffix == ".csv":
            frame.write_csv(path, separator=self.separator or ",")
        elif path.suffix == ".jsonl":
            frame.write_ndjson(path)
        else:
            frame.write_parquet(path)

    def _noise(self, files: list[File]) -> None:
        """What is not to be read: names of others, other kinds of files, files again, a link to a folder above."""
        rng, real = self.rng, [f for f in files if f.rows]
        junk = pa.table({"nonsense": [1]})
        if rng.random() < 0.3:
            hidden = self.data / rng.choice(["_temporary", ".ipynb_checkpoints", "_delta_log", "sub/_x"]) / "0"
            hidden.mkdir(parents=True)
            pq.write_table(junk, hidden / "part.parquet")
        if rng.random() < 0.3:
            (self.data / rng.choice(["README", "b.parquet.crc", "_SUCCESS", "z.json"])).touch()
        if rng.random() < 0.3:
            pq.write_table(junk.slice(0, 0), self.data / "zero.parquet")
        if rng.random() < 0.2:
            (self.data / "zz").symlink_to(self.data)
        plain = [f for f in real if not any("=" in p for p in f.path.parts[:-1])]
        if plain and rng.random() < 0.2:  # by a name that is read last
            (self.data / "\U0001f9ff.parquet").symlink_to((self.data / plain[0].path).resolve())

    # Faults.

    def _spoil(self, log: Log) -> None:
        """One fault in one file (or in the table)."""
        full = [f for f in log.files if f.rows]
        file = self.rng.choice(full)
        faults = [
            self._bad_click,
            self._infinite,
            self._no_user,
            self._bad_time,
            self._broken,
            self._empty,
            self._no_target,
        ]
        if file.format == "parquet":
            faults.append(self._bad_feature)
        if file.format != "jsonl":  # where a field that lacks is null
            faults.append(self._no_column)
        if not self.has_csv:  # where the type of an id is what it looks like
            faults += [self._float_users] + [self._other_ids] * (len(full) > 1)
        if log.ages is not None:
            faults += [self._twice, self._no_id]
        if "place" not in file.columns:
            faults.append(self._contradiction)
        log.fault = file.path.name
        self.rng.choice(faults)(file, log)

    def _change(self, file: File, name: str, value: Any, kind: pa.DataType) -> None:
        """One value of a column, in another type."""
        values = [None] * len(file.rows) if name not in file.columns else [r.get(name) for r in file.rows]
        values[self.rng.randrange(len(values))] = value
        file.columns[name] = pa.array(values, kind)

    def _bad_click(self, file: File, _: Log) -> None:
        value, kind = self.rng.choice(
            [(2, pa.int8()), (0.5, pa.float64()), (float("inf"), pa.float32()), (-1, pa.int64())]
        )
        self._change(file, "click", value, kind)
        if self.rng.random() < 0.2 and not self.has_csv:
            file.columns["click"] = pa.array(["0"] * len(file.rows))

    def _infinite(self, file: File, _: Log) -> None:
        self._change(file, "x", self.rng.choice([float("inf"), float("-inf"), 1e39]), pa.float64())

    def _no_user(self, file: File, _: Log) -> None:
        name = self.rng.choice(["user", "item"])
        kind = (
            pa.string() if self.pools[name] == "text" else pa.uint64() if self.pools[name] == "unsigned" else pa.int64()
        )
        self._change(file, name, None, kind)

    def _float_users(self, file: File, _: Log) -> None:
        file.columns["user"] = pa.array([i + 0.5 for i in range(len(file.rows))])

    def _bad_time(self, file: File, _: Log) -> None:
        value = self.rng.choice([None, float("nan"), float("inf"), -1e9, 1e30])
        file.columns["time"] = pa.array([value] * len(file.rows), pa.float64())

    def _no_column(self, file: File, _: Log) -> None:
        names = [n for n in ("user", "time", "click", "author", "n", "tags") if n in file.columns]
        del file.columns[self.rng.choice(names)]

    def _bad_feature(self, file: File, _: Log) -> None:
        file.columns["n"] = pa.array([{"p": 1}] * len(file.rows))

    def _other_ids(self, file: File, log: Log) -> None:
        name = self.rng.choice(["user", "item"])
        other = [str(i) for i in range(len(file.rows))] if self.pools[name] != "text" else list(range(len(file.rows)))
        file.columns[name] = pa.array(other)

    def _broken(self, file: File, log: Log) -> None:
        text = {"parquet": b"PAR1" + bytes(self.rng.randrange(40)) + b"PAR1", "jsonl": b"{"}
        log.fault = "broken" + ENDINGS[file.format][0]
        (self.data / log.fault).write_bytes(text.get(file.format, b'a\n"b\n'))

    def _empty(self, file: File, log: Log) -> None:
        for other in log.files:
            other.columns = {n: a.slice(0, 0) for n, a in other.columns.items()}
        log.fault = self.data.name

    def _no_target(self, file: File, log: Log) -> None:
        (self.data / "gone.parquet").symlink_to(self.root / "gone")
        log.fault = "gone.parquet"

    def _contradiction(self, file: File, _: Log) -> None:
        file.columns["place"] = pa.array(["elsewhere"] * len(file.rows))

    def _twice(self, file: File, log: Log) -> None:
        self.table = {n: pa.concat_arrays([a, a]) for n, a in self.table.items()}
        self._write_table()
        log.fault = "users" if "users" in self._table else self._table

    def _no_id(self, file: File, log: Log) -> None:
        self.table["who"] = pa.concat_arrays([self.table["who"], pa.nulls(1, self.table["who"].type)])
        self.table["years"] = pa.concat_arrays([self.table["years"], pa.array([4.0])])
        self._write_table()
        log.fault = "users" if "users" in self._table else self._table


def root_of(root: Path, chance: random.Random) -> Path:
    """The folder of the log, of an odd name."""
    data = root / chance.choice(["log", "log[1]", "l *", "l=1"])
    data.mkdir(parents=True)
    return data
