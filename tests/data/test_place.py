"""Where `prepare` puts its samples: links, mounted disks, and what a kill leaves."""

import errno
import json
import os
import subprocess
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from event_logs import prepare_frame, random_log

from coldrank.data import place
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError


def rows(out: Path) -> int:
    """Samples of the files that the manifest names."""
    folder = DataFolder.open(out)
    read = [pl.read_parquet(folder.path / p["path"], hive_partitioning=False) for p in folder.manifest["partitions"]]
    assert [len(frame) for frame in read] == [p["rows"] for p in folder.manifest["partitions"]]
    return sum(map(len, read))


def files(out: Path) -> set[str]:
    return {str(p.relative_to(out)) for p in out.rglob("*") if not p.is_dir()}


@pytest.mark.tried("data folders", "prepare --out LINK, to a folder or to nothing yet", "written where the link leads")
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_folder_is_written(tmp_path: Path, exists: bool) -> None:
    big = tmp_path / "big" / "data"
    if exists:
        big.mkdir(parents=True)
    (tmp_path / "out").symlink_to(big)
    for seed in (0, 1):
        prepare_frame(random_log(seed), tmp_path)
        assert (tmp_path / "out").is_symlink() and rows(big) == len(random_log(seed).unique())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big", "log", "out"]
    assert {Path(name).parts[0] for name in files(big)} == {"manifest.json", "samples", "state"}


@pytest.mark.tried("data folders", "prepare --out at the root of a mounted disk, twice", "written and replaced inside")
def test_the_root_of_a_disk_is_written_and_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = ["mount", "-t", "tmpfs", "tmpfs", str(out)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a disk is not allowed here")
    try:
        (out / "lost+found").mkdir()
        for seed in (0, 1):
            prepare_frame(random_log(seed), tmp_path)
            assert os.path.ismount(out) and rows(out) == len(random_log(seed).unique())
        assert sorted(p.name for p in out.iterdir()) == ["lost+found", "manifest.json", "samples", "state"]
    finally:
        subprocess.run(["umount", str(out)], check=True)


@pytest.mark.tried("data folders", "prepare --out on a full disk", "the folder is named; what it held is as it was")
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_frame(random_log(0), tmp_path)
    before = files(tmp_path / "out")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(UserError, match=rf"--out {tmp_path / 'out'}: no space left on its disk"):
        prepare_frame(random_log(1), tmp_path)
    assert files(tmp_path / "out") == before and rows(tmp_path / "out") == len(random_log(0).unique())


def named(content: dict) -> set[str]:
    """The manifest and the files that it names."""
    return {"manifest.json", *(p["path"] for p in content["partitions"]), *content["state"]["files"]}


class Killed(BaseException):
    """Stands for a kill: nothing after it is cleaned up."""


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch):
    """killed(function, count): calls of a function of `place` up to the one that is killed."""

    def killed(function: str, count: int) -> None:
        real, calls = getattr(place, function), []

        def call(*arguments: object) -> object:
            calls.append(None)
            if len(calls) == count:
                # As after SIGKILL, nobody tidies up.
                monkeypatch.setattr(place.shutil, "rmtree", lambda *_, **__: None)
                monkeypatch.setattr(place, "_remove_unnamed", lambda out: None)
                raise Killed
            return real(*arguments)

        monkeypatch.setattr(place, function, call)

    return killed


@pytest.mark.parametrize(
    ("function", "count"),
    [
        pytest.param(
            *("_place", n), marks=pytest.mark.tried("data folders", "prepare killed over older data", "the old is read")
        )
        for n in (1, 2, 5)
    ]
    + [("write_atomic", 1)],
)
def test_a_kill_leaves_the_old_data(function: str, count: int, tmp_path: Path, killed, monkeypatch) -> None:
    old, new = random_log(0), random_log(1, rows=120)
    prepare_frame(old, tmp_path)
    before = (tmp_path / "out" / "manifest.json").read_text()
    with pytest.raises(Killed):
        killed(function, count)
        prepare_frame(new, tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "out" / "manifest.json").read_text() == before and rows(tmp_path / "out") == len(old.unique())
    prepare_frame(new, tmp_path)
    content = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert rows(tmp_path / "out") == len(new.unique())
    assert files(tmp_path / "out") == named(content)


def test_a_kill_of_the_removal_of_old_files_leaves_the_new_data(tmp_path: Path, killed, monkeypatch) -> None:
    prepare_frame(random_log(0), tmp_path)
    with pytest.raises(Killed):
        killed("_remove_unnamed", 1)
        prepare_frame(random_log(1, rows=120), tmp_path)
    monkeypatch.undo()
    assert rows(tmp_path / "out") == len(random_log(1, rows=120).unique())


@pytest.mark.tried("data folders", "prepare killed in a new folder", "no data folder yet; prepared again it is one")
def test_a_kill_in_a_new_folder_leaves_what_the_next_removes(tmp_path: Path, killed, monkeypatch) -> None:
    with pytest.raises(Killed):
        killed("_place", 3)
        prepare_frame(random_log(0), tmp_path)
    monkeypatch.undo()
    with pytest.raises(UserError, match="not a prepared data folder"):
        DataFolder.open(tmp_path / "out")
    content = prepare_frame(random_log(1), tmp_path)
    assert files(tmp_path / "out") == named(content)


@pytest.mark.tried("data folders", "--out with a folder samples/ of one's own", "refused, nothing is removed")
def test_a_folder_of_other_samples_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out" / "samples").mkdir(parents=True)
    (tmp_path / "out" / "samples" / "own.parquet").touch()
    with pytest.raises(UserError, match="holds something else than prepared data"):
        prepare_frame(random_log(0), tmp_path)
    assert (tmp_path / "out" / "samples" / "own.parquet").exists()


def test_files_that_stay_the_same_keep_their_names_and_others_get_new_ones(tmp_path: Path) -> None:
    log = random_log(0)
    first = prepare_frame(log, tmp_path)
    names = [p["path"] for p in first["partitions"]]
    assert {Path(n).name for n in names} == {"part-0.parquet"}
    assert prepare_frame(log, tmp_path) == first
    # The last event of the log is another one: only its day's file changes.
    last = log.filter(pl.col("time") == log["time"].max())
    changed = pl.concat(
        [log.filter(pl.col("time") < log["time"].max()), last.with_columns(click=1 - pl.col("click").fill_null(0))]
    )
    changed_content = prepare_frame(changed, tmp_path)
    second = [p["path"] for p in changed_content["partitions"]]
    assert second[:-1] == names[:-1] and Path(second[-1]) == Path(names[-1]).with_name("part-1.parquet")
    assert files(tmp_path / "out") == named(changed_content)
    assert prepare_frame(log, tmp_path) == first
