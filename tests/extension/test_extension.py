"""A package out of the tree, installed with pip, with a hook, a model, a head and a metric of its own.

Trained, resumed, exported, served, scored.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from coldrank.cli.main import main
from coldrank.train.config import to_dict
from coldrank.train.load import load

PACKAGE = Path(__file__).parent / "package"
SMALL = [
    "data.batch_size=64",
    "data.shuffle_rows=256",
    "train.log_every=1",
    "train.threads=1",
    "train.checkpoint_every=2",
]
# What a serving host has: torch, and no coldrank.
SERVE = """
import json, sys, torch
assert "coldrank" not in sys.modules
model = torch.jit.load(sys.argv[1])
torch.save(model(torch.load(sys.argv[2], weights_only=True)), sys.argv[3])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that pip installs the package into, on the path."""
    site = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", str(site)]
    built = tmp_path_factory.mktemp("source") / "package"  # setuptools writes beside what it builds
    subprocess.run(["cp", "-r", PACKAGE, built], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(built)], check=True)
    sys.path.insert(0, str(site))
    yield site
    sys.path.remove(str(site))
    for name in [name for name in sys.modules if name.partition(".")[0] == "example_team"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    assert main(["simulate", "--events", "2000", "--days", "6", "--out", str(folder / "log")]) == 0
    assert main(["prepare", "kuairand", "--data", str(folder / "log"), "--out", str(folder / "data")]) == 0
    return folder / "data"


def train(config: str, data: Path, out: Path, *settings: str) -> None:
    sets = [text for setting in (*SMALL, *settings) for text in ("--set", setting)]
    assert main(["train", "--config", config, "--data", str(data), "--out", str(out), *sets]) == 0


@pytest.fixture(scope="module")
def run(installed: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ours"
    train("example_team.arms:ours", data, folder, "train.steps=4", "optim.decay=constant")
    return folder


def metrics(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.tried(
    "hooks", "a hook, a model, a head and a metric of a package of one's own", "used like ours, by their paths"
)
def test_the_run_says_what_it_was_made_of(run: Path) -> None:
    values = json.loads((run / "config.json").read_text())
    assert values["model"] == {"kind": "example_team.pairs:Pairs", "width": 6}
    assert list(values["hooks"]) == ["shrink", "mwuf"]
    assert values["tasks"]["watch_s"] == {"kind": "example_team.log_normal:LogNormal", "weight": 0.3, "spread": 1.0}
    assert values["hooks"]["shrink"]["kind"] == "example_team.shrink:Shrink"
    assert to_dict(load(str(run / "config.json"))) == values
    assert "hooks.shrink: added" in (run / "diff.txt").read_text()


def test_the_head_learns_and_is_judged_by_its_metrics(run: Path) -> None:
    learnt = [r["value"] for r in metrics(run) if (r["task"], r["metric"], r["split"]) == ("watch_s", "nll", "fit")]
    assert len(learnt) == 4 and len(set(learnt)) == 4
    frame = pl.read_parquet(run / "predictions-test.parquet").drop_nulls("label_watch_s")
    error = (frame["pred_watch_s"] - frame["label_watch_s"]).abs().mean()
    last = {r["metric"]: r["value"] for r in metrics(run) if (r["task"], r["cohort"]) == ("watch_s", "all")}
    assert {"xauc", "mae", "calibration", "lift"} <= set(last) and last["mae"] == pytest.approx(error, rel=1e-5)


def test_the_metric_is_that_of_the_predictions(run: Path) -> None:
    frame = pl.read_parquet(run / "predictions-test.parquet").sort("prob_click", descending=True)
    cold = frame.filter((pl.col("user_views") <= 10) & pl.col("label_click").is_not_null())
    best = cold.head(round(0.2 * len(cold)))
    (row,) = [r for r in metrics(run) if (r["metric"], r["cohort"], r["task"]) == ("lift", "new_user", "click")]
    assert row["n"] == len(cold) > 20
    assert row["value"] == pytest.approx(best["label_click"].mean() / cold["label_click"].mean())


def test_a_run_in_two_parts_is_the_run_in_one(run: Path, data: Path, tmp_path: Path) -> None:
    for steps in (2, 4):
        train("example_team.arms:ours", data, tmp_path / "parts", f"train.steps={steps}", "optim.decay=constant")
    both = [(folder / "predictions-test.parquet").read_bytes() for folder in (run, tmp_path / "parts")]
    assert both[0] == both[1]
    losses = [[r["value"] for r in metrics(folder) if r["metric"] == "loss"] for folder in (run, tmp_path / "parts")]
    assert losses[0] == losses[1] and len(set(losses[0])) == 4
    both = [[r["value"] for r in metrics(folder) if r["metric"] == "nll"] for folder in (run, tmp_path / "parts")]
    assert both[0] == both[1]


def test_its_settings_are_set_on_the_command_line(installed: Path) -> None:
    arm = "example_team.arms:ours"
    config = load(arm, ["shrink.k=9", "lift.share=0.5", "model.width=3"])
    assert (config.hooks[0].k, config.metrics[0].share, config.model.width) == (9, 0.5, 3)  # type: ignore[attr-defined]
    task = "tasks.watch_s=example_team.log_normal:LogNormal"
    head = load("coldrank.configs.kuairand:base", [task, "tasks.watch_s.spread=2"]).tasks["watch_s"]
    assert (head.spread, head.column("watch_s")) == (2.0, "pred_watch_s")  # type: ignore[attr-defined]
    paths = ["hooks=[example_team.shrink:Shrink]", "metrics=[example_team.lift:Lift]", "model=example_team.pairs:Pairs"]
    config = load("coldrank.configs.kuairand:base", [*paths, "shrink.decay=0.5"])
    assert (config.hooks[0].decay, config.metrics[0].share, config.model.width) == (0.5, 0.1, 8)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["lift.share=2"], "lift.share=2: must not be above 1"),
        (["shrink.steps=2"], "no field 'shrink.steps'"),
        (["tasks.watch_s.spread=0"], "tasks.watch_s.spread=0: must be above 0"),
        (
            ["model=example_team.pairs:Pears"],
            "no model 'example_team.pairs:Pears': a model is a dataclass derived from Model",
        ),
        (["hooks=[example_team.shrunk:Shrink]"], "no hook 'example_team.shrunk:Shrink'"),
        (["shrink.user=item_tag", "train.steps=1"], "ours: shrink: user='item_tag': there are user_id"),
    ],
)
def test_mistakes_are_named(
    installed: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], text: str
) -> None:
    sets = [part for setting in settings for part in ("--set", setting)]
    command = ["train", "--config", "example_team.arms:ours", "--data", str(data), "--out", str(tmp_path / "run")]
    assert main([*command, *sets]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1


@pytest.mark.tried("requests", "an export of a model and hooks of one's own", "served by torch alone, as trained")
def test_it_is_served_without_coldrank(run: Path, data: Path, tmp_path: Path) -> None:
    assert main(["export", "--run", str(run), "--out", str(tmp_path / "export")]) == 0
    parity = json.loads((tmp_path / "export" / "parity.json").read_text())
    assert parity["rows"] > 500 and parity["largest_difference"] < 1e-5
    signature = json.loads((tmp_path / "export" / "signature.json").read_text())
    request = {
        i["name"]: torch.zeros(0 if "sum" in str(i["shape"][0]) else 1, dtype=getattr(torch, i["dtype"]))
        for i in signature["inputs"]
    }
    request = {
        name: x.repeat(5) if len(x) and _per(signature, name) == "candidate" else x for name, x in request.items()
    }
    torch.save(request, tmp_path / "request.pt")
    (tmp_path / "serve.py").write_text(SERVE)
    paths = [tmp_path / "export" / "model.pt", tmp_path / "request.pt", tmp_path / "answer.pt"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-P", tmp_path / "serve.py", *paths], check=True, env=environment, cwd=tmp_path)
    answer = torch.load(tmp_path / "answer.pt", weights_only=True)
    assert list(answer) == [output["name"] for output in signature["outputs"]]
    assert {x.shape for x in answer.values()} == {(5,)}
    assert all(((x > 0) & (x < 1)).all() for task, x in answer.items() if task != "watch_s")
    (output,) = [o for o in signature["outputs"] if o["task"] == "watch_s"]
    assert (output["gives"], output["column"], output["meaning"]) == ("mean", "pred_watch_s", "mean of watch_s")
    assert list(parity["metrics"]["watch_s"]) == [
        f"{m}{x}" for m in ("xauc", "mae") for x in ("_trained", "", "_change")
    ]
    command = ["score", "--artifact", tmp_path / "export", "--input", data / "samples" / "split=test"]
    assert main([*map(str, command), "--out", str(tmp_path / "scores.parquet")]) == 0
    order = ["time", "user_id", "item_id"]
    scored = pl.read_parquet(tmp_path / "scores.parquet").sort(order)
    evaluated = pl.read_parquet(run / "predictions-test.parquet").sort(order)
    np.testing.assert_allclose(scored["pred_watch_s"], evaluated["pred_watch_s"], rtol=2e-5, atol=1e-5)


def test_a_traced_model_is_not_compiled(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "--run", str(run), "--out", str(tmp_path / "export"), "--format", "aoti"]
    assert main(command) == 2 and not (tmp_path / "export").exists()
    assert "--format aoti: the model or one of its hooks is served by tracing" in capsys.readouterr().err


def _per(signature: dict[str, list[dict[str, object]]], name: str) -> object:
    return next(i["per"] for i in signature["inputs"] if i["name"] == name)
