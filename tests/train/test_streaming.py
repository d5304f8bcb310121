"""Streams of periods: what is scored is never known, runs that were cut or whose data grew end as those that were
not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from periods import write_periods
from retrieving import two_tower
from tiny import sample_base

from coldrank.configs import base as arms
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.train import checkpoint, streaming
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig
from coldrank.train.hooks.hook import HookModule
from coldrank.train.over_passes import passes_as_stage
from coldrank.train.sections import DenseConfig
from coldrank.train.task import RankingTask
from coldrank.train.trainer import train

DAYS = [f"2022-05-0{d}" for d in range(1, 6)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return DataFolder.open(write_periods(tmp_path_factory.mktemp("data") / "d", DAYS))


def streamed(config: RunConfig, **train_fields: object) -> RunConfig:
    fields = {"mode": "periods", "first_period": DAYS[2], "look_back": (0, 2), "log_every": 3, **train_fields}
    return replace(config, train=replace(config.train, **fields))


@pytest.fixture(scope="module")
def config():
    config = arms.poso(sample_base())
    return streamed(replace(config, model=replace(config.model, dropout=0.2)))


@pytest.fixture(scope="module")
def whole(data, ranks, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(config, data, folder, ranks, fresh=False, diff="")
    return folder


def rows_of(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [r for r in rows if r["metric"] != "samples_per_second"]


def pooled(row: dict) -> bool:
    return row["split"] == "next" and row["period"] is None


def predictions(folder: Path) -> dict[str, bytes]:
    return {
        p.name: p.read_bytes()
        for p in sorted(folder.glob("predictions-next*/*")) + [folder / "predictions-next.parquet"]
    }


def test_every_period_is_scored_before_it_is_trained_on(data, whole):
    rows = rows_of(whole)
    # 320 rows of the warm part in 5 steps of 64, 160 rows a period in 3.
    assert json.loads((whole / "run.json").read_text())["periods"] == dict(zip(DAYS[1:], (5, 8, 11, 14), strict=True))
    steps = {r["period"]: r["step"] for r in rows if r["split"] == "next" and r["period"]}
    assert steps == {DAYS[2]: 5, DAYS[3]: 8, DAYS[4]: 11}
    looked = {(r["period"], r["step"]) for r in rows if r["split"] == "back"}
    assert looked == {
        (DAYS[1], 5),
        *((DAYS[i], 3 * i + 2) for i in (2, 3, 4)),
        *((DAYS[i - 2], 3 * i + 2) for i in (2, 3, 4)),
    }
    frame = pl.read_parquet(whole / "predictions-next.parquet")
    summary = json.loads((whole / "summary.json").read_text())
    assert {(r["step"], r["period"], r["split"]) for r in summary} == {(14, None, "next")}
    known = frame["label_like"].drop_nulls()
    rate = next(r for r in summary if (r["cohort"], r["task"], r["metric"]) == ("all", "like", "label_rate"))
    assert rate["value"] == pytest.approx(known.mean()) and rate["n"] == len(known)


def test_rows_that_are_not_later_than_all_training_are_not_scored(data, whole):
    trained_until = -1
    for day in DAYS:
        parts = [p for p in data.manifest["partitions"] if p["period"] == day]
        times = sorted(t for p in parts for t in pl.read_parquet(data.path / p["path"], columns=["time"])["time"])
        if day >= DAYS[2]:
            scored = pl.read_parquet(whole / f"predictions-next/{day}.parquet")["time"].to_list()
            assert scored == [t for t in times if t > trained_until] and len(scored) == 150
        trained_until = times[-1]


def perturbed(data: DataFolder, folder: Path, first: str) -> DataFolder:
    """The same rows with other labels, ids and values from a period on."""
    shutil.copytree(data.path, folder)
    rng = np.random.default_rng(0)
    for p in (p for p in data.manifest["partitions"] if p["period"] >= first):
        frame = pl.read_parquet(folder / p["path"], hive_partitioning=False)
        n = frame.height
        frame.with_columns(
            pl.Series("label_long_view", rng.integers(0, 2, n), pl.Int8),
            pl.Series("label_like", rng.integers(0, 2, n), pl.Int8),
            pl.Series("user_id", rng.integers(0, 40, n)),
            pl.Series("user_gap_h", 99 * rng.random(n), pl.Float32),
            pl.Series("rate_user_long_view", rng.random(n), pl.Float32),
        ).write_parquet(folder / p["path"], row_group_size=32)
    return DataFolder.open(folder)


def test_the_future_changes_no_prediction(data, ranks, config, whole, tmp_path):
    changed = perturbed(data, tmp_path / "changed", DAYS[4])
    train(config, changed, tmp_path / "run", ranks, fresh=False, diff="")
    ours, theirs = predictions(tmp_path / "run"), predictions(whole)
    assert [name for name in theirs if ours[name] == theirs[name]] == [f"{DAYS[2]}.parquet", f"{DAYS[3]}.parquet"]
    until = lambda folder: [r for r in rows_of(folder) if r["step"] < 11 or r["split"] == "back" and r["step"] == 11]
    assert until(tmp_path / "run") == until(whole)


@pytest.mark.parametrize(("order", "steps"), [("random", n) for n in (3, 5, 7, 8, 10)] + [("time", 7), ("time", 11)])
def test_a_run_that_was_cut_ends_as_one_that_was_not(data, ranks, config, whole, tmp_path, order, steps):
    if order == "time":
        config, whole = replace(config, data=replace(config.data, order=order)), tmp_path / "whole"
        train(config, data, whole, ranks, fresh=False, diff="")
    short = replace(config, train=replace(config.train, steps=steps, checkpoint_every=2, keep_checkpoints=9))
    train(short, data, tmp_path / "run", ranks, fresh=False, diff="")
    if steps in (7, 10, 11):  # killed before this checkpoint: the one before is inside of a period, or at its end
        shutil.rmtree(tmp_path / f"run/checkpoints/step-{steps}")
    train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    assert rows_of(tmp_path / "run") == rows_of(whole)
    assert predictions(tmp_path / "run") == predictions(whole)
    assert (tmp_path / "run/summary.json").read_bytes() == (whole / "summary.json").read_bytes()


def test_a_folder_that_grows_is_followed(data, ranks, config, whole, tmp_path, monkeypatch):
    """Once by a run that is started again, then by one that waits."""
    folder, out = tmp_path / "d", tmp_path / "run"
    train(config, DataFolder.open(write_periods(folder, DAYS[:3])), out, ranks, fresh=False, diff="")
    before = predictions(out)
    assert list(before) == [f"{DAYS[2]}.parquet", "predictions-next.parquet"]
    shutil.rmtree(folder)
    looks, look = [], streaming._manifest

    def growing(path):
        looks.append(path)
        if len(looks) == 2:
            grow(folder)
        return look(path)

    monkeypatch.setattr(streaming, "POLL_S", 0.05)
    monkeypatch.setattr(streaming, "_manifest", growing)
    train(
        streamed(config, follow_s=1.0),
        DataFolder.open(write_periods(folder, DAYS[:4])),
        out,
        ranks,
        fresh=False,
        diff="",
    )
    assert predictions(out) == predictions(whole)
    assert [r for r in rows_of(out) if not pooled(r)] == [r for r in rows_of(whole) if not pooled(r)]
    assert json.loads((out / "run.json").read_text())["data_digest"] == DataFolder.open(folder).digest
    steps = checkpoint.steps(out / "checkpoints")
    train(config, DataFolder.open(folder), out, ranks, fresh=False, diff="")
    assert checkpoint.steps(out / "checkpoints") == steps and predictions(out) == predictions(whole)


def grow(folder: Path) -> None:
    """As `prepare` does: another folder takes the place of this one."""
    new = write_periods(folder.with_name("new"), DAYS)
    folder.rename(folder.with_name("old"))
    new.rename(folder)


def test_a_past_that_changed_is_refused_by_name(data, ranks, config, tmp_path):
    folder, out = tmp_path / "d", tmp_path / "run"
    shutil.copytree(data.path, folder)
    short = streamed(config, steps=8)
    train(short, DataFolder.open(folder), out, ranks, fresh=False, diff="")
    perturbed(data, tmp_path / "later", DAYS[3])
    train(short, DataFolder.open(tmp_path / "later"), out, ranks, fresh=False, diff="")
    perturbed(data, tmp_path / "past", DAYS[2])
    with pytest.raises(UserError, match=rf"split=test/period={DAYS[2]}/part-0.parquet has bytes \d+, and had \d+ when"):
        train(short, DataFolder.open(tmp_path / "past"), out, ranks, fresh=False, diff="")
    gone = without(data, tmp_path / "gone", DAYS[0])
    with pytest.raises(UserError, match=r"period=2022-05-01/part-0.parquet is no longer there; --fresh starts over"):
        train(short, gone, out, ranks, fresh=False, diff="")


def without(data: DataFolder, folder: Path, day: str) -> DataFolder:
    shutil.copytree(data.path, folder)
    kept = [p for p in data.manifest["partitions"] if p["period"] != day]
    (folder / "manifest.json").write_text(json.dumps(data.manifest | {"partitions": kept}))
    return DataFolder.open(folder)


def test_periods_that_are_told(data, ranks, config, tmp_path, monkeypatch):
    """Hooks hear of the begin and end of every stage; without a warm part the first period is the one not scored."""
    told = []

    class Listening(HookModule):
        def begins(self, run, stage, progress):
            told.append(("begins", stage.name, progress.step))

        def ends(self, run, stage, progress):
            told.append(("ends", stage.name, progress.step))

    monkeypatch.setattr("coldrank.train.run.make_hooks", lambda config, features: {"listening": Listening()})
    train(streamed(config, first_period="", steps=6), data, tmp_path / "run", ranks, fresh=False, diff="")
    expected = [
        (what, day, 3 * i + 3 * (what == "ends")) for i, day in enumerate(DAYS[:2]) for what in ("begins", "ends")
    ]
    assert told == expected
    assert [p.stem for p in (tmp_path / "run/predictions-next").iterdir()] == [DAYS[1]]


@pytest.mark.parametrize(
    ("section", "fields", "said"),
    [
        ("optim", {"decay": "linear"}, "optim.decay='linear': must be 'constant' with train.mode=periods"),
        ("optim", {"dense": DenseConfig(decay="cosine")}, "optim.dense.decay='cosine': must be 'constant' with "),
        ("train", {"epochs": 2}, "train.epochs=2: must be 1 with train.mode=periods"),
        ("train", {"mode": "passes"}, "train.first_period='2022-05-03' is of a stream; set train.mode=periods"),
        ("train", {"look_back": (1, 1)}, r"train.look_back=\[1, 1\]: must be different numbers"),
    ],
)
def test_what_has_no_place_in_a_stream_is_refused(config, section, fields, said):
    with pytest.raises(UserError, match=said):
        validate(replace(config, **{section: replace(getattr(config, section), **fields)}))


def test_a_first_period_that_is_not_there_is_refused(data, ranks, config, tmp_path):
    for first in (DAYS[0], "2023-01"):
        with pytest.raises(
            UserError, match=f"first_period={first}: must be one of the periods of .* {DAYS[0]} to {DAYS[4]}"
        ):
            train(streamed(config, first_period=first), data, tmp_path / "run", ranks, fresh=False, diff="")
    assert not (tmp_path / "run").exists()


def test_a_stream_trains_with_its_batch_size_and_scores_with_the_other(data, ranks, config, tmp_path, monkeypatch):
    config = replace(config, data=replace(config.data, batch_size=50, eval_batch_size=70))
    sizes, forward = {True: [], False: []}, RankingTask.forward

    def noted(task, batch):
        sizes[task.training].append(len(batch))
        return forward(task, batch)

    monkeypatch.setattr(RankingTask, "forward", noted)
    train(streamed(config, look_back=()), data, tmp_path / "run", ranks, fresh=False, diff="")
    # 320 rows of the warm part in buffers of 250; then periods of 160 rows, scored but for the ten that
    # are not later than what was trained on, and trained on.
    assert sizes[True] == [50] * 5 + [50, 20] + [50, 50, 50, 10] * 3
    assert sizes[False] == [70, 70, 10] * 3


@pytest.mark.parametrize("order", ["random", "time"])
def test_stages_are_the_periods_and_their_partitions_in_order_of_time(config, tmp_path, order):
    """Whatever the files are called and in whatever order the manifest has them."""
    listed = [("c", "2", 30), ("z", "1", 10), ("b", "1", 11), ("a", "2", 31), ("d", "3", 50), ("e", "3", 50)]
    parts = [{"path": p, "split": p, "period": d, "rows": 1, "time_min": t, "time_max": t} for p, d, t in listed]
    config = replace(config, data=replace(config.data, order=order))
    found = streaming.stages(DataFolder(tmp_path, {"partitions": parts[::-1]}), streamed(config, first_period="3"))
    warm = [(("1", "2"), "zbca", False)] if order == "random" else [(("1",), "zb", False), (("2",), "ca", False)]
    assert [(s.periods, "".join(p["path"] for p in s.partitions), s.scored) for s in found] == [
        *warm,
        (("3",), "de", True),
    ]
    assert [s.shuffled for s in found] == [order == "random"] * len(warm) + [False]
    first = streaming.stages(DataFolder(tmp_path, {"partitions": parts}), streamed(config, first_period=""))
    assert [s.scored for s in first] == [False, True, True], "by default all but the first period"


def test_the_summary_of_a_retrieval_model_has_the_mean_of_its_periods(ranks, tmp_path):
    data = DataFolder.open(write_periods(tmp_path / "d", DAYS[:4]))
    base = two_tower()
    config = streamed(replace(base, train=replace(base.train, look_back=())), look_back=())
    train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    rows = [r for r in rows_of(tmp_path / "run") if r["split"] == "next" and r["metric"] == "recall@10"]
    of_periods = [r["value"] for r in rows if r["period"] in DAYS[2:4] and r["cohort"] == "all"]
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    (mean,) = (r for r in summary if r["metric"] == "recall@10" and r["cohort"] == "all" and r["split"] == "next")
    assert len(of_periods) == 2 and of_periods[0] != of_periods[1] and mean["period"] is None
    assert mean["value"] == pytest.approx(sum(of_periods) / 2)


def test_passes_are_one_stage_of_what_is_fitted_in_order_of_time(config, tmp_path):
    listed = [("c", "train", "2", 30), ("z", "train", "1", 10), ("b", "valid", "1", 11), ("a", "test", "3", 5)]
    parts = [{"path": p, "split": s, "period": d, "rows": 1, "time_min": t, "time_max": t} for p, s, d, t in listed]
    found = passes_as_stage(DataFolder(tmp_path, {"partitions": parts}), config)
    assert (found.periods, "".join(p["path"] for p in found.partitions), found.scored, found.shuffled) == (
        ("1", "2"),
        "zbc",
        False,
        True,
    )
