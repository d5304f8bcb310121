"""`make quickstart`: commands that exist, on a log with something to gain; on real logs nothing of the simulator."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from coldrank.cli.main import parser
from coldrank.train.load import load

ROOT = Path(__file__).resolve().parents[2]


def commands(*arguments: str) -> list[str]:
    """The recipe's lines, not run."""
    # Of a make that runs the tests nothing is handed on: it would say which folder it is in.
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    said = subprocess.run(
        ["make", "-n", "quickstart", *arguments], cwd=ROOT, env=env, check=True, capture_output=True, text=True
    )
    return said.stdout.replace("\\\n", " ").splitlines()


def parsed(lines: list[str], command: str):
    """What the only call of a command in the recipe says."""
    (line,) = (line for line in lines if f"bin/coldrank {command} " in line)
    words = shlex.split(line.partition(f"bin/coldrank {command} ")[2].partition(" >")[0].replace("'", ""))
    return parser().parse_args([command, *words])


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


def test_the_simulated_log_has_something_to_gain_and_the_last_line_speaks_of_it():
    lines = commands()
    log = parsed(lines[: next(i for i, line in enumerate(lines) if " prepare " in line)], "simulate")
    assert log.gate_strength > 1 and log.new_user_share >= 0.1
    trained = parsed(lines, "train")
    for arm in ("base", "poso"):
        config = load(trained.config.replace("ARM", arm), trained.set)
        assert config.name == arm and config.train.threads == 1
    assert parsed(lines, "prepare").test_from and parsed(lines, "compare").runs
    assert (ROOT / "benchmarks/gain.py").exists() and "benchmarks/gain.py" in lines[-1]


def test_real_logs_get_the_arms_as_they_are():
    lines = commands("DATA=my/logs")
    assert not any("simulat" in line or "gain.py" in line or "optim.dense.lr" in line for line in lines)
    assert str(parsed(lines, "prepare").data) == "my/logs" and parsed(lines, "train").set == ["train.threads=1"]
