"""Commands on prepared data in an object store do what they do on a disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from distributed.killing import outcome
from periods import write_periods
from samples import write_samples
from stored import stored
from tiny import sample_base

from coldrank.cli.main import main
from coldrank.configs import base as arms
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.sections import DataConfig

DAYS = [f"2022-05-0{day}" for day in range(1, 5)]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with stored(tmp_path_factory.mktemp("store")) as store:
        yield store


def train(config: RunConfig, data: object, out: Path) -> dict[str, object]:
    """All that a run tells, but for where its data lies."""
    path = out.with_name("config.json")
    path.write_text(json.dumps(to_dict(config)))
    assert main(["train", "--config", str(path), "--data", str(data), "--out", str(out)]) == 0
    told = outcome(out)
    assert told["facts"].pop("data_path") == str(data)
    return told


def same(ours: dict[str, object], theirs: dict[str, object]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == value, name


def test_train_evaluate_check_export_and_score(store, tmp_path):
    folder = write_samples(tmp_path / "data")
    data = {"disk": folder, "store": store.put(folder, "samples")}
    told, config = {}, arms.poso(sample_base())
    for name, where in data.items():
        run, out = tmp_path / name, {what: tmp_path / f"{name}-{what}" for what in ("check", "export")}
        predictions, scores = tmp_path / f"{name}.parquet", tmp_path / f"{name}-scores.parquet"
        commands = [
            ["evaluate", "--run", run, "--data", where, "--split", "valid", "--predictions", predictions],
            ["check", "--data", where, "--out", out["check"]],
            ["export", "--run", run, "--out", out["export"]],
            ["score", "--artifact", out["export"], "--input", where / "samples", "--out", scores],
        ]
        trained = train(config, where, run)
        for command in commands:
            assert main([str(word) for word in command]) == 0
        checked = json.loads((out["check"] / "check.json").read_text())
        assert checked.pop("data") == str(where)
        told[name] = trained | {
            "evaluated": predictions.read_bytes(),
            "checked": checked,
            "scored": scores.read_bytes(),
        }
    same(told["store"], told["disk"])


def test_a_stream_of_periods(store, tmp_path):
    folder = write_periods(tmp_path / "data", DAYS)
    config = arms.poso(sample_base())
    config = replace(config, data=replace(config.data, order="time", fit=DataConfig().fit))
    config = replace(config, train=replace(config.train, mode="periods", first_period=DAYS[1]))
    disk = train(config, folder, tmp_path / "disk")
    same(train(config, store.put(folder, "days"), tmp_path / "store"), disk)
