"""Smaller tables: what they change is written down, and too great a loss refused."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from tiny import sample_base

from coldrank.cli.main import main
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.serving.export import parity, write
from coldrank.serving.export.structure import load_script
from coldrank.serving.tables import quantized
from coldrank.train.config import to_dict


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
    assert "like differs by 2e-05 from the trained model's answer; at most 1e-05" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [[], ["--tables", "int8"], ["--tables", "float16", "--allow-loss"]])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.tried(
    "exports", "a model that answers one row with NaN or infinity, at any precision of the tables", "refused"
)
def test_a_model_that_answers_no_number_is_refused(options, value, run: Path, tmp_path: Path, monkeypatch, capsys):
    def broken(path: Path) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
        model = load_script(path)

        def answers(request: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            given = model(request)
            given["like"][3] = value
            return given

        return answers

    monkeypatch.setattr(write, "load_script", broken)
    assert main(["export", "--run", str(run), "--out", str(tmp_path / "out"), *options]) == 2
    assert "the exported model gives 1 of 200 rows no number for like" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.tried("exports", "a trained model that answers a row with NaN", "refused, the task named")
def test_a_trained_model_that_answers_nan_is_refused():
    right = pl.DataFrame({"user_id": [1, 2], "prob_like": [0.5, 0.5]})
    wrong = right.with_columns(prob_like=pl.Series([0.5, None]).fill_null(float("nan")))
    parity.check_finite(parity.Both({"like": 0.0}, right, right), "run")
    for trained, served, whose in ((wrong, right, "trained"), (right, wrong, "exported"), (wrong, wrong, "trained")):
        with pytest.raises(UserError, match=f"run: the {whose} model gives 1 of 2 rows no number for like"):
            parity.check_finite(parity.Both({"like": 0.0}, trained, served), "run")


@pytest.mark.tried("exports", "int8 rows of any scale", "the largest value is not clipped: off by half a step at most")
def test_the_largest_value_of_an_int8_row_is_not_clipped():
    torch.manual_seed(0)
    table = torch.randn(4000, 5) * torch.logspace(-6, 3, 4000).unsqueeze(1)
    codes, steps = quantized(table)
    step, low = steps.float().unbind(1)
    largest = table.amax(1)
    assert ((largest - low) / step).max() <= 255.001  # of which `clamp` takes nothing
    read = codes.float().amax(1) * step + low
    assert ((read - largest).abs() <= step * 0.5001).all()
    # And it is the finest step that float16 has for the row: the one before is too small.
    before = (steps[:, 0].view(torch.int16) - 1).view(torch.float16).float()
    assert (before * 255 < largest - low).all()
