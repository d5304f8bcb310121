"""The page for one's own data, as a newcomer follows it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own-data.md"


@pytest.mark.slow
def test_every_command_of_the_page_runs(tmp_path: Path):
    blocks = re.findall(r"```(python|sh)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "sh", "sh", "sh", "python", "sh", "sh", "sh"]
    coldrank = tmp_path / "bin" / "coldrank"
    coldrank.parent.mkdir()
    coldrank.write_text(f'#!/bin/sh\nexec {sys.executable} -m coldrank.cli.main "$@"\n')
    coldrank.chmod(0o755)
    environment = os.environ | {"PATH": f"{coldrank.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    said = ""
    for kind, text in blocks:
        command = [sys.executable, "-c", text] if kind == "python" else ["sh", "-ec", text]
        done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        said += done.stdout
    assert "user customer, item product_id, time shown; labels clicked, bought" in said
    assert "no event is later than those that it has" in said
    for name in ("comparison", "comparison-2"):
        assert (tmp_path / "mine" / name / "report.html").is_file()
    assert "base_without_history" in (tmp_path / "mine/comparison-2/compare.md").read_text()
    assert pl.read_parquet(tmp_path / "mine/scores.parquet")["prob_clicked"].is_between(0, 1).all()
