"""Every arm: valid, different from its base as written down, and with the losses it had.

After a change that means to move these, write them anew with `python tests/golden/test_arms.py` and say why in the commit.
"""

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny

from coldrank.train.config import RunConfig, arms, difference, validate
from coldrank.train.data.batches import DataFolder
from coldrank.train.distributed import process_group
from coldrank.train.main import main
from coldrank.train.trainer import train

GOLDEN = Path(__file__).parent
MODULES = ("kuairand", "movielens")
ARMS = {f"{m}:{n}": f for m in MODULES for n, f in arms(importlib.import_module(f"coldrank.configs.{m}")).items()}
STEPS = 8


def simulated(folder: Path) -> DataFolder:
    """2,000 simulated events, prepared."""
    assert main(["simulate", "--events", "2000", "--days", "6", "--out", str(folder / "log")]) == 0
    assert main(["prepare", "kuairand", "--data", str(folder / "log"), "--out", str(folder / "data")]) == 0
    return DataFolder.open(folder / "data")


def run_losses(arm: Callable[[], RunConfig], data: DataFolder, out: Path) -> list[float]:
    """Training losses of the first steps of a shrunken arm."""
    config = tiny(arm())
    config = replace(config, train=replace(config.train, steps=STEPS, log_every=1))
    with process_group() as ranks:
        train(config, data, out, ranks, fresh=True, diff="")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [round(r["value"], 6) for r in rows if r["metric"] == "loss"]


def diffs() -> dict[str, list[str]]:
    """Arm -> its difference to the base of its module."""
    return {name: difference(arm(), ARMS[f"{name.split(':')[0]}:base"]()).splitlines() for name, arm in ARMS.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return simulated(tmp_path_factory.mktemp("simulated"))


@pytest.mark.parametrize("name", ARMS)
def test_arm_is_valid_and_named(name: str):
    config = ARMS[name]()
    validate(config)
    validate(tiny(config))
    assert config.name == name.split(":")[1]


def test_differences_are_as_written_down():
    assert diffs() == json.loads((GOLDEN / "diffs.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ARMS if n.startswith("kuairand")])
def test_losses_are_as_written_down(name: str, data: DataFolder, tmp_path: Path):
    expected = json.loads((GOLDEN / "losses.json").read_text())[name]
    assert run_losses(ARMS[name], data, tmp_path / "run") == pytest.approx(expected, abs=1e-4)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = simulated(Path(folder))
        names = [n for n in ARMS if n.startswith("kuairand")]
        losses = {n: run_losses(ARMS[n], log, Path(folder) / n) for n in names}
    (GOLDEN / "losses.json").write_text(json.dumps(losses, indent=1) + "\n")
    (GOLDEN / "diffs.json").write_text(json.dumps(diffs(), indent=1) + "\n")
