"""Which folders hold runs, which hold none, and how runs are grouped."""

from pathlib import Path

import pytest
from compared import write_run

from coldrank.analysis.compare.runs import group_by_arm, read_run, run_folders, without_run
from coldrank.data.errors import UserError


def test_a_folder_of_runs_stands_for_them_in_order(tmp_path: Path) -> None:
    for name in ("many/b", "many/a", "one"):
        write_run(tmp_path / name, "x", 1)
    (tmp_path / "none").mkdir()
    (tmp_path / "many/c").mkdir()
    folders = [tmp_path / name for name in ("one", "many", "none")]
    assert run_folders(folders) == [tmp_path / name for name in ("one", "many/a", "many/b", "none")]


def test_runs_that_never_began_are_told_with_the_end_of_their_log(tmp_path: Path) -> None:
    write_run(tmp_path / "one", "x", 1)
    write_run(tmp_path / "many/a", "x", 2)
    logs = {"many/a": "fine", "many/b": "first\nreading 10%\rno space\n", "many/c": "", "one/d": "not looked at"}
    for name, text in logs.items():
        (tmp_path / f"{name}.log").write_text(text)
    line = "Failed, and left out: {} (no run in it; its log ends: {})."
    assert without_run([tmp_path / "one", tmp_path / "many"]) == [
        line.format(tmp_path / "many/b", "no space"),
        line.format(tmp_path / "many/c", "nothing"),
    ]


def test_runs_are_grouped_by_arm_and_sorted_by_seed(tmp_path: Path) -> None:
    runs = []
    for arm, seed in (("poso", 3), ("base", 2), ("poso", 1), ("base", 5)):
        write_run(tmp_path / f"{arm}-{seed}", arm, seed)
        runs.append(read_run(tmp_path / f"{arm}-{seed}", "test"))
    by_arm = group_by_arm(runs)
    assert [(arm, [r.seed for r in members]) for arm, members in by_arm.items()] == [("poso", [1, 3]), ("base", [2, 5])]
    with pytest.raises(UserError, match="poso-1 and .*poso-1 are both arm poso, seed 1; give one of them"):
        group_by_arm([*runs, runs[2]])
