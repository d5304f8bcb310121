"""Every arm: valid, different from its base as written down, and with the losses it had.

After a change that means to move these, write them anew, all or those of one config module, and say why in the commit:
`PYTHONPATH=tests python tests/golden/test_arms.py [kuairand | pam | ...]`.
"""

import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny

import coldrank.configs
from coldrank.cli.main import main
from coldrank.data.batches import DataFolder
from coldrank.experiments.warm_up.protocol import Protocol, write_splits
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig
from coldrank.train.difference import difference
from coldrank.train.distributed.ranks import process_group
from coldrank.train.hooks.asmg import ASMG
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.load import arms
from coldrank.train.trainer import train

GOLDEN = Path(__file__).parent
LOSSES: dict[str, list[float]] = json.loads((GOLDEN / "losses.json").read_text())
MODULES = (
    "backbones",
    "kuairand",
    "kuairand_late",
    "kuairand_pure",
    "kuairand_table5",
    "kuairand_tables",
    "kuairand_users",
    "movielens",
    "movielens_table5",
    "movielens_tables",
    "mwuf",
    "pam",
    "pam_kuairand",
    "simulated",
    "streams",
)
# The parts that arms are made of.
NO_ARMS = ("__init__", "base", "own", "suites")
ARMS = {
    f"{m}:{n}": f
    for m in MODULES
    for n, f in arms(importlib.import_module(f"coldrank.configs.{m}")).items()
    if f.__module__ == f"coldrank.configs.{m}"
}
# MetaCF gives MovieLens' arms a feature of the user's id, which those without it have not.
BARE = {
    f"{name} without hooks": partial(replace, ARMS[name](), hooks=())
    for name in ("movielens:base_metacf", "movielens:poso_metacf")
}
RUNS = ARMS | BARE
STEPS = 8
# How far a loss may be from what it was: elsewhere sums may be rounded otherwise.
CLOSE = 1e-4
BY_PERIODS = ("--history", "30", "--item-history", "30", "--periods", "25")


def simulated(folder: Path, *options: str, days: int = 6) -> DataFolder:
    """2,000 simulated events, prepared."""
    assert main(["simulate", "--events", "2000", "--days", str(days), "--out", str(folder / "log")]) == 0
    assert main(["prepare", "kuairand", "--data", str(folder / "log"), "--out", str(folder / "data"), *options]) == 0
    return DataFolder.open(folder / "data")


def write_movielens(folder: Path, pause_s: int = 90) -> None:
    """A random log in the layout of MovieLens 100K: 50 users rate 20 to 60 of 80 films, each film of one to three
    genres.

    pause_s: between two ratings of a user, less.
    """
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
            time += int(rng.integers(0, pause_s))
    users = [f"{user}|{20 + user}|{'MF'[user % 2]}|other|{10_000 + user}" for user in range(1, 51)]
    for name, lines in {"u.data": rng.permutation(ratings), "u.item": films, "u.user": users}.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="latin-1")


def rated(folder: Path, *options: str, pause_s: int = 90) -> DataFolder:
    """The random film log, prepared, with users held out where no options say otherwise."""
    write_movielens(folder / "log", pause_s)
    command = ["prepare", "movielens", "--data", str(folder / "log"), "--out", str(folder / "data")]
    assert main([*command, *(options or ("--split", "users"))]) == 0
    return DataFolder.open(folder / "data")


def warm_up(data: DataFolder, old_above: int, new_from: int) -> DataFolder:
    """The splits of the warm-up experiments."""
    return write_splits(data, data.path.parent / "splits", Protocol(old_above=old_above, new_from=new_from, k=2))


# (log, what its arms ask for) -> prepared data.
DATA: dict[tuple[str, str], Callable[[Path], DataFolder]] = {
    ("kuairand", "passes"): simulated,
    ("kuairand", "days"): lambda folder: simulated(folder, days=12),
    ("kuairand", "periods"): lambda folder: simulated(folder, *BY_PERIODS),
    ("kuairand", "warm-up"): lambda folder: warm_up(simulated(folder), 9, 7),
    ("movielens", "passes"): rated,
    # Users that rate at the same time: each is a candidate for the others' films.
    ("movielens", "periods"): lambda folder: rated(folder, *BY_PERIODS, pause_s=100_000),
    ("movielens", "warm-up"): lambda folder: warm_up(rated(folder), 24, 8),
}


def kind_of_data(config: RunConfig) -> tuple[str, str]:
    """Key of `DATA`."""
    log = "movielens" if "satisfied" in config.tasks else "kuairand"
    if config.data.fit == ("old",):
        return log, "warm-up"
    if config.train.mode == "periods":
        return log, "periods" if config.train.first_period.startswith("p") else "days"
    return log, "passes"


def run_losses(arm: Callable[[], RunConfig], data: DataFolder, out: Path) -> list[float]:
    """Training losses of the first steps of a shrunken arm."""
    config = tiny(arm())
    config = replace(config, train=replace(config.train, steps=STEPS, log_every=1))
    with process_group() as ranks:
        train(config, data, out, ranks, fresh=True, diff="")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [round(r["value"], 6) for r in rows if (r["task"], r["metric"]) == ("all", "loss")]


def base_of(name: str) -> str:
    """The arm that an arm is compared with."""
    module = name.split(":")[0]
    if module == "mwuf":
        return "mwuf:movielens"
    if ("pam" in module or module == "streams") and ARMS[name]().model.retrieves:
        return "pam:pf"
    return "movielens:base" if module.startswith("movielens") else "kuairand:base"


def diffs() -> dict[str, list[str]]:
    """Arm -> its difference to its base."""
    return {name: difference(arm(), ARMS[base_of(name)]()).splitlines() for name, arm in ARMS.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, str]], DataFolder]:
    """Key of `DATA` -> the data, made when first asked for."""
    return cache(lambda key: DATA[key](tmp_path_factory.mktemp("-".join(key))))


def test_no_config_module_is_left_out():
    files = Path(coldrank.configs.__file__).parent.glob("*.py")
    assert sorted(MODULES + NO_ARMS) == sorted(f.stem for f in files)
    assert {name.split(":")[0] for name in ARMS} == set(MODULES)


@pytest.mark.parametrize("name", ARMS)
def test_arm_is_valid_and_named(name: str):
    config = ARMS[name]()
    validate(config)
    validate(tiny(config))
    module, _, arm = name.partition(":")
    assert config.name == ("deepfm" if module == "mwuf" else arm)  # the experiments name it after the model


def test_differences_are_as_written_down():
    assert diffs() == json.loads((GOLDEN / "diffs.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_losses_are_as_written_down(name: str, data: Callable[[tuple[str, str]], DataFolder], tmp_path: Path):
    expected = LOSSES[name]
    assert len(expected) == STEPS
    found = run_losses(RUNS[name], data(kind_of_data(RUNS[name]())), tmp_path / "run")
    assert found == pytest.approx(expected, abs=CLOSE)


def test_losses_are_of_the_arms_there_are():
    assert list(LOSSES) == list(RUNS)


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm().hooks])
def test_a_hook_and_its_settings_move_the_losses(name: str):
    """Of arms that differ in hooks alone, none has the losses of another; one of them has no hooks."""
    bare = lambda other: replace(RUNS[other](), name="", hooks=())
    others = [other for other in RUNS if other != name and bare(other) == bare(name)]
    assert any(not RUNS[other]().hooks for other in others)
    for other in others:
        moved = np.abs(np.subtract(LOSSES[name], LOSSES[other])).max() > 10 * CLOSE
        both = RUNS[name]().hooks, RUNS[other]().hooks
        # Which train beside the model, and leave its losses as they are.
        beside = () in both and ((Mwuf(),) in both or (ASMG(),) in both)
        assert moved != beside, other


def write_anew(modules: list[str]) -> None:
    """The differences of all arms, and the losses of the arms of these modules."""
    anew = [name for name in RUNS if name.split(":")[0] in modules]
    with tempfile.TemporaryDirectory() as folder:

        @cache
        def made(key: tuple[str, str]) -> DataFolder:
            (place := Path(folder, *key)).mkdir(parents=True)
            return DATA[key](place)

        losses = LOSSES | {n: run_losses(RUNS[n], made(kind_of_data(RUNS[n]())), Path(folder) / n) for n in anew}
    (GOLDEN / "losses.json").write_text(json.dumps({n: losses[n] for n in RUNS}, indent=1) + "\n")
    (GOLDEN / "diffs.json").write_text(json.dumps(diffs(), indent=1) + "\n")


if __name__ == "__main__":
    write_anew(sys.argv[1:] or list(MODULES))
