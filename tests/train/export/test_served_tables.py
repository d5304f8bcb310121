"""Smaller tables: what they change is written down, and too great a loss refused."""

import json
from pathlib import Path

import pytest
from tiny import sample_base

from coldrank.train.config import to_dict
from coldrank.train.data.batches import DataFolder
from coldrank.train.export import parity
from coldrank.train.main import main


@pytest.fixture(scope="module")
def run(data: DataFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "arm.json").write_text(json.dumps(to_dict(sample_base())))
    command = ["train", "--config", str(folder / "arm.json"), "--data", str(data.path), "--out", str(folder / "run")]
    assert main([*command, "--set", "train.steps=20"]) == 0
    return folder / "run"


def test_smaller_tables_say_what_they_change(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parity, "LOSS", 1.0)  # of 200 rows the metrics say little
    told = {}
    for tables in ("float32", "float16", "int8"):
        out = tmp_path / tables
        assert main(["export", "--run", str(run), "--out", str(out), "--tables", tables]) == 0
        told[tables] = json.loads((out / "parity.json").read_text())
        assert told[tables]["tables"] == tables and told[tables]["rows"] == 200
        assert set(told[tables]["metrics"]["like"]) == {
            f"{m}{x}" for m in ("auc", "gauc") for x in ("_trained", "", "_change")
        }
    differences = [told[t]["largest_difference"] for t in ("float32", "float16", "int8")]
    assert differences[0] < 1e-6 < differences[1] < differences[2] < 0.05
    assert told["float16"]["bytes"] < told["float32"]["bytes"]


def test_a_loss_of_gauc_refuses_the_export_unless_allowed(run: Path, tmp_path: Path, monkeypatch, capsys):
    found = parity.changes

    def worse(both: parity.Both, trained: parity.Trained) -> dict[str, dict[str, float | None]]:
        changes = found(both, trained)
        changes["like"]["gauc_change"] = -0.0011
        return changes

    monkeypatch.setattr(parity, "changes", worse)
    export = ["export", "--run", str(run), "--out", str(tmp_path / "out"), "--tables", "int8"]
    assert main(export) == 2
    message = "--tables int8: loses 0.110 points of GAUC of like, more than 0.1; --allow-loss exports it all the same"
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main([*export, "--allow-loss"]) == 0


def test_a_float32_model_that_differs_is_refused(run: Path, tmp_path: Path, monkeypatch, capsys):
    scored = parity.score_both
    off = lambda *arguments: parity.Both(
        {"like": 2e-5}, *(getattr(scored(*arguments), n) for n in ("trained", "served"))
    )
    monkeypatch.setattr(parity, "score_both", off)
    assert main(["export", "--run", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "probability of like differs by 2e-05 from the trained model's; at most 1e-05" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
