"""`coldrank benchmark ranker` on a tiny log: the whole of it, resumed, cut to a budget, and what it refuses."""

import json
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from benchmarked import complete, in_this_process
from samples import write_samples
from tiny import sample_base

from coldrank.cli.main import main
from coldrank.configs.suites import SUITES
from coldrank.data import parquet
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.experiments.benchmark import leaks
from coldrank.experiments.benchmark.budget import BudgetPlan, Cost, Work, fit, seconds_of
from coldrank.experiments.benchmark.engine import Arms, Setting, make_arms
from coldrank.experiments.benchmark.method import BenchmarkMethod, arm_of, chosen, fields_of, own_methods
from coldrank.experiments.tune import Field
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import process_group
from coldrank.train.load import load
from coldrank.train.trainer import train

RANKER = ["benchmark", "ranker", "--config", "my_methods:base", "--data", "data"]
WHOLE = [*RANKER, "--methods", "cold_weighted", "--also", "my_methods:peeks,small", "--trials", "2", "--seeds", "2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    write_samples(folder / "data")
    complete(folder / "data")
    return folder


@pytest.fixture(scope="module")
def trained(place: Path):
    """What is trained, in the folder of a user."""
    with in_this_process(place) as trained:
        yield trained


@pytest.fixture(autouse=True)
def here(place: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    trained.clear()


def _found() -> dict:
    return json.loads(Path("out/benchmark.json").read_text())


@pytest.mark.slow
def test_the_whole_of_it_goes_on_and_names_the_method_that_leaks(trained: list[str], capfd: pytest.CaptureFixture[str]):
    assert main([*WHOLE, "--out", "out"]) == 1, "a method leaks"
    err = capfd.readouterr().err
    assert re.search(r"^coldrank benchmark: peeks: leaks: in evaluation \d+ predictions moved$", err, re.MULTILINE)
    arms = ["base", "cold_weighted", "peeks", "small"]
    assert len(trained) == len(set(trained)) == len(arms) * (2 + 2)

    found = _found()
    outcomes = {o["name"]: o for o in found["outcomes"]}
    assert list(outcomes) == arms
    assert [bool(o["leak"]) for o in outcomes.values()] == [False, False, True, False]
    assert not any(o["untested"] or o["failed"] for o in outcomes.values())
    assert {o["trials"] for o in outcomes.values()} == {2} and {len(o["runs"]) for o in outcomes.values()} == {2}
    assert {(o["steps"], o["samples"]) for o in outcomes.values()} == {(11, 700)}, "equal passes"
    assert all(o["seconds"] > 0 and o["peak_mib"] > 50 for o in outcomes.values())
    drawn = {name: json.loads(Path(f"out/search/{name}/trial-1/seed-1/config.json").read_text()) for name in arms}
    rates = {(c["optim"]["dense"]["lr"], c["optim"]["tables"]["lr"]) for c in drawn.values()}
    assert len(rates) == 1 and drawn["cold_weighted"]["cold_weight"] in (1.5, 2, 4), "drawn alike, and one's own"
    assert [json.loads(Path(f"out/runs/small-{s}/config.json").read_text())["seed"] for s in (1, 2)] == [1, 2]

    rows = {(r["arm"], r["task"], r["cohort"], r["metric"]): r for r in found["rows"]}
    compared = json.loads(Path("out/comparison/compare.json").read_text())["rows"]
    assert len(rows) == len(compared) and rows["small", "like", "new_user", "auc"]["verdict"]
    text = Path("out/benchmark.md").read_text()
    assert "| peeks (LEAKS) |" in text and "LEAKS: in evaluation" in text and text.count("| passed") == 3
    page = Path("out/benchmark.html").read_text()
    assert page.count("<svg") > 6 and 'href="comparison/report.html"' in page and "peeks: leaks" in page

    trained.clear()
    Path("out/runs/small-2/run.json").unlink()  # as if it had been cut off
    assert main([*WHOLE, "--out", "out"]) == 1
    assert trained == ["out/runs/small-2"], "what is done is not done again"
    assert main([*WHOLE, "--out", "out", "--seeds", "3"]) == 2
    assert main([*WHOLE, "--out", "out", "--set", "optim.dense.lr=1e-2"]) == 2
    err = capfd.readouterr().err
    assert "out: holds a benchmark with other seeds (2)" in err
    assert "out/arms/base.json: was another arm (optim.dense.lr:" in err


@pytest.mark.slow
def test_a_leak_in_training_is_found_by_training_anew(place: Path):
    """The trained run keeps what it remembers: to score with other labels does not move it."""
    base = load("my_methods:base")
    method = arm_of(own_methods("my_methods:remembers", "")[0], base)
    data = DataFolder.open(place / "data")
    turned = [p["path"] for p in data.partitions if p["split"] == "test"]
    plain, other = (
        leaks.copy(data, data.partitions, place / name, rows=150, flip=flip)
        for name, flip in (("plain", ()), ("turned", turned))
    )
    file = "predictions-test.parquet"
    assert leaks.moved_in_training(method, (plain, other), place / "anew", file) == 150
    assert leaks.moved_in_training(base, (plain, other), place / "anew", file) == 0
    assert not (place / "anew").exists()
    with process_group() as ranks:
        train(method, plain, place / "remembers", ranks, fresh=True, diff="")
    assert leaks.moved_in_evaluation(place / "remembers", plain, other, "test") == 0


def test_labels_are_turned_and_nothing_else(place: Path):
    data = DataFolder.open(place / "data")
    turned = next(p["path"] for p in data.partitions if p["split"] == "test")
    copy = leaks.copy(data, data.partitions, place / "copy", flip=[turned], rows=50)
    assert [p["rows"] for p in copy.partitions] == [50, 50, 50]
    for partition in data.partitions:
        before = parquet.read(data.path / partition["path"]).head(50)
        after = parquet.read(copy.path / partition["path"])
        labels = [name for name in before.columns if name.startswith("label_")]
        assert before.drop(labels).equals(after.drop(labels))
        same = [before[name].drop_nulls().equals(after[name].drop_nulls()) for name in labels]
        assert same == [partition["path"] != turned] * 2
        if partition["path"] == turned:
            assert all(((before[n] + after[n]).drop_nulls() == 1).all() for n in labels)
            assert all(before[n].is_null().equals(after[n].is_null()) for n in labels)
    numbers = leaks.flipped(
        pl.DataFrame({"label_s": [3.0, None, 9.0, 5.0], "label_one": [7, 7, None, 7], "x": [1] * 4})
    )
    assert numbers.to_dict(as_series=False) == {
        "label_s": [9.0, None, 3.0, 7.0],
        "label_one": [8, 8, None, 8],
        "x": [1] * 4,
    }


def _setting(base: RunConfig, methods: tuple[BenchmarkMethod, ...]) -> Setting:
    return Setting(
        suite=SUITES["ranker"], base=base, about_base="", methods=methods, trials=1, seeds=1, by="auc", cohort="all",
        tasks=(), vary=(), budget=None, at_once=1,
    )  # fmt: skip


def test_what_does_not_apply_to_a_base_is_left_out_and_said_why(place: Path):
    """Of a base whose users and items are of other widths, without a history or a code."""
    data, base = DataFolder.open(place / "data"), sample_base()
    arms: Arms = make_arms(_setting(base, SUITES["ranker"].methods), data)
    assert arms.left_out.keys() == {"metacf"} and "tables of one width" in arms.left_out["metacf"]
    assert list(arms.configs) == ["base", *(m.name for m in SUITES["ranker"].methods if m.name != "metacf")]
    bare = replace(
        base,
        features=tuple(f for f in base.features if f.role not in ("pc", "sequence")),
        tables=tuple(replace(t, dim=8) for t in base.tables),
    )
    arms = make_arms(_setting(bare, SUITES["ranker"].methods), data)
    assert {"poso", "pepnet", "metacf", "gru4rec", "din"} == arms.left_out.keys()
    assert arms.left_out["gru4rec"] == "model='gru4rec' reads a history; no feature has role 'sequence'"
    other = replace(arms.configs["wide_deep"], name="base")
    left = make_arms(_setting(other, SUITES["ranker"].methods), data).left_out
    assert left["poso"] == "changes parts of the ranker; the base's model is wide_deep"
    with pytest.raises(UserError, match="metacf: .*of one width"):
        make_arms(_setting(base, tuple(chosen(SUITES["ranker"], ["metacf"]))), data)


def test_methods_of_ones_own(place: Path):
    found = {m.name: m for m in own_methods("my_methods", "my_methods:base")}
    assert list(found) == ["small", "longer", "peeks", "poorer", "raises", "remembers"]
    assert found["peeks"].about == "Scores with the label beside the user."
    base = load("my_methods:base")
    small = arm_of(found["small"], base)
    assert small.name == "small" and small.model.experts == 2
    for name, message in {
        "longer": "longer: train.epochs is 2, and 1 in the base; methods are compared on equal terms",
        "poorer": "poorer: does not read 'item_tags', as the base does; methods are compared on equal features",
        "raises": r"--also my_methods: raises\(\) raised AttributeError: .*my_methods.py, line",
    }.items():
        with pytest.raises(UserError, match=message):
            arm_of(found[name], base)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(arguments, message, id=what)
        for arguments, message, what in [
            (["--methods", "pozo"], "--methods pozo: ranker has no such method; did you mean 'poso'?", "no method"),
            (["--also", "nowhere"], "--also nowhere: no module 'nowhere'", "a module that is not there"),
            (["--also", "my_methods:smal"], "has no function 'smal'; did you mean 'small'?", "a function likewise"),
            (["--also", "my_methods:needs"], "needs needs base, rate; a method takes the base's config", "arguments"),
            (["--also", "my_methods:base"], "method 'base' is there twice, or is the base", "the base as a method"),
            (["--seeds", "0"], "--seeds 0: must be above 0", "no seeds"),
            (["--budget", "soon"], "--budget soon: write 90s, 30m or 1h", "a budget in words"),
            (["--vary", "optim.dense.lr*1"], r"--vary optim.dense.lr\*1: write field\*3", "a factor of one"),
            (["--vary", "optim.dense.rate*3"], "base has no field 'optim.dense.rate'", "a field that is not there"),
            (
                ["--set", "data.evaluate=valid", "data.fit=train"],
                "base: data.evaluate='valid': trials are judged on 'valid' after 'train'",
                "a report on what trials are judged by",
            ),
            (["--set", "train.mode=periods"], "base: train.mode='periods': this suite trains by passes", "a stream"),
        ]
    ],
)  # fmt: skip
def test_what_is_refused(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]):
    assert main([*RANKER, "--methods", "poso", "--out", "never", *arguments]) == 2
    assert re.search(message, capfd.readouterr().err)
    assert not Path("never").exists()


def test_fields_around_what_a_method_has():
    config = sample_base()
    dense = config.optim.dense.lr
    low, other = fields_of(config, ("optim.dense.lr*4", "cold_weight=1|2"))
    assert low == Field("optim.dense.lr", dense / 4, dense * 4) and other.choices == ("1", "2")
    with pytest.raises(UserError, match=r"--vary train.mode\*3: write field\*3"):
        fields_of(config, ("train.mode*3",))


WORK = Work(arms=4, trial_steps=50, steps=100, at_once=2)
COST = Cost(fixed=10.0, step=0.1)


@pytest.mark.parametrize(
    ("budget", "trials", "seeds", "share", "cut"),
    [
        # 4 arms: a trial is 15 s and a reported run 20 s, two at once; a leak test 10 s.
        (4 * (4 * 7.5 + 5 * 10 + 10), 4, 5, 1.0, []),
        (359.0, 3, 5, 1.0, ["trials: 3 in place of 4"]),
        (4 * (5 * 10 + 10), 1, 5, 1.0, ["trials: 1 in place of 4"]),
        (239.0, 1, 4, 1.0, ["trials: 1 in place of 4", "seeds: 4 in place of 5"]),
        (
            4 * (10 + 2 * 5 + 2 * 5 * 0.5),
            1,
            2,
            0.5,
            ["trials: 1 in place of 4", "seeds: 2 in place of 5", "every run trains for 50% of its steps"],
        ),
    ],
)
def test_a_budget_cuts_trials_then_seeds_then_a_share_of_a_pass(
    budget: float, trials: int, seeds: int, share: float, cut: list[str]
):
    plan = fit(BudgetPlan(trials=4, seeds=5), WORK, COST, budget, can_be_cut=True)
    assert (plan.trials, plan.seeds, plan.share, list(plan.cut)) == (trials, seeds, share, cut)
    assert plan.seconds <= budget


def test_a_budget_that_is_not_enough():
    with pytest.raises(UserError, match="4 methods with 2 seeds, nothing tuned and a share of 0.05 of a pass, take "):
        fit(BudgetPlan(trials=4, seeds=5), WORK, COST, 80.0, can_be_cut=True)
    with pytest.raises(UserError, match="4 methods with 2 seeds, nothing tuned, take about 120 s"):
        fit(BudgetPlan(trials=4, seeds=5), WORK, COST, 100.0, can_be_cut=False)
    assert [seconds_of(text) for text in ("90s", "1.5m", "2h")] == [90, 90, 7200]


@pytest.mark.slow
def test_a_budget_is_kept_by_a_short_run_and_stands_in_the_results(
    monkeypatch: pytest.MonkeyPatch, trained: list[str], capfd: pytest.CaptureFixture[str]
):
    """Whatever the probe finds; the plan is the same when the benchmark goes on."""
    half = BudgetPlan(trials=1, seeds=2, share=0.5, cut=("every run trains for 50% of its steps",), seconds=9.0)
    asked = []
    monkeypatch.setattr(
        "coldrank.experiments.benchmark.engine.fit",
        lambda plan, work, cost, budget, can_be_cut: asked.append((plan, work, budget, can_be_cut, cost.step)) or half,
    )
    command = [*RANKER, "--methods", "cold_pass,cold_weighted", "--budget", "1m", "--trials", "3", "--out", "short"]
    assert main(command) == 0
    ((plan, work, budget, can_be_cut, step),) = asked
    assert (plan, budget, can_be_cut) == (BudgetPlan(trials=3, seeds=5), 60.0, True) and step > 0
    assert work == Work(arms=3, trial_steps=10, steps=11, at_once=1)
    assert trained == ["short/probe", *(f"short/runs/{arm}-{s}" for s in (1, 2) for arm in ("base", "cold_weighted"))]
    found = json.loads(Path("short/benchmark.json").read_text())
    assert found["cut"] == list(half.cut) and {o["steps"] for o in found["outcomes"]} == {6}
    assert found["left_out"] == {"cold_pass": "a share of a pass ends before its own"}
    assert "Cut to fit --budget: every run trains for 50% of its steps." in Path("short/benchmark.md").read_text()
    trained.clear()
    assert main(command) == 0 and not trained and len(asked) == 1
    assert main([*command, "--methods", "cold_weighted"]) == 2
    assert "holds a benchmark with other methods" in capfd.readouterr().err
