"""`coldrank score`: every row once, in order, also after a kill."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from served import CONFIGS, exported, random_model

from coldrank.cli.main import main
from coldrank.data.batches import DataFolder
from coldrank.serving import score
from coldrank.serving.export.trained import Trained


@pytest.fixture(scope="module")
def trained(data: DataFolder) -> Trained:
    return random_model(CONFIGS["poso"](), data)


@pytest.fixture(scope="module")
def artifact(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export folder with what `score` reads."""
    folder = tmp_path_factory.mktemp("artifact") / "export"
    exported(trained, folder)
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


def score_to(artifact: Path, source: Path, out: Path) -> int:
    return main(["score", "--artifact", str(artifact), "--input", str(source), "--out", str(out)])


@pytest.mark.tried(
    "exports", "`score --input` of a folder of Parquet files", "all are read, in the order of their names"
)
@pytest.mark.tried(
    "exports", "names with _ or . in it, other files, `[x]*` in its path", "left out and told; no pattern"
)
def test_a_folder_is_read_as_its_files_end_to_end(artifact, data, tmp_path, small, capsys):
    frame = pl.read_parquet(train_file(data))
    source = tmp_path / "in[1]*" / "day=5"
    (source / "b").mkdir(parents=True)
    frame[:100].write_parquet(source / "a.parquet")
    frame[100:130].write_parquet(source / "b" / "part-0.PARQUET")
    frame[130:131].write_parquet(source / "c.parquet")
    frame[:7].write_parquet(source / "_left.parquet")
    frame[:7].write_parquet(source / ".hidden.parquet")
    (source / "_SUCCESS").touch()
    (source / "notes.txt").touch()
    (tmp_path / "y=1").mkdir()
    frame[:131].write_parquet(tmp_path / "one.parquet")
    assert score_to(artifact, tmp_path / "in[1]*", tmp_path / "y=1" / "all.parquet") == 0
    assert "notes.txt (not Parquet)" in capsys.readouterr().out
    assert score_to(artifact, tmp_path / "one.parquet", tmp_path / "one-out.parquet") == 0
    one = pl.read_parquet(tmp_path / "one-out.parquet")
    assert one.height == 131
    assert pl.read_parquet(tmp_path / "y=1" / "all.parquet", hive_partitioning=False).equals(one)


def unreadable(given: str, answer: str, make: Callable[[pl.DataFrame, Path], object], message: str) -> Any:
    """make: what writes a folder, of some rows."""
    return pytest.param(make, message, marks=pytest.mark.tried("exports", given, answer))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        unreadable(
            "`score --input` of a folder without Parquet files",
            "refused, and told what is there",
            lambda f, d: (d / "x.txt").touch(),
            "holds no Parquet files; left out: x.txt (not Parquet)",
        ),
        unreadable(
            "files of a folder with other columns",
            "the file without the column is named",
            lambda f, d: (f.write_parquet(d / "a.parquet"), f.drop("label_like").write_parquet(d / "b.parquet")),
            "b.parquet: no column 'label_like'",
        ),
        unreadable(
            "a file that is no Parquet among those of a folder",
            "named",
            lambda f, d: (f.write_parquet(d / "a.parquet"), (d / "b.parquet").write_text("x")),
            "b.parquet: is not Parquet",
        ),
        unreadable(
            "a link in a folder that leads nowhere",
            "named",
            lambda f, d: (d / "a.parquet").symlink_to(d / "none.parquet"),
            "a link that leads nowhere",
        ),
    ],
)
def test_a_folder_that_cannot_be_read_is_named(artifact, data, tmp_path, capsys, make, message):
    (tmp_path / "in").mkdir()
    make(pl.read_parquet(train_file(data))[:9], tmp_path / "in")
    assert score_to(artifact, tmp_path / "in", tmp_path / "y.parquet") == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "y.parquet").exists()


@pytest.mark.tried(
    "exports", "a label that only a later file of a folder has", "the file without it is named; no label is lost"
)
def test_no_label_is_lost_in_a_folder(artifact, data, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    frame = pl.read_parquet(train_file(data))[:9]
    frame.drop("label_like").write_parquet(tmp_path / "in" / "a.parquet")
    frame.write_parquet(tmp_path / "in" / "b.parquet")
    assert score_to(artifact, tmp_path / "in", tmp_path / "y.parquet") == 2
    assert "a.parquet: no column 'label_like'" in capsys.readouterr().err


@pytest.mark.tried(
    "exports", "`score` with a two-tower model", "the probabilities that `evaluate` reports, not inner products"
)
@pytest.mark.parametrize("over", [{}, {"candidates": "items", "log_q": True}], ids=["users", "items"])
def test_a_two_tower_model_s_scores_are_probabilities(data, tmp_path, over):
    config = CONFIGS["two_tower"]()
    trained = random_model(replace(config, model=replace(config.model, **over)), data)
    exported(trained, tmp_path / "export")
    assert score_to(tmp_path / "export", train_file(data), tmp_path / "y.parquet") == 0
    raw = next(score.SampleReader([train_file(data)], trained.make.columns(), 1000).epoch(0))
    wanted = torch.sigmoid(trained.task(trained.make(raw)).logits)[:, 0].detach()
    given = torch.from_numpy(pl.read_parquet(tmp_path / "y.parquet")["prob_like"].to_numpy().copy())
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)


@pytest.mark.tried("exports", "`score --out` inside the folder of `--input`", "refused")
@pytest.mark.tried("exports", "`score --input` that is not there", "refused")
def test_where_the_scores_go(artifact, tmp_path, capsys):
    assert score_to(artifact, tmp_path, tmp_path / "deep" / "y.parquet") == 2
    assert "of which every file is read; give another place" in capsys.readouterr().err
    assert score_to(artifact, tmp_path / "none", tmp_path / "y.parquet") == 2
    assert "none: no such file or folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(content, message, marks=pytest.mark.tried("data folders", f"score: an input {what}", "named"))
        for what, content, message in [
            ("of 0 bytes", b"", "is empty: 0 bytes"),
            ("that is text", b"user_id\n1\n", "is not Parquet: it begins with b'user'"),
            ("cut off", b"PAR1 and then no more", "is cut off: 21 bytes, and no footer at their end"),
        ]
    ],
)
def test_a_damaged_input_is_named(artifact, tmp_path, capfd, content, message):
    (tmp_path / "in.parquet").write_bytes(content)
    command = ["score", "--artifact", artifact, "--input", tmp_path / "in.parquet", "--out", tmp_path / "out.parquet"]
    assert main([str(word) for word in command]) == 2
    assert f"coldrank score: {tmp_path / 'in.parquet'}: {message}\n" in capfd.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]
