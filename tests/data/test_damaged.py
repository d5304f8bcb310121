"""Prepared data and its manifest, damaged: each reader names the file in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from event_logs import prepare_frame, random_log
from samples import write_samples
from tiny import sample_base

from coldrank.data.audit.report import audit
from coldrank.data.batches import DataFolder
from coldrank.data.by_time import TimeReader
from coldrank.data.errors import UserError
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader, list_row_groups
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import Input
from coldrank.train.checks import validate

NAME = "samples/split=train/period=2022-05-01/part-0.parquet"
COLUMNS = [Input("user_id", "int"), Input("time", "int")]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """Samples with sums of their pages, as `coldrank prepare` writes them."""
    folder = write_samples(tmp_path_factory.mktemp("sound"))
    for path in folder.rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        pq.write_table(table, path, compression="zstd", row_group_size=128, write_page_checksum=True)
    return folder


@pytest.fixture
def data(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "data"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("user_id,item_id\n1,2\n")


def shorter(path: Path) -> None:
    table = pq.ParquetFile(path).read()
    pq.write_table(table.slice(0, 500), path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def in_footer(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-60] ^= 0xFF
    content[-300:-200] = b"\xff" * 100
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut off": (cut, r"is cut off: [\d,]+ bytes, and no footer at their end"),
    "of 0 bytes": (empty, "is empty: 0 bytes"),
    "that is text": (text, "is not Parquet: it begins with b'user'"),
    "that is not there": (Path.unlink, "no such file"),
    "that is a folder": (folder, "is no file"),
    "with other rows than the manifest says": (shorter, "has 500 rows; manifest.json says 600"),
    "with bytes overwritten in its footer": (in_footer, "is damaged: "),
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.tried("data folders", f"a Parquet file {kind}", f"named: {message}"))
        for kind, (_, message) in {
            "cut off": (0, "cut off, how many bytes"),
            "of 0 bytes": (0, "empty"),
            "that is text": (0, "not Parquet"),
            "that is not there": (0, "no such file"),
            "that is a folder": (0, "no file"),
            "with other rows than the manifest says": (0, "both numbers of rows"),
            "with bytes overwritten in its footer": (0, "damaged"),
        }.items()
    ],
)
def test_a_damaged_file_is_named_before_anything_is_read(data, kind):
    harm, message = DAMAGE[kind]
    harm(data / NAME)
    for _ in range(2):
        with pytest.raises(UserError, match=rf"^{data / NAME}: {message}") as raised:
            DataFolder.open(data).files(("train", "valid"))
        assert "\n" not in str(raised.value)
    if kind != "with other rows than the manifest says":
        for read in (SampleReader, TimeReader, lambda paths, *_: fit_encoder(encoder(), paths)):
            with pytest.raises(UserError, match=rf"^{data / NAME}: {message}"):
                read([data / NAME], COLUMNS, 64)
    done = audit(data)
    assert [f.severity for f in done.findings if f.where == NAME] == ["error"]


def encoder() -> FeatureEncoder:
    return FeatureEncoder(validate(sample_base()))


def flip_in_page(path: Path, column: str) -> None:
    """Changes one byte of a column's data in the third row group."""
    place = pq.ParquetFile(path).metadata.row_group(2)
    chunk = next(c for c in map(place.column, range(place.num_columns)) if c.path_in_schema == column)
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start + chunk.total_compressed_size // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.tried("data folders", "a flipped byte inside a page of prepared data", "the file is named when it is read")
def test_a_flipped_byte_is_found_by_the_page_s_sum(data):
    path = data / NAME
    flip_in_page(path, "time")
    reader = SampleReader(DataFolder.open(data).files(("train",)), COLUMNS, 64)
    with pytest.raises(UserError, match=rf"^{path}: is damaged: .*CRC checksum verification failed") as raised:
        list(reader.epoch(0))
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=rf"^{path}: is damaged"):
        TimeReader([path], COLUMNS, 64)
    with pytest.raises(UserError, match=rf"^{path}: is damaged"):
        audit(data)


def test_what_polars_cannot_read_is_named_as_well(data):
    path = data / NAME
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset : chunk.data_page_offset + 60] = b"\xa5" * 60
    path.write_bytes(content)
    files = DataFolder.open(data).files(("valid", "train"))
    with pytest.raises(UserError, match=rf"^{path}: is damaged: "):
        fit_encoder(encoder(), files)


def test_bytes_flipped_anywhere_never_give_other_rows(data, tmp_path):
    """Either the values are those that were written, or the error is one line that names the file."""
    path, rng = data / NAME, np.random.default_rng(5)
    content = path.read_bytes()
    columns = [Input(n, "int") for n in ("user_id", "item_id", "time", "user_views", "item_views")]
    right = [raw["item_id"].tolist() for raw in SampleReader([path], columns, 64).epoch(0)]
    seen = set()
    for place in rng.integers(4, len(content), 60):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            rows = [raw["item_id"].tolist() for raw in SampleReader([path], columns, 64).epoch(0)]
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            seen.add("named")
        else:
            assert rows == right
            seen.add("the same")
    assert seen == {"named", "the same"}


@pytest.mark.tried("data folders", "a Parquet file that is replaced while a run reads it", "named: it has changed")
def test_a_file_that_changes_while_it_is_read(data):
    path = data / NAME
    batches = SampleReader([path], COLUMNS, 64, shuffle_rows=64).epoch(0)
    next(batches)
    pl.read_parquet(path, hive_partitioning=False).reverse().write_parquet(path, row_group_size=128)
    with pytest.raises(UserError, match=rf"^{path}: has changed since it was opened"):
        list(batches)


def test_prepare_writes_the_sums(tmp_path):
    prepare_frame(random_log(0, 300), tmp_path)
    path = next((tmp_path / "out").rglob("*.parquet"))
    rows = pq.ParquetFile(path).metadata.num_rows
    content = path.read_bytes()
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    # A page says how long it is, and its sum, in its header: zeroed values alone would be read as values.
    end = (chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size
    path.write_bytes(content[: end - 1] + bytes([content[end - 1] ^ 1]) + content[end:])
    with pytest.raises(UserError, match="CRC checksum verification failed"):
        list(SampleReader([path], [Input("user_id", "int")], rows).epoch(0))


WRONG_MANIFESTS = {
    "cut off": (lambda m: json.dumps(m)[:-20], "is damaged: not JSON"),
    "of no text": (lambda m: b"\xff\xfe{}", "is damaged: not text"),
    "that is a list": (lambda m: "[]", "expected an object"),
    "of another format": (lambda m: m | {"format": 7}, "format is 7; this version reads format 1"),
    "without partitions": (lambda m: {k: m[k] for k in m if k != "partitions"}, "partitions is None; should be a list"),
    "whose partition lacks its rows": (
        lambda m: m | {"partitions": [{k: v for k, v in p.items() if k != "rows"} for p in m["partitions"]]},
        "partition 1: rows is None; should be a whole number",
    ),
    "that names a file twice": (
        lambda m: m | {"partitions": [*m["partitions"], m["partitions"][0]]},
        f"partition 4: path '{NAME}' is there twice",
    ),
    "whose columns have no names": (
        lambda m: m | {"columns": ["user_id"]},
        "columns has 'user_id'; should be an object",
    ),
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            kind, marks=pytest.mark.tried("data folders", f"a manifest.json {kind}", "named, with what is wrong")
        )
        for kind in WRONG_MANIFESTS
    ],
)
def test_a_wrong_manifest_is_named(data, kind):
    change, message = WRONG_MANIFESTS[kind]
    path = data / "manifest.json"
    changed = change(json.loads(path.read_text()))
    if isinstance(changed, bytes):
        path.write_bytes(changed)
    else:
        path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(UserError, match=rf"^{path}: .*{message}") as raised:
        DataFolder.open(data)
    assert "\n" not in str(raised.value)


def test_row_groups_know_their_file(data):
    assert {g.stamp[0] for g in list_row_groups([data / NAME])} == {(data / NAME).stat().st_size}
