"""Whole experiments and searches: every run in a process of its own."""

import json
import os
import re
from pathlib import Path

import pytest
from periods import write_periods
from retrieving import DAYS
from samples import write_samples

from coldrank.cli.main import main
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.experiments.sweep import Job, run_all
from coldrank.experiments.tune import Field, Search, trial_value
from coldrank.train.difference import flat
from coldrank.train.load import load
from coldrank.train.lock import Lock

ARMS = """
from dataclasses import replace

from coldrank.models.features import Feature, Table
from coldrank.models.deepfm import DeepFM
from coldrank.models.heads import Binary
from coldrank.models.ranker import Ranker
from coldrank.train.config import RunConfig
from coldrank.train.sections import DataConfig, DenseConfig, OptimConfig, TablesConfig, TrainConfig


def base() -> RunConfig:
    return RunConfig(
        name="base",
        tasks={"long_view": Binary(), "like": Binary()},
        features=(
            Feature(name="user_id", role="user", kind="id", table="user"),
            Feature(name="item_id", role="item", kind="id", table="item"),
        ),
        tables=(Table(name="user", rows=64, dim=4), Table(name="item", rows=64, dim=4)),
        model=Ranker(experts=2, expert_hidden=(8,), tower_hidden=(4,)),
        data=DataConfig(batch_size=100),
        train=TrainConfig(steps=4, threads=1),
    )


def wide() -> RunConfig:
    return replace(base(), name="wide", model=replace(base().model, expert_hidden=(16,)))


def broken() -> RunConfig:
    return replace(base(), name="broken", tasks={"bought": Binary()})


def hot() -> RunConfig:
    return replace(base(), name="hot", optim=OptimConfig(dense=DenseConfig(lr=1e37)))


def deep() -> RunConfig:
    return replace(base(), name="deep", model=DeepFM(), tables=(base().tables[0],) + (
        Table(name="item", rows=64, dim=8),
    ))


def adam() -> RunConfig:
    return replace(base(), name="adam", optim=OptimConfig(tables=TablesConfig(kind="adam")))


def vast() -> RunConfig:
    return replace(base(), name="vast", tables=(Table(name="user", rows=10**13, dim=4), base().tables[1]))


def far() -> RunConfig:
    return replace(base(), name="far", data=replace(base().data, evaluate="future"))


def warm() -> RunConfig:
    return replace(base(), name="warm", train=replace(base().train, warm_start="no/run"))


def twin() -> RunConfig:
    return base()
"""


STREAMS = """
from dataclasses import replace

from retrieving import with_pam
from coldrank.metrics.retrieval import RetrievalConfig


def stream():
    config = with_pam()
    retrieval = RetrievalConfig(cold=(5, 100), users=10, batch=32)
    return replace(config, name="stream", retrieval=retrieval, train=replace(config.train, threads=1))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config module and prepared data."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "my_arms.py").write_text(ARMS)
    write_samples(folder / "data")
    (folder / "my_streams.py").write_text(STREAMS)
    write_periods(folder / "periods", DAYS)
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user with config modules in the current folder."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))


def _train(*arguments: str) -> int:
    return main(["train", "--config", "my_arms", "--data", "data", *arguments])


@pytest.mark.slow
def test_an_experiment_runs_all_arms_and_seeds_and_skips_what_is_done(place: Path, capfd: pytest.CaptureFixture[str]):
    arguments = ["--arms", "base,hot", "--seeds", "2", "--jobs", "2", "--out", "all"]
    assert _train(*arguments) == 2, "one arm fails"
    assert "2 of 4 runs failed; the first: all/hot-" in capfd.readouterr().err
    runs = [place / "all" / f"base-{seed}" for seed in (1, 2)]
    written = [(run / "summary.json").stat().st_mtime_ns for run in runs]
    facts = json.loads((runs[0] / "run.json").read_text())
    assert facts["finished"] and (facts["steps"], facts["samples"], facts["fit_rows"]) == (4, 400, 700)
    assert [json.loads((run / "config.json").read_text())["seed"] for run in runs] == [1, 2]
    assert _train("--arms", "base", "--seeds", "2", "--out", "all") == 0
    assert [(run / "summary.json").stat().st_mtime_ns for run in runs] == written, "nothing was run again"
    assert _train("--arms", "base", "--out", "all", "--set", "optim.dense.lr=1e-4") == 2
    assert "all/base-1: holds another run (optim.dense.lr: 0.001 -> 0.0001)" in capfd.readouterr().err


@pytest.mark.slow
def test_a_search_gives_every_arm_the_same_trials_and_its_result_is_trained(place: Path):
    vary = ["--vary", "optim.dense.lr=1e-4..1e-2", "--vary", "optim.decay=constant|linear"]
    arguments = ["tune", "--config", "my_arms", "--arms", "base,wide", *vary, "--trials", "2", "--data", "data"]
    assert main([*arguments, "--tasks", "long_view", "--out", "search"]) == 0
    results = json.loads(Path("search/tuned.json").read_text())["arms"]
    tried = {arm: [t["overrides"] for t in result["trials"]] for arm, result in results.items()}
    assert tried["base"] == tried["wide"] and tried["base"][0] == [] and len(tried["base"][1]) == 2
    best = max(results["base"]["trials"], key=lambda t: t["value"])
    assert results["base"]["overrides"] == best["overrides"] and results["base"]["value"] == best["value"]
    summary = json.loads(Path("search/base/trial-1/seed-1/summary.json").read_text())
    auc = next(r for r in summary if (r["task"], r["cohort"], r["metric"]) == ("long_view", "all", "auc"))
    assert auc["split"] == "valid" and results["base"]["trials"][1]["value"] == pytest.approx(100 * auc["value"])
    assert main([*arguments, "--out", "search"]) == 2, "another objective is another search"
    tuned = json.loads(Path("search/tuned.json").read_text())["arms"]["wide"]["overrides"]
    assert _train("--arms", "wide", "--tuned", "search", "--out", "tuned") == 0
    config = json.loads(Path("tuned/wide-1/config.json").read_text())
    kept = {f"optim.{name}": value for name, value in flat(config["optim"]).items()}
    read = {
        field: json.loads(value) if value[0].isdigit() else value
        for field, _, value in (o.partition("=") for o in tuned)
    }
    assert {field: kept[field] for field in read} == read


@pytest.mark.parametrize(("by", "value"), [(("auc",), 60.0), (("ne",), -85.0), (("auc", "ne"), -25.0)])
def test_what_a_trial_is_judged_by(tmp_path: Path, by: tuple[str, ...], value: float):
    """The cohort's mean over the tasks that count; NE counts against it."""
    row = {"step": 9, "period": None, "split": "valid", "n": 5}
    values = {
        ("a", "auc"): 0.5,
        ("b", "auc"): 0.7,
        ("c", "auc"): 0.9,
        ("a", "ne"): 0.8,
        ("b", "ne"): 0.9,
        ("c", "ne"): 0,
    }
    rows = [row | {"cohort": "new_user", "task": t, "metric": m, "value": v} for (t, m), v in values.items()]
    rows += [r | {"cohort": "all", "value": 0.1} for r in rows]
    rows.append(row | {"cohort": "all", "task": "all", "metric": "gate_range_mmoe", "value": 0.3})
    (tmp_path / "summary.json").write_text(json.dumps(rows))
    search = Search(
        module="m", fields=(), trials=1, seeds=1, tasks=("a", "b"), cohort="new_user", by=by, sampler="random",
        overrides=(), at_once=1,
    )  # fmt: skip
    assert trial_value(tmp_path, search) == pytest.approx(value)
    assert trial_value(tmp_path / "nowhere", search) is None


STREAM = ["tune", "--config", "my_streams", "--arms", "stream", "--data", "periods", "--vary", "pam.rate=.1|.2"]


@pytest.mark.slow
@pytest.mark.tried("configs and runs", "tune on a stream", "judged by the periods before train.steps ends it")
def test_a_search_on_a_stream_ends_before_what_is_reported(place: Path, monkeypatch: pytest.MonkeyPatch):
    beside = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(beside))
    config = load("my_streams:stream", [])
    steps = -(-160 // config.data.batch_size) * 2  # of the first two periods
    judge = ["--by", "recall@5_of_all", "--cohort", "cold_item,popular_item", "--set", f"train.steps={steps}"]
    assert main([*STREAM, "--trials", "2", *judge, "--out", "streams"]) == 0
    best = json.loads(Path("streams/tuned.json").read_text())["arms"]["stream"]
    for trial in best["trials"]:
        run = Path(f"streams/stream/trial-{trial['trial']}/seed-1")
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert {r["period"] for r in rows if r["split"] == "next"} - {None} == {DAYS[1]}
        values = {r["cohort"]: r["value"] for r in rows if r["metric"] == "recall@5_of_all" and r["split"] == "next"}
        assert trial["value"] == pytest.approx(50 * (values["cold_item"] + values["popular_item"])) and len(values) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            arguments,
            message,
            marks=pytest.mark.tried("configs and runs", f"tune on a stream: {what}", "refused before any trial runs"),
        )
        for arguments, message, what in [
            ([], r"stream: is a stream, and would be judged by all of it; --set train\.steps=N", "without train.steps"),
            (
                ["--set", "train.steps=9", "--by", "recall@7"],
                "--by recall@7: my_streams:stream has no 'recall@7'; it has auc, ne, recall@5, .*ndcg@20_of_all",
                "a metric that is not there",
            ),
            (
                ["--set", "train.steps=9", "--by", "recall@5_of_10", "--cohort", "cold_item,all"],
                "--cohort all: no such cohort has 'recall@5_of_10'; there are cold_item, popular_item",
                "a cohort that the metric lacks",
            ),
        ]
    ],
)
def test_a_search_on_a_stream_is_checked(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]):
    assert main([*STREAM, "--trials", "1", "--out", "never", *arguments]) == 2
    assert re.search(message, capfd.readouterr().err)
    assert not Path("never").exists()


def test_fields_of_a_search():
    assert Field.parse("optim.dense.lr=1e-4..1e-2") == Field("optim.dense.lr", 1e-4, 1e-2)
    assert Field.parse("model.dropout=.1|.2").choices == (".1", ".2")
    for wrong in ("optim.dense.lr", "a=0..1", "a=2..1", "a=x..y", "=1|2"):
        with pytest.raises(UserError, match="write field=low"):
            Field.parse(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "base", "--seeds", "0"], "numbers above 0"),
        (["--arms", "bass"], "has no arm 'bass'; it has adam, base, broken, deep, far, hot, twin, vast, warm, wide"),
        (["--arms", "base", "--tuned", "nowhere"], "`coldrank tune` writes it"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]):
    assert _train(*arguments, "--out", "never") == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        pytest.param(
            arm,
            message,
            marks=pytest.mark.tried("configs and runs", f"the last of many arms {what}", "refused before any arm runs"),
        )
        for arm, message, what in [
            ("broken", "my_arms:broken: .*part-0.parquet: no column 'label_bought'", "with a task that the data lacks"),
            ("deep", "deep: .*needs fields of one width", "whose model cannot be built"),
            (
                "adam",
                "my_arms:adam: optim.tables.kind='adam' needs a GPU",
                "with an optimizer that this host lacks",
            ),
            ("vast", "my_arms:vast: .*`coldrank plan` says what would make it fit", "whose tables fit nowhere"),
            (
                "far",
                "my_arms:far: .*no split 'future'; it has test, train, valid",
                "that reports a split that is not there",
            ),
            ("warm", "my_arms:warm: train.warm_start=no/run: holds no run", "that begins with a run that is not there"),
            ("twin", "base and twin both have name='base'", "of the same name as another"),
            ("base", "--arms: 'base' is there twice", "given twice"),
        ]
    ],
)
@pytest.mark.usefixtures("on_cpu")
def test_all_arms_are_built_before_the_first_runs(arm: str, message: str, capfd: pytest.CaptureFixture[str]):
    assert _train("--arms", f"base,wide,{arm}", "--out", "never") == 2
    assert re.search(message, capfd.readouterr().err)
    assert not Path("never").exists()
    tune = ["tune", "--config", "my_arms", "--data", "data", "--out", "never", "--vary", "optim.dense.lr=1e-4..1e-2"]
    if arm != "far":  # trials are judged on `valid`
        assert main([*tune, "--arms", f"base,{arm}", "--trials", "1"]) == 2
        assert re.search(message, capfd.readouterr().err)
        assert not Path("never").exists()


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            arguments,
            message,
            marks=pytest.mark.tried("configs and runs", f"tune: {what}", "refused before any trial runs"),
        )
        for arguments, message, what in [
            (["--vary", "model.dropout=.1|1.5"], r"model\.dropout=1\.5", "a choice that no arm takes"),
            (["--vary", "model.nothing=.1..1.5"], r"no field 'model\.nothing'", "a field that is not there"),
            (
                ["--tasks", "long_view,bought"],
                "--tasks bought: my_arms:base has no such task; it has long_view, like",
                "a task that an arm lacks",
            ),
            (
                ["--set", "tasks.like=regression", "--tasks", "like"],
                "my_arms:base: task like has no AUC, by which trials are judged",
                "a task that has no AUC",
            ),
            (
                ["--cohort", "old"],
                "--cohort old: no such cohort has 'auc'; there are all, new_user",
                "a cohort that is not there",
            ),
            (
                ["--by", "auc,gauc"],
                "--by auc,gauc: my_arms:base has no 'gauc'; it has auc, ne$",
                "a figure that trials do not go by",
            ),
        ]
    ],
)
def test_a_search_is_checked_before_its_first_trial(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
):
    tune = ["tune", "--config", "my_arms", "--arms", "base,wide", "--data", "data", "--out", "never"]
    assert main([*tune, "--vary", "optim.dense.lr=1e-4..1e-2", "--trials", "2", *arguments]) == 2
    assert re.search(message, capfd.readouterr().err)
    assert not Path("never").exists()


def test_no_sweep_inside_a_job_of_many_ranks(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert _train("--arms", "base", "--out", "never") == 2
    assert "one arm at a time" in capfd.readouterr().err


def test_a_sweep_that_has_lost_its_lock_starts_no_run(place: Path):
    out = place / "lost"
    job = Job(config="my_arms:base", overrides=(), out=out / "base-1")
    with Lock(out) as lock:
        lock.mine.unlink()
        with pytest.raises(UserError, match="has lost its lock"):
            run_all([job], DataFolder.open(place / "data"), lock, at_once=1, fresh=False, desc="runs")
    assert not job.log.exists() and not job.out.exists()
