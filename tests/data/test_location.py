"""Logs and prepared data in an object store."""

import sys
from pathlib import Path

import pytest
from samples import write_samples
from stored import BUCKET, Store, stored
from test_prepare import write_own_log

from coldrank.cli.main import main
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.data.location import local, location
from coldrank.data.read import SampleReader
from coldrank.models.features import Input

COLUMNS = [Input("user_id", "int"), Input("hist_item_id", "int", is_list=True)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with stored(tmp_path_factory.mktemp("store")) as store:
        yield store


def command(log: object, out: object, folder: Path, *more: str) -> list[str]:
    spec = str(folder / "spec.py")
    return ["prepare", "log", "--spec", spec, "--data", str(log), "--out", str(out), "--valid-days", "1", *more]


def test_a_log_in_a_store_is_prepared_as_one_on_a_disk(store: Store, tmp_path):
    log = write_own_log(tmp_path) / "log"
    there = store.put(log, "own")
    places = [
        (log, tmp_path / "disk"),
        (there, tmp_path / "read"),
        (there, location(f"s3://{BUCKET}/both")),
        (log, location(f"s3://{BUCKET}/written")),
    ]
    told = []
    for data, out in places:
        assert main(command(data, out, tmp_path)) == 0
        manifest = DataFolder.open(out).manifest
        assert manifest["arguments"].pop("data") == str(data)
        told.append((manifest, [(out / part["path"]).read_bytes() for part in manifest["partitions"]]))
    assert told[0][1] and all(each == told[0] for each in told)


def test_a_cut_off_preparation_leaves_no_data_or_the_older(store, tmp_path, monkeypatch):
    log = write_own_log(tmp_path) / "log"
    out = location(f"s3://{BUCKET}/again")
    held = lambda: {str(p): p.read_bytes() for p in out.rglob("*.*")}

    def cut_off(*more: str) -> None:
        """After the samples, before the manifest."""
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr("coldrank.data.place.json.dumps", lambda *_, **__: 1 / 0)
            main(command(log, out, tmp_path, *more))

    cut_off()
    with pytest.raises(UserError, match="s3://logs/again: not a prepared data folder"):
        DataFolder.open(out)
    assert main(command(log, out, tmp_path)) == 0
    before = held()
    cut_off("--history", "1")
    assert held() == before
    assert main(command(log, out, tmp_path, "--history", "1")) == 0
    after = held()
    manifest = DataFolder.open(out).manifest
    named = {str(out / name) for name in [*(p["path"] for p in manifest["partitions"]), *manifest["state"]["files"]]}
    assert named | {str(out / "manifest.json")} == after.keys() and after != before


def test_what_is_no_prepared_data_is_not_replaced(store, tmp_path, capsys):
    log = write_own_log(tmp_path) / "log"
    out = store.put(log, "other")
    assert main(command(log, out, tmp_path)) == 2
    assert "--out s3://logs/other: holds something else than prepared data" in capsys.readouterr().err
    assert (out / "users.csv").exists()


def test_a_reader_that_goes_on_reads_no_row_group_before_its_position(store, tmp_path):
    """A file is a row group and a buffer, and is asked for its footer and for its rows."""
    folder = write_samples(tmp_path / "data", {f"s{i}": 128 for i in range(6)})
    data = DataFolder.open(store.put(folder, "resumed"))
    names = [f"resumed/{p['path']}" for p in data.manifest["partitions"]]
    files = data.files(tuple(f"s{i}" for i in range(6)))
    local_files = DataFolder.open(folder).files(tuple(f"s{i}" for i in range(6)))

    def read(start: int) -> tuple[list[int], list[list[int]]]:
        reader = SampleReader(files, COLUMNS, 32, shuffle_rows=128)
        before = [store.reads(name) for name in names]
        rows = [raw["user_id"].tolist() for raw in reader.epoch(0, start)]
        return [store.reads(name) - b for name, b in zip(names, before, strict=True)], rows

    def expected(start: int) -> list[list[int]]:
        return [
            raw["user_id"].tolist() for raw in SampleReader(local_files, COLUMNS, 32, shuffle_rows=128).epoch(0, start)
        ]

    reads, rows = read(0)
    assert min(reads) > 0 and rows == expected(0)
    # Batch 14 is the third of the fourth file.
    resumed, rest = read(14)
    assert resumed == [0, 0, 0, *reads[3:]] and rest == expected(14) == rows[14:]


@pytest.mark.tried("data folders", "a URL that is none", "what a URL is")
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3:/logs/data", "names no bucket; a URL is s3://BUCKET/FOLDER"),
        ("s3://", "names no bucket"),
        ("s3:///data", "names no bucket"),
        ("gs://logs/data", "gs:// is not read; give a path, or s3://BUCKET/FOLDER"),
        ("S3://logs/data", "S3:// is not read"),
    ],
)
def test_a_url_that_is_none_is_refused(url, said, capsys):
    assert main(["check", "--data", url]) == 2
    assert capsys.readouterr().err.startswith(f"coldrank: {url}: {said}")


@pytest.mark.tried("data folders", "--out s3://... of train", "refused: run folders are local or on shared storage")
@pytest.mark.parametrize("url", ["s3://logs/run", "s3:/logs/run", "gs://logs/run"])
def test_a_run_folder_is_no_url(url, capsys):
    assert main(["train", "--config", "coldrank.configs.kuairand:base", "--data", "data", "--out", url]) == 2
    said = f"coldrank: {url}: is to be a path of this machine or of shared storage, no URL\n"
    assert capsys.readouterr().err == said
    with pytest.raises(UserError):
        local(url)


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert main(["check", "--data", "s3://logs/data"]) == 2
    said = "coldrank: s3://logs/data: s3fs is not installed; pip install 'coldrank[s3]'\n"
    assert capsys.readouterr().err == said


@pytest.mark.tried("data folders", "a bucket or folder of an object store that is not there", "a line that names it")
def test_what_is_not_there_is_named(store, tmp_path, capsys):
    assert main(["check", "--data", "s3://nobody/data"]) == 2
    assert capsys.readouterr().err == "coldrank check: s3://nobody/data: no bucket 'nobody'\n"
    assert main(["check", "--data", "s3://logs/none"]) == 2
    assert "s3://logs/none: not a prepared data folder (no manifest.json)" in capsys.readouterr().err
    data = store.put(write_samples(tmp_path / "data"), "holed")
    gone = data / "samples/split=valid/period=2022-05-01/part-0.parquet"
    gone.unlink()
    with pytest.raises(UserError, match=r"s3://logs/holed/samples/split=valid/.*: no such file"):
        DataFolder.open(data).files(("train", "valid"))
    log = write_own_log(tmp_path) / "log"
    assert main(command("s3://logs/none", tmp_path / "out", tmp_path)) == 2
    assert "--data s3://logs/none: no such file or folder" in capsys.readouterr().err
    assert main(command(log, "s3://nobody/out", tmp_path)) == 2
    assert "s3://nobody/out: no bucket 'nobody'" in capsys.readouterr().err


@pytest.mark.tried("data folders", "an object store that does not let one in", "a line that names it, before any work")
def test_a_store_that_does_not_let_one_in_is_named(store, tmp_path, capsys):
    log = write_own_log(tmp_path) / "log"
    data = store.put(write_samples(tmp_path / "data"), "private")
    logs = store.put(log, "private-log")
    held = {str(p) for p in data.rglob("*.*")}
    commands = [
        (["check", "--data", str(data)], f"{data}/manifest.json"),
        (["score", "--artifact", str(tmp_path), "--input", str(data), "--out", str(tmp_path / "s.parquet")], str(data)),
        (command(logs, tmp_path / "out", tmp_path), str(logs)),
        (command(log, data, tmp_path), str(data)),
    ]
    for words, named in commands:
        with store.refusing():
            assert main(words) == 2
        assert capsys.readouterr().err == f"coldrank {words[0]}: {named}: no permission: Forbidden\n"
    assert not (tmp_path / "out").exists() and {str(p) for p in data.rglob("*.*")} == held


@pytest.mark.slow
@pytest.mark.tried("data folders", "an object store that stops answering", "a line that names the file")
def test_a_store_that_stops_answering_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # to wait for it is botocore's affair
    with stored(tmp_path) as store:
        data = DataFolder.open(store.put(write_samples(tmp_path / "data"), "cut"))
        rows = SampleReader(data.files(("train",)), COLUMNS, 32, shuffle_rows=128).epoch(0)
        next(rows)
        store.process.kill()
        store.process.wait()
        with pytest.raises(UserError, match=r"s3://logs/cut/samples/.*part-0.parquet: Could not connect to the end"):
            list(rows)
        assert main(["check", "--data", str(data.path)]) == 2
        assert "coldrank check: s3://logs/cut: Could not connect to the endpoint" in capsys.readouterr().err
