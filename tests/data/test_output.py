"""Where commands write: links are followed, and what cannot be written is refused before any work."""

import errno
import os
from pathlib import Path

import polars as pl
import pytest
from tiny import sample_base

from coldrank.cli.main import main
from coldrank.data.errors import UserError
from coldrank.data.output import check_new, new_folder
from coldrank.train.evaluate import write_predictions
from coldrank.train.run_folder import RunFolder

# Inputs that are not there: a command that looked at them first would say so.
WRITE = {
    "prepare": ["prepare", "log", "--spec", "none.py", "--data", "none", "--out"],
    "simulate": ["simulate", "--events", "10", "--out"],
    "check": ["check", "--data", "none", "--out"],
    "tune": ["tune", "--config", "none", "--arms", "a", "--vary", "x=1|2", "--data", "none", "--out"],
    "arms": ["train", "--config", "none", "--arms", "a", "--data", "none", "--out"],
    "evaluate": ["evaluate", "--run", "none", "--data", "none", "--predictions"],
    "compare": ["compare", "none", "nil", "--out"],
    "explain": ["explain", "none", "--data", "none", "--out"],
    "export": ["export", "--run", "none", "--out"],
    "score": ["score", "--artifact", "none", "--input", "none", "--out"],
}


@pytest.fixture(params=WRITE)
def command(request: pytest.FixtureRequest) -> list[str]:
    return WRITE[request.param]


def refused(command: list[str], out: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """What the command says as its one line; nothing may be written beside."""
    beside = sorted(out.parent.iterdir()) if out.parent.is_dir() and out.parent != Path("/proc") else []
    assert main([*command, str(out)]) == 2
    assert beside == (sorted(out.parent.iterdir()) if beside else [])
    (line,) = capfd.readouterr().err.strip().splitlines()
    return line


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here, where nobody may write a file")
@pytest.mark.tried("data folders", "a target in a folder where nothing can be written", "refused before any work")
def test_a_read_only_place_is_refused_first(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert "/proc/out: cannot write in /proc: " in refused(command, Path("/proc/out"), capfd)


@pytest.mark.tried("data folders", "a target below a file", "refused before any work")
def test_a_target_below_a_file_is_refused_first(
    command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is a file, no folder" in refused(command, tmp_path / "file" / "out", capfd)


@pytest.mark.tried("data folders", "a target that is a link to itself", "refused before any work")
def test_a_link_in_a_circle_is_refused_first(
    command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").symlink_to("out")
    assert "out: is a link that leads in a circle" in refused(command, tmp_path / "out", capfd)


@pytest.mark.tried("configs and runs", "evaluate of a run folder that cannot be written", "refused before scoring")
def test_a_read_only_run_is_refused_first(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--run", "/proc", "--data", "none"]) == 2
    assert "--run /proc: cannot write in /proc: " in capfd.readouterr().err


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("folder", marks=pytest.mark.tried("data folders", "--predictions FOLDER", "refused")),
        pytest.param("/dev/null", marks=pytest.mark.tried("data folders", "--predictions /dev/null", "refused")),
    ],
)
def test_predictions_are_a_regular_file(target: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    line = refused(WRITE["evaluate"], tmp_path / target, capfd)
    assert line.endswith("is a folder; give a file" if target == "folder" else "is no regular file; give a file")


@pytest.mark.tried("data folders", "a new folder by a link that leads to nothing yet", "is made where the link leads")
def test_a_new_folder_is_made_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big" / "deep" / "data")
    check_new("--out", tmp_path / "out")
    with new_folder(tmp_path / "out") as folder:
        assert folder.parent == tmp_path / "big" / "deep"
        (folder / "a").write_text("1")
    assert (tmp_path / "out").is_symlink() and (tmp_path / "big/deep/data/a").read_text() == "1"
    with pytest.raises(UserError, match="exists already"):
        check_new("--out", tmp_path / "out")


def test_simulate_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "big")
    assert main(["simulate", "--events", "50", "--days", "3", "--out", str(tmp_path / "log")]) == 0
    assert (tmp_path / "log").is_symlink() and (tmp_path / "big" / "simulation.json").is_file()


@pytest.mark.tried("data folders", "--predictions that is a link to a file", "the file is replaced, the link stays")
def test_predictions_go_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "old.parquet").write_text("old")
    (tmp_path / "p.parquet").symlink_to("big/old.parquet")
    write_predictions(pl.DataFrame({"prob_like": [0.25]}), tmp_path / "p.parquet")
    assert (tmp_path / "p.parquet").is_symlink()
    assert pl.read_parquet(tmp_path / "big" / "old.parquet")["prob_like"].to_list() == [0.25]
    assert [p.name for p in (tmp_path / "big").iterdir()] == ["old.parquet"]


@pytest.mark.tried("data folders", "a file that is mounted by itself and cannot be renamed over", "is written in place")
def test_a_file_that_cannot_be_replaced_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    (tmp_path / "p.parquet").write_text("old")
    write_predictions(pl.DataFrame({"prob_like": [0.5]}), tmp_path / "p.parquet")
    assert pl.read_parquet(tmp_path / "p.parquet")["prob_like"].to_list() == [0.5]
    assert [p.name for p in tmp_path.iterdir()] == ["p.parquet"]


@pytest.mark.tried("configs and runs", "a run folder by a link that leads to nothing yet", "is made where it leads")
def test_a_run_starts_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "big")
    folder = RunFolder(tmp_path / "run")
    folder.check(None)
    folder.clear()
    folder.start(sample_base(), "")
    assert (tmp_path / "run").is_symlink() and (tmp_path / "big" / "config.json").is_file()


@pytest.mark.tried("configs and runs", "checkpoints/ that is a link, and --fresh", "are removed, the link stays")
def test_a_fresh_start_keeps_the_links_of_a_run_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start(sample_base(), "")
    for name in ("disk", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes" / "own.txt").touch()
    (tmp_path / "disk" / "step-5").mkdir()
    (tmp_path / "disk" / "step-5" / "progress.json").touch()
    folder.checkpoints.symlink_to(tmp_path / "disk")
    (folder.path / "notes").symlink_to(tmp_path / "notes")
    folder.clear()
    assert sorted(p.name for p in folder.path.iterdir()) == ["checkpoints", "notes"]
    assert not list((tmp_path / "disk").glob("step-5")) and (tmp_path / "notes" / "own.txt").exists()
    folder.check(None)
