"""Every arm: valid, different from its base as written down, and with the losses it had.

After a change that means to move these, write them anew, all or those of one config module, and say why in the commit:
`PYTHONPATH=tests python tests/golden/test_arms.py [kuairand | kuairand_tables | kuairand_users | movielens | movielens_tables]`.
"""

import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny

from coldrank.cli.main import main
from coldrank.data.batches import DataFolder
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig
from coldrank.train.difference import difference
from coldrank.train.distributed.ranks import process_group
from coldrank.train.load import arms
from coldrank.train.trainer import train

GOLDEN = Path(__file__).parent
MODULES = ("kuairand", "kuairand_tables", "kuairand_users", "movielens", "movielens_tables")
ARMS = {
    f"{m}:{n}": f
    for m in MODULES
    for n, f in arms(importlib.import_module(f"coldrank.configs.{m}")).items()
    if f.__module__ == f"coldrank.configs.{m}"
}
STEPS = 8


def simulated(folder: Path) -> DataFolder:
    """2,000 simulated events, prepared."""
    assert main(["simulate", "--events", "2000", "--days", "6", "--out", str(folder / "log")]) == 0
    assert main(["prepare", "kuairand", "--data", str(folder / "log"), "--out", str(folder / "data")]) == 0
    return DataFolder.open(folder / "data")


def write_movielens(folder: Path) -> None:
    """A random log in the layout of MovieLens 100K: 50 users rate 20 to 60 of 80 films, each film of one to three genres."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    films, ratings = [], []
    for film in range(1, 81):
        genres = rng.choice(np.arange(1, 19), rng.integers(1, 4), replace=False)
        flags = "|".join("1" if g in genres else "0" for g in range(19))
        films.append(f"{film}|Film {film} ({1920 + film})|01-Jan-{1920 + film}||http://films/{film}|{flags}")
    for user in range(1, 51):
        time = 874_724_710 + int(rng.integers(0, 10_000_000))
        taste = rng.normal(3.5, 0.5)
        for film in rng.choice(np.arange(1, 81), rng.integers(20, 61), replace=False):
            stars = int(np.clip(np.rint(taste + (film % 3 - 1) + rng.normal(0, 0.8)), 1, 5))
            ratings.append(f"{user}\t{film}\t{stars}\t{time}")
            time += int(rng.integers(0, 90))
    users = [f"{user}|{20 + user}|{'MF'[user % 2]}|other|{10_000 + user}" for user in range(1, 51)]
    for name, lines in {"u.data": rng.permutation(ratings), "u.item": films, "u.user": users}.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="latin-1")


def rated(folder: Path) -> DataFolder:
    """The random film log, prepared with users held out."""
    write_movielens(folder / "log")
    command = ["prepare", "movielens", "--data", str(folder / "log"), "--out", str(folder / "data")]
    assert main([*command, "--split", "users"]) == 0
    return DataFolder.open(folder / "data")


DATA = {"kuairand": simulated, "movielens": rated}


def run_losses(arm: Callable[[], RunConfig], data: DataFolder, out: Path) -> list[float]:
    """Training losses of the first steps of a shrunken arm."""
    config = tiny(arm())
    config = replace(config, train=replace(config.train, steps=STEPS, log_every=1))
    with process_group() as ranks:
        train(config, data, out, ranks, fresh=True, diff="")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [round(r["value"], 6) for r in rows if r["metric"] == "loss"]


def diffs() -> dict[str, list[str]]:
    """Arm -> its difference to the base on its data."""
    return {name: difference(arm(), ARMS[f"{source(name)}:base"]()).splitlines() for name, arm in ARMS.items()}


def source(name: str) -> str:
    """The data set of an arm or a config module: `kuairand_tables:poso_user_id` -> `kuairand`."""
    return name.split(":")[0].split("_")[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], DataFolder]:
    """Data set -> its prepared data, made when first asked for."""
    return cache(lambda name: DATA[name](tmp_path_factory.mktemp(name)))


@pytest.mark.parametrize("name", ARMS)
def test_arm_is_valid_and_named(name: str):
    config = ARMS[name]()
    validate(config)
    validate(tiny(config))
    assert config.name == name.split(":")[1]


def test_differences_are_as_written_down():
    assert diffs() == json.loads((GOLDEN / "diffs.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ARMS)
def test_losses_are_as_written_down(name: str, data: Callable[[str], DataFolder], tmp_path: Path):
    expected = json.loads((GOLDEN / "losses.json").read_text())[name]
    assert len(expected) == STEPS
    assert run_losses(ARMS[name], data(source(name)), tmp_path / "run") == pytest.approx(expected, abs=1e-4)


def write_anew(modules: list[str]) -> None:
    """The differences of all arms, and the losses of the arms of these modules."""
    path = GOLDEN / "losses.json"
    kept = {n: v for n, v in json.loads(path.read_text()).items() if n in ARMS and n.split(":")[0] not in modules}
    with tempfile.TemporaryDirectory() as folder:
        for module in modules:
            (Path(folder) / module).mkdir()
            made = DATA[source(module)](Path(folder) / module)
            names = [n for n in ARMS if n.split(":")[0] == module]
            kept |= {n: run_losses(ARMS[n], made, Path(folder) / n) for n in names}
    path.write_text(json.dumps({n: kept[n] for n in ARMS if n in kept}, indent=1) + "\n")
    (GOLDEN / "diffs.json").write_text(json.dumps(diffs(), indent=1) + "\n")


if __name__ == "__main__":
    write_anew(sys.argv[1:] or list(MODULES))
