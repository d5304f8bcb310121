"""Whole runs on 2, 3 and 4 gloo ranks against one rank: to the last, uneven step of each pass and period, with ranks
that have no rows.

With `data.global_batch_size` every step is of the same rows whatever the number of ranks.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from alike import FEW, global_batch, run_all, same, state, write_data
from retrieving import two_tower, with_pam
from tiny import sample_base, with_optim
from torch.distributed.checkpoint import FileSystemReader

from coldrank.configs import base as arms
from coldrank.models.features import Table
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.posterior import Posterior
from coldrank.train.sections import DataConfig

pytestmark = pytest.mark.slow
RANKS = (2, 3, 4)
SHARDINGS = {
    "table_wise": ShardingConfig(default="table_wise"),
    "row_wise": ShardingConfig(default="row_wise"),
    "data_parallel": ShardingConfig(default="data_parallel"),
    "column_wise": ShardingConfig(default="column_wise", column_width=4),
    "auto": ShardingConfig(replicate_up_to=512),
    "table_wise, bags": ShardingConfig(default="table_wise", sequences="bags"),
    "row_wise, bags": ShardingConfig(default="row_wise", sequences="bags"),
}
# Run as two hosts of two ranks.
HOSTS = {
    "table_row_wise": ShardingConfig(default="table_row_wise", sequences="bags"),
    "grid": ShardingConfig(default="grid", column_width=4, sequences="bags"),
    "unpooled": ShardingConfig(default="table_row_wise", sequences="unpooled"),
    "unpooled columns": ShardingConfig(default="grid", column_width=4, sequences="unpooled"),
}
# Ranks of a start, and after how many steps it is asked to stop: within a pass or period, between two lines of metrics.
PARTS = ((2, 2), (1, 3), (2, 0))
CHANGES = ("passes row_wise", "passes row_wise, bags", "stream", "hooks", "posterior", "rich")


def configs() -> dict[str, tuple[str, RunConfig]]:
    """Case -> the name of its data and its config."""
    plain = global_batch(sample_base(), epochs=2)
    rows = replace(plain, sharding=SHARDINGS["row_wise"])
    rich = replace(arms.poso(rows), cold_weight=3.0, train=replace(rows.train, accumulate=3, cold_passes=1))
    rich = with_optim(rich, tables={"weight_decay": 0.5}, dense={"clip_norm": 0.05, "weight_decay": 1.0})
    stream = replace(rows, train=replace(rows.train, mode="periods", epochs=1, first_period="b", look_back=(1,)))
    users = (Table(name="user", rows=61, dim=8, mapping="vocabulary"),)
    hooked = replace(rows, tables=(*users, *rows.tables[1:]))
    hooked = replace(hooked, hooks=(MetaCF(max_views=14), Mwuf(max_views=59, users=8, refresh=2)))
    posterior = Posterior(item_max_views=180, user="user_id", user_max_views=27, refresh=2, prior="mean")
    cold = replace(rows, hooks=(posterior,), tables=tuple(replace(t, mapping="vocabulary") for t in rows.tables))
    own = replace(rows, data=replace(rows.data, batch_size=32, global_batch_size=0))
    pam = with_pam()
    hashed: dict[str, Any] = {"mapping": "multi_hash", "min_count": 1}
    found = {f"passes {name}": ("passes", replace(plain, sharding=how)) for name, how in SHARDINGS.items()}
    return found | {
        "rich": ("passes", rich),
        "pipeline": ("passes", replace(rows, train=replace(rows.train, pipeline="on"))),
        "stream": ("periods", replace(stream, data=replace(stream.data, order="time", fit=DataConfig().fit))),
        "few": ("few", rows),
        "multi_hash": ("passes", replace(rows, tables=tuple(replace(t, **hashed) for t in rows.tables))),
        "hooks": ("passes", hooked),
        "posterior": ("passes", cold),
        "own": ("passes", own),
        "towers": ("few", global_batch(two_tower())),
        "pam": ("few", replace(global_batch(pam), train=replace(plain.train, epochs=1))),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RANKS/CASE: run folders."""
    folder = tmp_path_factory.mktemp("whole")
    write_data(folder)
    cases: dict[str, dict[str, object]] = {}
    for name, (data, config) in configs().items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(to_dict(config)))
        cases[name] = {"config": str(path), "data": str(folder / data)}
    own = cases.pop("own")
    two_hosts = {f"hosts {how}": write_case(folder, how) for how in HOSTS}
    run_all(folder, 1, cases | two_hosts | {f"own {n}": own | {"together": n} for n in RANKS}, "1")
    for ranks in RANKS:
        hosts = {name: case | {"hosts": 2} for name, case in two_hosts.items()} if ranks == 4 else {}
        run_all(folder, ranks, cases | {f"own {ranks}": own} | hosts, str(ranks))
    for ranks, stop in PARTS:
        stopped = {name: cases[name] | ({"stop": stop} if stop else {}) for name in CHANGES}
        run_all(folder, ranks, stopped, "changed")
    return folder


def write_case(folder: Path, sharding: str) -> dict[str, object]:
    config = replace(global_batch(sample_base()), sharding=HOSTS[sharding])
    (folder / f"{sharding}.json").write_text(json.dumps(to_dict(config)))
    return {"config": str(folder / f"{sharding}.json"), "data": str(folder / "passes")}


def sequences(run: Path) -> str:
    """How a run has read its histories."""
    found: str = json.loads((run / "run.json").read_text())["sequences"]
    return found


@pytest.mark.tried("ranks", "two hosts of two ranks, table_row_wise and grid", "what one rank does")
@pytest.mark.parametrize("how", HOSTS)
def test_ranks_of_two_hosts_do_what_one_rank_does(folder, how):
    same(folder / "4" / f"hosts {how}", folder / "1" / f"hosts {how}")
    assert sequences(folder / "4" / f"hosts {how}") == ("unpooled" if "unpooled" in how else "bags")


@pytest.mark.tried("ranks", "data.global_batch_size, 2 ranks, then 1, then 2", "ends as 2 ranks throughout")
@pytest.mark.parametrize("case", CHANGES)
def test_a_run_whose_ranks_change_ends_as_one_whose_ranks_did_not(folder, case):
    same(folder / "changed" / case, folder / "2" / case)


def test_what_lies_beside_a_table_is_sharded_as_the_table_is(folder):
    """A checkpoint of four ranks has what the events of an item have told in as many parts as its rows, of the same
    sizes; on one rank it is of some items."""
    (path,) = (folder / "4" / "posterior" / "checkpoints").glob("step-*")
    stored = FileSystemReader(path).read_metadata().state_dict_metadata
    of_table = stored["model.embeddings.ebc.embedding_bags.item.weight"].chunks
    beside = stored["model.hooks.posterior.ids.item.gained"].chunks
    assert len(of_table) == 4 and [(c.offsets, c.sizes) for c in beside] == [(c.offsets, c.sizes) for c in of_table]
    told = state(folder / "4" / "posterior")
    (gained,) = (value for name, value in told.items() if name.endswith("item.gained"))
    assert gained.any(1).sum() > 5


ALIKE = ["rich", "pipeline", "stream", "few", "multi_hash", "hooks", "posterior"]


@pytest.mark.tried(
    "ranks", "every sharding, an uneven last batch, tables of odd rows", "what one rank does, to rounding"
)
@pytest.mark.tried(
    "ranks", "fewer rows than ranks in a batch, a period, the whole data", "what one rank does, to rounding"
)
@pytest.mark.tried(
    "ranks", "row decay, clipping, micro-batches, cold_weight, a pass over new users", "what one rank does, to rounding"
)
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("case", [*(f"passes {name}" for name in SHARDINGS), *ALIKE])
def test_ranks_do_what_one_rank_does(folder, ranks, case):
    same(folder / str(ranks) / case, folder / "1" / case)
    in_bags = case.endswith("bags") or case == "passes data_parallel"
    assert sequences(folder / str(ranks) / case) == ("bags" if in_bags else "unpooled")
    assert sequences(folder / "1" / case) == "bags"


@pytest.mark.tried(
    "ranks", "batch_size on each of 2, 3, 4 ranks, a short last batch", "the loss of all their rows together"
)
@pytest.mark.parametrize("ranks", RANKS)
def test_a_step_of_batches_per_rank_is_that_of_their_rows_together(folder, ranks):
    same(folder / str(ranks) / f"own {ranks}", folder / "1" / f"own {ranks}")


@pytest.mark.tried(
    "ranks", "retrieval and PAM, whose candidates are of a rank, with ranks that have no rows", "finite, all scored"
)
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("case", ["towers", "pam"])
def test_losses_over_the_rows_of_a_rank_take_ranks_without_rows(folder, ranks, case):
    run = folder / str(ranks) / case
    assert json.loads((run / "run.json").read_text())["finished"]
    assert all(value.isfinite().all() for value in state(run).values())
    assert len(pl.read_parquet(run / "predictions-test.parquet")) == FEW["test"]
