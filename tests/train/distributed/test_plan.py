"""Plans for clusters that are not here."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from tiny import sample_base

from coldrank.cli.main import main
from coldrank.cli.plan import bytes_of
from coldrank.data.errors import UserError
from coldrank.models.embeddings import Inputs
from coldrank.models.features import Table
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.distributed.dense import dense_bytes, dense_flops
from coldrank.train.distributed.fit import largest_rows, shortage
from coldrank.train.distributed.plan import Plan
from coldrank.train.distributed.request import Cluster, PlanRequest
from coldrank.train.distributed.search import fits, make_plan, with_rows
from coldrank.train.distributed.table import memory as memory_text
from coldrank.train.distributed.table import sequences, tables
from coldrank.train.sections import TablesConfig
from coldrank.train.task import RankingTask

USERS = 40_000_000
# Of 32 columns, its sums and weights: 5.3 GB.
SIZES = {"user": (USERS, 32), "item": (1_000_000, 16)}


def big(sharding: ShardingConfig | None = None) -> RunConfig:
    """A tiny arm with large tables."""
    config = sample_base()
    resized = tuple(
        replace(t, rows=SIZES[t.name][0], dim=SIZES[t.name][1]) if t.name in SIZES else t for t in config.tables
    )
    return replace(config, tables=resized, sharding=sharding or ShardingConfig())


def request(
    sharding: ShardingConfig | None = None,
    *,
    world_size: int = 8,
    hosts: int = 1,
    memory: float = 4e9,
    **optimizer: object,
) -> PlanRequest:
    return PlanRequest(
        features=validate(big(sharding)),
        sharding=sharding or ShardingConfig(),
        optimizer=TablesConfig(**optimizer),
        batch_size=512,
        dense_bytes=10_000_000,
        cluster=Cluster(device="cuda", world_size=world_size, hosts=hosts, memory=int(memory)),
    )


def planned(**fields: object) -> Plan:
    plan = make_plan(request(**fields))
    assert plan is not None
    return plan


def test_what_the_planner_may_choose():
    assert set(map(tuple, request(world_size=1).choices().values())) == {("table_wise",)}
    choices = request().choices()
    assert choices["user"] == ["table_wise", "row_wise"] and choices["tag"] == ["data_parallel"]
    assert request(hosts=2).choices()["user"] == ["table_wise", "row_wise", "table_row_wise"]
    for fused_only in ({"kind": "adam"}, {"clip_value": 0.1}):
        assert request(**fused_only).choices()["tag"] == ["table_wise", "row_wise"]
    asked = ShardingConfig(default="grid", tables={"user": "table_row_wise", "tag": "data_parallel"})
    assert request(asked, hosts=2).choices()["user"] == ["table_row_wise"]
    assert request(asked, hosts=2).choices()["item"] == ["grid_shard"]
    alone = request(asked, hosts=1, kind="adam").choices()
    assert (alone["user"], alone["item"], alone["tag"]) == (["row_wise"], ["column_wise"], ["data_parallel"])


def test_how_sequences_may_be_read():
    ways = lambda asked: [way.sharding.sequences for way in asked.ways()]
    alone = replace(request().cluster, world_size=1)
    assert ways(replace(request(), cluster=alone)) == ways(request()) == ["unpooled", "bags"]
    assert ways(replace(request(), cluster=replace(alone, device="cpu"))) == ["bags"]
    assert ways(request(ShardingConfig(sequences="unpooled"))) == ["unpooled"]
    copied = ShardingConfig(tables={"item": "data_parallel"})
    assert ways(request(copied)) == ["bags"]  # the table of signals is small enough to be copied, too
    unpooled = request(ShardingConfig(sequences="unpooled"))
    assert unpooled.unpooled == {"item"} and request(ShardingConfig(sequences="bags")).unpooled == frozenset()
    assert request(ShardingConfig(sequences="unpooled", replicate_up_to=0)).unpooled == {"item", "hist_signals"}


@pytest.mark.tried(
    "ranks",
    "table_row_wise or grid for a table that is read un-pooled, which TorchRec has not",
    "row_wise or column_wise, which trains alike",
)
def test_what_is_not_there_for_unpooled_tables_is_replaced():
    for asked, found in (("table_row_wise", "row_wise"), ("grid", "column_wise"), ("auto", None)):
        width = 8 if asked == "grid" else 32
        sharding = ShardingConfig(sequences="unpooled", tables={"user": asked, "item": asked}, column_width=width)
        choices = request(sharding, hosts=2).choices()
        assert choices["item"] == ([found] if found else ["table_wise", "row_wise"])
        assert choices["user"][-1] == {"grid": "grid_shard"}.get(asked, "table_row_wise")


def test_a_plan_is_of_both_collections():
    plan = planned(sharding=ShardingConfig(sequences="unpooled", replicate_up_to=600), hosts=2)
    assert {path: set(module) for path, module in plan.modules.items()} == {
        "ebc": {t.name for t in plan.request.features.tables} - {"item", "hist_signals"},
        "ecs.16": {"item"},
        "ecs.24": {"hist_signals"},
    }
    assert sequences(plan) == "sequences: un-pooled (tables item, hist_signals)" and plan.other is None


def test_the_faster_way_to_read_sequences_is_taken():
    plan = planned(hosts=2)
    assert plan.sequences == "unpooled" and plan.other is not None and plan.other.sequences == "bags"
    assert plan.work().max() <= plan.other.work().max()
    for way, other in ((plan, "bags"), (plan.other, "unpooled")):
        alone = make_plan(replace(way.request, sharding=replace(way.request.sharding, sequences=other)))
        assert alone is not None and alone.work().max() in (plan.work().max(), plan.other.work().max())


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad", "sgd", "adam"])
@pytest.mark.parametrize("choice", ["auto", "row_wise", "column_wise", "table_row_wise", "grid"])
def test_every_weight_lies_somewhere_and_no_rank_is_overfull(choice, optimizer):
    sharding = ShardingConfig(
        default="auto", tables={"user": choice}, column_width=8 if choice in ("column_wise", "grid") else 32
    )
    plan = planned(sharding=sharding, world_size=8, hosts=2, memory=30e9, kind=optimizer)
    assert [p.table.name for p in plan.placed] == [t.name for t in plan.request.features.tables]
    for table, sharded, kernel, shards in plan.placed:
        copies = 8 if sharded == "data_parallel" else 1
        assert sum(s.rows * s.columns for s in shards) == copies * table.rows * table.dim
        assert kernel == ("dense" if copies == 8 else "fused")
        assert all(0 <= s.rank < 8 and s.milliseconds > 0 and (s.exchange > 0 or not s.rows) for s in shards)
    memory = plan.memory()
    weights = sum(s.rows * s.columns * 4 for p in plan.placed for s in p.shards)
    sums = sum(s.rows * 4 for p in plan.placed for s in p.shards)
    of_optimizer = {"rowwise_adagrad": sums, "adagrad": weights, "sgd": 0, "adam": 2 * weights}[optimizer]
    assert memory["tables"].sum() == weights
    assert memory["optimizer of the tables"].sum() == of_optimizer
    total = memory.pop("all")
    assert total == pytest.approx(sum(memory.values()))
    assert total.max() <= plan.request.usable
    assert plan.work().shape == (8,)


def test_the_table_says_where_each_table_lies():
    lines = tables(planned(sharding=ShardingConfig(tables={"user": "row_wise"}))).splitlines()
    row = next(line for line in lines if line.startswith("user ")).split()
    # 5,000,000 rows of 32 columns and a sum each, in MiB; a vocabulary of 8 bytes an id, and 16 MiB of remembered
    # places.
    bytes_of_it = ["4.8", "GiB", "629.4", "MiB", "321.2", "MiB"]
    assert row == ["user", "40,000,000", "32", "row_wise", "fused", "all", "8", *bytes_of_it]


@pytest.mark.slow
def test_the_plan_is_the_same_in_every_process():
    program = (
        "import sys; sys.path[:0] = ['tests', 'tests/train/distributed']\n"
        "from test_plan import planned; from coldrank.train.distributed.table import tables\n"
        "print(tables(planned(world_size=16, hosts=2)))"
    )
    said = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        said.append(done.stdout)
    assert said[0] == said[1] and "user" in said[0]


def test_what_does_not_fit_is_said():
    tight = request(ShardingConfig(tables={"user": "table_wise"}))
    assert make_plan(tight) is None
    said = shortage(tight)
    assert "needs 4.9 GiB of 3.2 GiB usable" in said and "table user, table_wise: 4.8 GiB there" in said


def test_the_largest_table_is_as_large_as_it_can_be():
    spacious = request()
    table, rows = largest_rows(spacious)
    assert table.name == "user" and rows > USERS
    with_rows = lambda n: replace(spacious, features=validate(resized(n)))
    assert fits(with_rows(rows)) and not fits(with_rows(int(rows * 1.03)))


def resized(users: int) -> RunConfig:
    config = big()
    return replace(config, tables=tuple(replace(t, rows=users) if t.name == "user" else t for t in config.tables))


def test_the_dense_part_is_measured():
    config = sample_base()
    features = validate(config)
    task = RankingTask(features, config.model, config.tasks, device=torch.device("meta"))
    weights = sum(p.numel() for p in task.ranker.parameters())
    of_none, of_one, of_many = (dense_bytes(task, features, rows) for rows in (0, 8, 800))
    assert of_none == 16 * weights
    assert of_many - of_none == 100 * (of_one - of_none)
    # At least the concatenated input of the experts and their outputs, at most a few dozen of them.
    per_row = (of_one - of_none) / 8
    assert 4 * Inputs(features).static_dim < per_row < 400 * Inputs(features).static_dim
    one, many = (dense_flops(task, features, rows) for rows in (8, 800))
    # Each weight of a matrix is multiplied and added once a row or, at a history's positions, more often.
    matrices = sum(p.numel() for p in task.ranker.parameters() if p.dim() > 1)
    assert many == 100 * one and 6 * 8 * matrices <= one < 6 * 8 * matrices * 20


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GiB", 80 << 30), ("80GB", 80 * 10**9), ("1.5tib", 3 << 39), ("512 MiB", 512 << 20), ("1000", 1000)],
)
def test_sizes(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["80", "GiB", "0GiB", "80 apples", "-1GB"])
def test_sizes_that_are_none(text, capsys):
    if text == "80":  # eighty bytes: nothing fits, but it is a size
        assert bytes_of(text) == 80
        return
    with pytest.raises(SystemExit):
        main(["plan", "--config", "x", "--world-size", "1", f"--hbm={text}"])
    assert f"{text!r}: expected a size as 80GiB" in capsys.readouterr().err


@pytest.fixture
def arm(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(big())))
    return ["plan", "--config", str(path)]


@pytest.mark.tried("ranks", "`plan` for 100,000 ranks", "refused: at most 16,384")
def test_more_ranks_than_are_planned_are_refused(capsys: pytest.CaptureFixture[str]):
    arm = ["plan", "--config", "coldrank.configs.kuairand:base"]
    assert main([*arm, "--world-size", "100000", "--hosts", "12500", "--hbm", "80GB"]) == 2
    assert "--world-size 100000: should be at most 16,384" in capsys.readouterr().err


def test_the_command_plans(arm, capsys):
    assert main([*arm, "--world-size", "16", "--hosts", "2", "--hbm", "4GB"]) == 0
    said = capsys.readouterr().out
    for part in ("user", "all 16", "memory of a rank", "dense part", "usable: 3.2 GiB", "balance", "still fits with"):
        assert part in said, part


@pytest.mark.parametrize(
    "cluster",
    [
        ["--world-size", "8", "--hbm", "4GB", "--set", "sharding.tables.user=table_wise"],
        ["--world-size", "4", "--hbm", "1GiB"],
        ["--world-size", "2", "--ddr", "6GB"],
        ["--world-size", "4", "--hbm", "3GiB", "--batch-size", "2000000"],
    ],
)
def test_the_command_refuses_and_what_it_suggests_fits(arm, cluster, capsys):
    assert main([*arm, *cluster]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("coldrank plan: the model does not fit: rank ")
    remedies = [line.strip() for line in told.out.splitlines() if line.startswith("  ")]
    flags = [r.partition(" (")[0] for r in remedies if r.startswith("--")]
    assert flags
    for flag in flags:
        assert main([*arm, *cluster, *flag.split()]) == 0, flag


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--world-size", "3", "--hosts", "2", "--hbm", "1GB"], "--world-size 3 --hosts 2: every host must have"),
        (["--world-size", "0", "--hbm", "1GB"], "--world-size 0 --hosts 1"),
        (["--world-size", "1", "--hbm", "1GB", "--batch-size", "0"], "--batch-size 0: must be above 0"),
        (
            ["--world-size", "1", "--hbm", "1GB", "--set", "sharding.tables.usr=row_wise"],
            "sharding.tables.usr: no such",
        ),
        (["--world-size", "1", "--hbm", "1GB", "--set", "sharding.tables.user=rows"], "sharding.tables.user='rows'"),
    ],
)
def test_mistakes_are_one_line(arm, flags, message, capsys):
    assert main([*arm, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"tables": {"item": "column_wise"}},
            "base: sharding.tables.item=column_wise: dim 8 has no equal parts of at least",
        ),
        ({"column_width": 6}, "base: sharding.column_width=6: must be a multiple of 4"),
        ({"replicate_up_to": -1}, "base: sharding.replicate_up_to=-1: must not be below 0"),
        ({"memory_margin": 1.0}, "base: sharding.memory_margin=1.0: must be below 1"),
    ],
)
def test_mistakes_in_the_config(fields, message):
    with pytest.raises(UserError, match=message):
        validate(replace(sample_base(), sharding=ShardingConfig(**fields)))


def test_maps_of_ids_take_memory_of_the_host():
    """A growing table's int64 id and row of every place; a managed one's id, place and score; a vocabulary's id."""
    config = big()
    mappings = {"user": "growing", "item": "managed", "tag": "hash"}
    config = replace(
        config,
        tables=tuple(Table(name=t.name, rows=t.rows, dim=t.dim, mapping=mappings[t.name]) for t in config.tables),
    )
    rows = {t.name: t.rows for t in config.tables}
    wanted = {"user": 16 * rows["user"], "item": 24 * rows["item"], "tag": 0}
    asked = replace(request(memory=30e9), features=validate(config), sharding=ShardingConfig(id_maps="whole"))
    sizes = {t.name: asked.map_bytes(t) for t in config.tables}
    assert sizes == pytest.approx(wanted, abs=64)
    gpu, cpu = make_plan(asked), make_plan(replace(asked, cluster=replace(asked.cluster, device="cpu")))
    assert gpu is not None and cpu is not None and "maps of ids" not in gpu.memory()
    memory = cpu.memory()
    assert (memory["maps of ids"] == sum(sizes.values())).all()
    assert (memory["all"] == sum(part for kind, part in memory.items() if kind != "all")).all()
    assert not fits(replace(cpu.request, cluster=replace(cpu.request.cluster, memory=sum(sizes.values()))))
    assert "maps of ids, in the host's memory: 633.2 MiB a rank, 4.9 GiB a host, at most" in memory_text(gpu)
    assert tables(gpu).splitlines()[2].endswith("610.4 MiB")
    blocks = tuple(replace(t, blocks=16 if t.name == "item" else 1) for t in config.tables)
    parts = replace(asked, features=validate(replace(config, tables=blocks)), sharding=ShardingConfig())
    shared = {t.name: parts.map_bytes(t) for t in blocks}
    assert shared == pytest.approx({name: size / 8 for name, size in wanted.items()}, rel=1e-3, abs=64)
    assert parts.map_bytes(config.tables[1]) == sizes["item"], "a managed table of one block is whole on one rank"


@pytest.mark.tried(
    "ranks", "row_wise, and a table of 5 rows on 4 ranks, one of which would have none", "lies whole on one rank"
)
@pytest.mark.parametrize(
    ("choice", "hosts", "rows", "found"),
    [
        ("row_wise", 1, 5, "table_wise"),
        ("row_wise", 1, 7, "row_wise"),
        ("row_wise", 1, 4, "row_wise"),
        ("table_row_wise", 2, 1, "table_wise"),
        ("table_row_wise", 2, 2, "table_row_wise"),
        ("grid", 2, 1, "column_wise"),
        ("grid", 2, 3, "grid_shard"),
    ],
)
def test_no_rank_has_an_empty_part_of_a_table(choice, hosts, rows, found):
    asked = request(ShardingConfig(default=choice), hosts=hosts)
    features = with_rows(asked.features, next(t for t in asked.features.tables if t.name == "tag"), rows)
    cluster = replace(asked.cluster, world_size=4)
    assert replace(asked, features=features, cluster=cluster).choices()["tag"] == [found]
