"""The softmax over items, corrected by their frequency: how often an item was is the same on any number of ranks, also
where these change, and a run that goes on ends as one that was not stopped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from alike import global_batch, run_all, same, state, write_data
from retrieving import two_tower

from coldrank.models.two_tower import TwoTower
from coldrank.train.config import to_dict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """whole/NAME and parts/NAME on one and two ranks: run folders."""
    folder = tmp_path_factory.mktemp("items")
    write_data(folder)
    model = TwoTower(candidates="items", log_q=True, log_q_decay=0.9, log_q_buckets=512)
    (folder / "items.json").write_text(json.dumps(to_dict(global_batch(replace(two_tower(), model=model), epochs=2))))
    case = {"config": str(folder / "items.json"), "data": str(folder / "passes")}
    few = case | {"data": str(folder / "few")}
    run_all(folder, 1, {"passes": case, "few": few, "stopped": case | {"stop": 3}}, "1")
    run_all(folder, 1, {"stopped": case}, "1")
    run_all(folder, 2, {"passes": case, "few": few, "changed": case | {"stop": 3}}, "2")
    run_all(folder, 1, {"changed": case}, "2")
    return folder


@pytest.mark.tried(
    "ranks", "two_tower with log_q, on 1 rank, on 2, and on 2 and then 1", "the same frequencies of items"
)
@pytest.mark.parametrize(("runs", "case"), [("2", "passes"), ("2", "few"), ("2", "changed"), ("1", "stopped")])
def test_frequencies_do_not_depend_on_ranks(folder: Path, runs: str, case: str) -> None:
    wanted = state(folder / "1" / ("few" if case == "few" else "passes"))
    found = state(folder / runs / case)
    names = [name for name in wanted if "frequency" in name]
    assert len(names) == 2
    for name in names:
        assert torch.equal(found[name], wanted[name]) and wanted[name].max() > 0
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.tried("ranks", "two_tower with log_q, stopped and started again", "ends as a run that was not stopped")
def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(folder: Path) -> None:
    same(folder / "1" / "stopped", folder / "1" / "passes")
