"""Every arm and every hook: trained for some steps, loaded from its checkpoint, and served as it was trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden.test_arms import ARMS as PLAIN_ARMS
from golden.test_arms import rated, simulated, write_movielens
from tiny import tiny

from coldrank.cli.main import main
from coldrank.configs import kuairand, pam
from coldrank.data.batches import DataFolder
from coldrank.serving.export import parity
from coldrank.serving.export.trained import load_trained
from coldrank.serving.export.write import load_script, save_script
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import process_group
from coldrank.train.hooks.asmg import ASMG
from coldrank.train.hooks.incctr import IncCTR
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.pam import Pam
from coldrank.train.hooks.posterior import Posterior
from coldrank.train.hooks.sml import SML
from coldrank.train.trainer import train


def with_hooks(arm: Callable[[], RunConfig], *hooks: str) -> Callable[[], RunConfig]:
    """An arm with hooks, whose limits part the few events."""
    base = arm()
    known = {hook.short_name(): hook for hook in base.hooks}
    settings = {"mwuf": {"max_views": 7, "users": 4}, "pam": {"cuts": (1, 4, 12)}}
    defaults = {"mwuf": Mwuf(), "pam": Pam(), "metacf": MetaCF()} | known
    made = tuple(replace(defaults[name], **settings.get(name, {})) for name in hooks)
    return lambda: replace(base, hooks=made)


HOOKS = {
    "kuairand:poso with mwuf": with_hooks(kuairand.poso, "mwuf"),
    "kuairand:poso with pam": with_hooks(kuairand.poso, "pam"),
    "kuairand:poso_metacf with metacf, mwuf and pam": with_hooks(kuairand.poso_metacf, "metacf", "mwuf", "pam"),
    "kuairand:poso_metacf with mwuf and metacf": with_hooks(kuairand.poso_metacf, "mwuf", "metacf"),
    "pam:pam_f with pam and mwuf": with_hooks(pam.pam_f, "pam", "mwuf"),
}
ARMS = PLAIN_ARMS | HOOKS


def structure(config: RunConfig) -> tuple[object, ...]:
    """What decides which modules a run is trained with and served by, and what they read: arms that are alike in it
    differ in sizes of tables, or in how they are trained, alone."""
    features = [replace(f, init=0.0) for f in config.features]
    tables = [(t.name, t.dim, t.mapping, t.hashes) for t in config.tables]
    of_hook = {
        Pam: lambda p: (p.groups, p.adapt, p.own, p.support_of, [g > 0 for g in p.gamma]),
        Mwuf: lambda m: (m.item, m.user),
        MetaCF: lambda m: m,
        Posterior: lambda p: (p.item, p.user, p.prior),
        IncCTR: lambda _: None,
        SML: lambda s: s,
        ASMG: lambda a: a,
    }
    hooks = [(type(hook), of_hook[type(hook)](hook)) for hook in config.hooks]
    model = replace(config.model, dropout=0.0) if hasattr(config.model, "dropout") else config.model
    return features, tables, model, list(config.tasks), hooks


def first_of_each() -> list[str]:
    """Names of the arms, of those of one structure the first alone."""
    found: dict[str, str] = {}
    for name, arm in ARMS.items():
        found.setdefault(repr(structure(tiny(arm()))), name)
    return list(found.values())


def periods(folder: Path) -> DataFolder:
    """The random film log in periods, with the users of an item's last events."""
    write_movielens(folder / "log")
    command = ["prepare", "movielens", "--data", str(folder / "log"), "--out", str(folder / "data"), "--history", "30"]
    assert main([*command, "--item-history", "30", "--periods", "5"]) == 0
    return DataFolder.open(folder / "data")


def stream(folder: Path) -> DataFolder:
    """2,000 simulated events in periods, likewise."""
    assert main(["simulate", "--events", "2000", "--days", "6", "--out", str(folder / "log")]) == 0
    command = ["prepare", "kuairand", "--data", str(folder / "log"), "--out", str(folder / "data"), "--history", "30"]
    assert main([*command, "--item-history", "30", "--periods", "5"]) == 0
    return DataFolder.open(folder / "data")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], DataFolder]:
    """Name of an arm -> data for it."""
    made: dict[Callable[[Path], DataFolder], DataFolder] = {}

    def folder(name: str) -> DataFolder:
        if name.startswith(("pam", "streams")):
            make = stream if name.startswith("pam_kuairand") else periods
        else:
            make = rated if "movielens" in name else simulated
        if make not in made:
            made[make] = make(tmp_path_factory.mktemp("data"))
        return made[make]

    return folder


# The others take a minute together.
QUICK = ("kuairand:poso_metacf with metacf, mwuf and pam", "pam:pam_f with pam and mwuf")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in first_of_each()]
)
def test_is_served_as_it_was_trained(name: str, folders: Callable[[str], DataFolder], tmp_path: Path):
    data, config = folders(name), tiny(ARMS[name]())
    if config.data.fit == ("old",):  # of the warm-up experiment, which splits the data by items
        config = replace(config, data=replace(config.data, fit=("train",)))
    streamed = config.train.mode == "periods"
    steps = replace(config.train, steps=0 if streamed else 6, first_period="")
    with process_group() as ranks:
        train(replace(config, train=steps), data, tmp_path / "run", ranks, fresh=True, diff="")
    trained = load_trained(tmp_path / "run")
    assert list(trained.task.hooks) == config.hook_names
    save_script(trained.twin(trained.columns()), tmp_path / "model.pt")
    split = data.manifest["partitions"][-1]["split"]
    raw = parity.sample(trained, data, split, 500)
    with torch.inference_mode():
        both = parity.score_both(trained, load_script(tmp_path / "model.pt"), raw)
    assert both.worst < parity.LIMIT
    assert both.served.height > 20
