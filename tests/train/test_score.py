"""`coldrank score`: every row once, in order, also after a kill."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from export.served import CONFIGS, random_model

from coldrank.train import score
from coldrank.train.data.batches import DataFolder
from coldrank.train.export.signature import signature
from coldrank.train.export.trained import Trained
from coldrank.train.export.write import save_script
from coldrank.train.main import main


@pytest.fixture(scope="module")
def trained(data: DataFolder) -> Trained:
    return random_model(CONFIGS["poso"](), data)


@pytest.fixture(scope="module")
def artifact(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export folder with what `score` reads."""
    folder = tmp_path_factory.mktemp("artifact")
    twin = trained.twin(trained.columns())
    save_script(twin, folder / "model.pt")
    (folder / "signature.json").write_text(json.dumps(signature(twin.inputs, trained.tasks, {})))
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 64 rows."""
    monkeypatch.setattr(score, "BATCH", 32)
    monkeypatch.setattr(score, "PART", 2)


def train_file(data: DataFolder) -> Path:
    return data.files(("train",))[0]


def test_every_row_gets_the_trained_model_s_probability(artifact, data, trained, tmp_path, small):
    source, out = train_file(data), tmp_path / "scores.parquet"
    assert main(["score", "--artifact", str(artifact), "--input", str(source), "--out", str(out)]) == 0
    scored, samples = pl.read_parquet(out), pl.read_parquet(source)
    kept = [c for c in scored.columns if not c.startswith("prob_")]
    assert kept == ["user_id", "item_id", "time", "user_views", "item_views", "label_long_view", "label_like"]
    assert scored.select(kept).equals(samples.select(kept))
    reader = score.SampleReader([source], trained.make.columns(), 1000)
    wanted = trained.scores(next(reader.epoch(0)))
    given = torch.from_numpy(scored.select("prob_long_view", "prob_like").to_numpy().copy())
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]


def test_goes_on_after_a_kill_with_the_same_model_only(artifact, data, tmp_path, small, monkeypatch, capsys):
    source, out = train_file(data), tmp_path / "scores.parquet"
    scored: list[int] = []
    whole = score.Artifact.score

    def dies(self: score.Artifact, raw: score.Raw) -> pl.DataFrame:
        scored.append(len(raw["user_id"]))
        if len(scored) == 8:
            raise KeyboardInterrupt
        return whole(self, raw)

    monkeypatch.setattr(score.Artifact, "score", dies)
    command = ["score", "--artifact", str(artifact), "--input", str(source), "--out", str(out)]
    assert main(command) == 130
    assert not out.exists() and len(list((tmp_path / "scores.parquet.partial").glob("part-*.parquet"))) == 3
    assert main(command) == 0
    assert sum(scored) == 600 + 2 * 32  # the two batches after the last whole part
    assert "goes on from row 192" in capsys.readouterr().out
    monkeypatch.setattr(score.Artifact, "score", whole)
    again = tmp_path / "again.parquet"
    assert main([*command[:-1], str(again)]) == 0
    assert again.read_bytes() == out.read_bytes()
    parts = tmp_path / "third.parquet.partial"
    parts.mkdir()
    (parts / "what.json").write_text("{}")
    (parts / "part-000000.parquet").write_bytes(b"of something else")
    assert main([*command[:-1], str(tmp_path / "third.parquet")]) == 0
    assert (tmp_path / "third.parquet").read_bytes() == out.read_bytes()


def test_files_without_rows_or_labels_are_scored(artifact, data, tmp_path):
    frame = pl.read_parquet(train_file(data)).drop("label_like", "time")
    for rows in (0, 3):
        frame.head(rows).write_parquet(tmp_path / f"{rows}.parquet")
        out = tmp_path / f"out-{rows}.parquet"
        assert (
            main(
                ["score", "--artifact", str(artifact), "--input", str(tmp_path / f"{rows}.parquet"), "--out", str(out)]
            )
            == 0
        )
        scored = pl.read_parquet(out)
        assert scored.height == rows and "label_like" not in scored.columns and "prob_like" in scored.columns


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("item_id"), "no column 'item_id'"),
        (lambda f: f.with_columns(pl.lit(0.5).alias("user_id")), "column 'user_id' is double, should be an integer"),
        (
            lambda f: f.with_columns(pl.lit(2).alias("item_views").truediv(0)),
            "'item_views', row 1: inf is not a finite",
        ),
    ],
)
def test_mistakes_are_one_line(artifact, data, tmp_path, capsys, change, message):
    change(pl.read_parquet(train_file(data))).write_parquet(tmp_path / "x.parquet")
    command = [
        "score",
        "--artifact",
        str(artifact),
        "--input",
        str(tmp_path / "x.parquet"),
        "--out",
        str(tmp_path / "y.parquet"),
    ]
    assert main(command) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_what_is_there_is_not_overwritten(artifact, data, tmp_path, capsys):
    (tmp_path / "y.parquet").write_text("mine")
    command = [
        "score",
        "--artifact",
        str(artifact),
        "--input",
        str(train_file(data)),
        "--out",
        str(tmp_path / "y.parquet"),
    ]
    assert main(command) == 2
    assert main(["score", "--artifact", str(tmp_path), "--input", str(train_file(data)), "--out", "z"]) == 2
    assert "no export folder" in capsys.readouterr().err
