"""Dynamic ids that lie with several ranks: whole runs do what one rank does, also when their number changes, and what
is exported scores as it was trained.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from alike import PASSES, global_batch, run_all, same, state, write_data
from steps import in_order
from tiny import growing

from coldrank.data.batches import DataFolder
from coldrank.data.read import SampleReader
from coldrank.serving.export.trained import load_trained
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.distributed.config import ShardingConfig

pytestmark = pytest.mark.slow
RANKS = (2, 4)
WHOLE = ("growing", "full", "managed", "waits")
# Ranks of a start, and after how many steps it is asked to stop.
PARTS = ((1, 1), (2, 1), (4, 2), (1, 1), (2, 0))


def configs() -> dict[str, tuple[str, RunConfig]]:
    """Case -> the name of its data and its config."""
    grows = row_wise(global_batch(growing(), epochs=2))
    return {
        "growing": ("passes", grows),
        "pipeline": ("passes", replace(grows, train=replace(grows.train, pipeline="on"))),
        "full": ("passes", row_wise(global_batch(growing(25), epochs=2))),
        "few": ("few", grows),
        "managed": ("passes", managed()),
        "blocks": ("passes", managed(blocks=5, eviction="lfu")),
        "waits": ("passes", waits(grows)),
        "sketch": ("passes", waits(grows, admission="sketch", counters=8192)),
        "waits for others' rows": ("passes", waits(managed(blocks=3, eviction="distance_lfu"))),
    }


def waits(config: RunConfig, **fields: object) -> RunConfig:
    """Tables whose ids get a row at their third event."""
    return replace(config, tables=tuple(replace(t, min_count=3, **fields) for t in config.tables))


def row_wise(config: RunConfig) -> RunConfig:
    return replace(config, sharding=ShardingConfig(default="row_wise"))


def managed(**fields: object) -> RunConfig:
    """Tables with fewer rows than there are ids."""
    config = row_wise(global_batch(growing(25, "managed"), epochs=2))
    return replace(config, tables=tuple(replace(t, **fields) for t in config.tables))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RANKS/CASE: run folders; of `whole`, with maps that are whole on both ranks."""
    folder = tmp_path_factory.mktemp("maps")
    write_data(folder)
    cases, whole = {}, {}
    for name, (data, config) in configs().items():
        on_all = replace(config, sharding=replace(config.sharding, id_maps="whole"))
        for found, suffix, which in ((cases, "", config), (whole, "-whole", on_all)):
            path = folder / f"{name}{suffix}.json"
            path.write_text(json.dumps(to_dict(which)))
            found[name] = {"config": str(path), "data": str(folder / data)}
    for ranks in (1, *RANKS):
        run_all(folder, ranks, cases, str(ranks))
    run_all(folder, 2, {name: whole[name] for name in WHOLE}, "whole")
    for ranks, stop in PARTS:
        # The last of these cuts falls into the second pass.
        run_all(folder, ranks, {n: c | ({"stop": stop} if stop else {}) for n, c in cases.items()}, "changed")
    return folder


@pytest.mark.tried("ranks", "ids of growing and managed tables on 2 and 4 ranks, ranks without rows", "the rows of one")
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("case", configs())
def test_ids_on_several_ranks_do_what_one_rank_does(folder, ranks, case):
    same(folder / str(ranks) / case, folder / "1" / case)


@pytest.mark.parametrize("case", WHOLE)
def test_maps_that_are_whole_on_every_rank_do_what_one_rank_does(folder, case):
    same(folder / "whole" / case, folder / "1" / case)


@pytest.mark.tried("ranks", "ids of growing and managed tables on 1 rank, then 2, 4, 1 and 2", "the rows of one")
@pytest.mark.parametrize("case", configs())
def test_a_run_whose_ranks_change_keeps_the_row_of_every_id(folder, case):
    same(folder / "changed" / case, folder / "1" / case)


def test_tables_fill_up_and_rows_change_hands_on_the_way(folder):
    facts = {case: json.loads((folder / f"4/{case}/run.json").read_text())["growing_tables"] for case in configs()}
    assert facts["full"]["user"]["ids"] == 24 and facts["full"]["user"]["values_without_a_row"] > 0
    assert 24 < facts["growing"]["user"]["ids"] <= 40 and facts["growing"]["user"]["values_without_a_row"] == 0
    for case in ("managed", "blocks"):
        assert facts[case]["item"]["evicted"] > 0, case
    ids = {case: facts[case]["item"]["ids"] for case in ("waits", "sketch", "growing")}
    assert 0 < ids["waits"] <= ids["sketch"] <= ids["growing"] and ids["waits"] < ids["growing"]
    known = state(folder / "4/growing")["encoder/maps.user.known"]
    assert len(known[0]) == facts["growing"]["user"]["ids"] and in_order(known).equal(known)


@pytest.mark.parametrize("case", ["growing", "full", "blocks", "waits"])
def test_what_is_exported_of_several_ranks_scores_as_trained(folder, case):
    trained = load_trained(folder / "4" / case)
    files = DataFolder.open(folder / "passes").files(("test",))
    (raw,) = SampleReader(files, trained.make.columns(), PASSES["test"]).epoch(0)
    scored = pl.read_parquet(folder / f"4/{case}/predictions-test.parquet")
    order = np.lexsort([raw["item_id"], raw["user_id"], raw["time"]])
    scores = trained.scores(raw).numpy()[order]
    for column, task in enumerate(trained.tasks):
        assert scores[:, column] == pytest.approx(scored[f"prob_{task}"].to_numpy(), abs=2e-6)
