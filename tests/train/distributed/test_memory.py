"""Tables beyond the memory of the GPUs, and replicas of all: what is planned, and what is refused."""

import json
from dataclasses import replace

import pytest
import torch
from test_plan import big, request
from tiny import sample_base, with_optim
from torchrec.distributed.planner.shard_estimators import EmbeddingStorageEstimator

from coldrank.cli.main import main
from coldrank.data.errors import UserError
from coldrank.models.embeddings import EmbeddingStage
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.distributed import space
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.distributed.fit import remedies, shortage
from coldrank.train.distributed.memory import stored
from coldrank.train.distributed.refused import cluster_problem
from coldrank.train.distributed.request import Cluster, PlanRequest
from coldrank.train.distributed.search import even_plan, fits, make_plan
from coldrank.train.distributed.table import memory, replicas, tables
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.sections import TablesConfig

GIB = 1 << 30


def tried(given: str, answer: str) -> pytest.MarkDecorator:
    return pytest.mark.tried("ranks", given, answer)


def huge(rows: int, dim: int) -> RunConfig:
    """A tiny arm whose users have a large table, without a map."""
    config = sample_base()
    user = next(t for t in config.tables if t.name == "user")
    rest = [t for t in config.tables if t.name != "user"]
    return replace(config, tables=(replace(user, rows=rows, dim=dim, mapping="hash", min_count=1), *rest))


def asked(rows: int, dim: int, ranks: int, ddr: int = 0, ssd: int = 0, **sharding: object) -> PlanRequest:
    """GPUs of 80 GiB, eight to a host; ddr, ssd: GiB of each host."""
    of_rank = lambda gib: gib * GIB // 8
    cluster = Cluster(
        device="cuda", world_size=ranks, hosts=ranks // 8, memory=80 * GIB, host_memory=of_rank(ddr), ssd=of_rank(ssd)
    )
    config = replace(huge(rows, dim), sharding=ShardingConfig(sequences="bags", **sharding))
    return replace(request(), features=validate(config), sharding=config.sharding, cluster=cluster)


def test_where_a_part_of_a_table_lies():
    """100 rows of 8 columns: 3,200 bytes; sums of 400; a cache of a quarter, 4 bytes a row and 16 a cached row."""
    cache = 800 + 400 + 400
    assert stored("fused", "rowwise_adagrad", 100, 8, 0.25) == (3200, 400, 0, 0)
    assert stored("dense", "adagrad", 100, 8, 0.25) == (3200, 3200, 0, 0)
    assert stored("fused_uvm", "rowwise_adagrad", 100, 8, 0.25) == (0, 400, 3200, 0)
    assert stored("fused_uvm", "adam", 100, 8, 0.25) == (0, 0, 9600, 0)
    assert stored("fused_uvm_caching", "rowwise_adagrad", 100, 8, 0.25) == (cache, 400, 3200, 0)
    assert stored("fused_uvm_caching", "adagrad", 100, 8, 0.25) == (cache, 0, 6400, 0)
    assert stored("key_value", "rowwise_adagrad", 100, 8, 0.25) == (cache, 400, 0, 3200)


def test_what_a_kernel_takes_is_what_torchrec_counts():
    """Where it counts all: without an optimizer's state, and not on an SSD."""
    one = replace(asked(10_000_000, 32, 8, ddr=1024), optimizer=replace(request().optimizer, kind="sgd"))
    allowed = space.evenly(one.choices())
    stage, sharders = EmbeddingStage(one.features, torch.device("meta")), [space.Part({"user"})]
    topology = space.topology_of(one, space.Storage(80 * GIB, 100 * GIB))
    constraints = space.constraints_of(one, allowed)
    with space.quiet():
        enumerator = space.Enumerated(one, topology, constraints)
        ours = enumerator.enumerate(stage, sharders)
        counted = {o.compute_kernel: [s.storage for s in o.shards] for o in ours}
        EmbeddingStorageEstimator(topology, constraints).estimate(ours, enumerator._sharder_data_map)
    assert counted.keys() == {"fused", "fused_uvm_caching", "fused_uvm"}
    for option in ours:
        for shard, storage in zip(option.shards, counted[option.compute_kernel], strict=True):
            assert (storage.hbm, storage.ddr) == pytest.approx((shard.storage.hbm, shard.storage.ddr), abs=4)


@pytest.mark.parametrize(
    ("rows", "dim", "ranks", "beside", "kernel"),
    [
        (10**9, 64, 8, {}, "fused"),  # 32 GB a rank
        (10**9, 64, 1024, {"ddr": 1024, "ssd": 10240}, "fused"),
        (10**10, 128, 256, {}, "fused"),  # 20 GB
        (10**10, 128, 1024, {}, "fused"),
        (10**10, 128, 8, {}, ""),  # 640 GB
        (10**10, 128, 8, {"ddr": 1024}, ""),  # of 117 GB
        (10**10, 128, 8, {"ddr": 8192}, "fused_uvm"),  # a cache of a fifth takes 128 GB
        (10**10, 128, 8, {"ddr": 1024, "ssd": 10240}, ""),
        (10**10, 128, 8, {"ssd": 10240, "cache_share": 0.05}, "key_value"),
        (10**10, 128, 64, {}, ""),  # 80 GB
        (10**10, 128, 64, {"ddr": 1024}, "fused_uvm_caching"),
        (10**10, 128, 64, {"ddr": 512}, ""),  # of 58 GB
        (10**10, 128, 64, {"ddr": 512, "ssd": 2048}, "key_value"),
    ],
)
def test_a_large_table_lies_where_there_is_room(rows, dim, ranks, beside, kernel):
    """The fastest memory first. 85% of it may be filled."""
    one = asked(rows, dim, ranks, **beside)
    assert fits(one) == bool(kernel)
    plan = even_plan(one)
    assert (plan is not None) == bool(kernel)
    if plan is None:
        return
    user = next(p for p in plan.placed if p.table.name == "user")
    assert (user.sharding, user.kernel) == ("row_wise", kernel)
    assert sum(s.rows * s.columns for s in user.shards) == rows * dim
    assert plan.memory()["all"].max() <= one.usable
    there = plan.beside()
    assert there["host"].max() <= one.usable_host and there["ssd"].max() <= one.usable_ssd
    elsewhere = {"fused_uvm": "host", "fused_uvm_caching": "host", "key_value": "ssd"}.get(kernel)
    assert {what: amounts.sum() for what, amounts in there.items() if amounts.any()} == (
        {elsewhere: 4 * rows * dim} if elsewhere else {}
    )
    cached = plan.modules["ebc"]["user"].cache_params
    assert (cached is not None) == (kernel in ("fused_uvm_caching", "key_value"))


def test_the_search_takes_the_gpus_memory_first():
    spacious, tight = request(memory=30e9), request(memory=0.7e9)
    beside = lambda r: replace(r, cluster=replace(r.cluster, host_memory=10 * GIB))
    kernels = lambda plan: {p.kernel for p in plan.placed}
    assert kernels(make_plan(beside(spacious))) == {"fused", "dense"}
    assert make_plan(tight) is None
    plan = make_plan(beside(tight))
    assert plan is not None and kernels(plan) & {"fused_uvm", "fused_uvm_caching"}
    assert plan.memory()["all"].max() <= tight.usable and plan.beside()["host"].max() <= beside(tight).usable_host
    assert plan.request.sharding.memory == {}


def test_a_choice_is_kept():
    fixed = asked(1_000_000, 32, 8, ddr=1024, memory={"user": "uvm"}, tables={"user": "row_wise"}, replicate_up_to=1)
    plan = make_plan(fixed)
    assert plan is not None
    by_table = {p.table.name: p.kernel for p in plan.placed}
    assert by_table.pop("user") == "fused_uvm" and set(by_table.values()) == {"fused"}
    said = tables(plan)
    assert "in the host's memory, a rank" in said and "on SSD" not in said
    assert "tables in the host's memory: 15.3 MiB of 108.8 GiB usable" in memory(plan)


@pytest.mark.parametrize("default", ["uvm", "uvm_caching"])
def test_small_tables_stay_where_they_are(default):
    """What `auto` copies is copied, and with an optimizer that copies nothing it lies whole in the GPUs' memory."""
    everything = asked(1_000_000, 32, 8, ddr=1024, default_memory=default)
    beside = {"uvm": "fused_uvm", "uvm_caching": "fused_uvm_caching"}[default]
    kernels = lambda r: {p.table.name: (p.sharding == "data_parallel", p.kernel) for p in make_plan(r).placed}
    lies = kernels(everything)
    assert lies.pop("user") == (False, beside) and set(lies.values()) == {(True, "dense")}
    adam = kernels(replace(everything, optimizer=TablesConfig(kind="adam")))
    assert adam.pop("user") == (False, beside) and set(adam.values()) == {(False, "fused")}
    named = replace(everything, sharding=replace(everything.sharding, memory={"tag": default}))
    assert kernels(named)["tag"] == (False, beside)
    none_is_small = replace(everything, sharding=replace(everything.sharding, replicate_up_to=0))
    assert set(kernels(none_is_small).values()) == {(False, beside)}
    # A copy beside tables that lie elsewhere is no contradiction.
    validate(replace(huge(10**6, 32), sharding=ShardingConfig(default_memory=default, tables={"tag": "data_parallel"})))


@tried(
    "plan: a cache in the GPUs' memory that is too large for it",
    "refused, with what it takes; a smaller sharding.cache_share is named, which fits",
)
def test_a_cache_that_does_not_fit_may_be_smaller():
    short = asked(10**10, 128, 8, ddr=8192, memory={"user": "uvm_caching"})
    assert "most of it for table user, row_wise: a cache of 127.6 GiB there" in shortage(short)
    flags = [r.partition(" (")[0] for r in remedies(short)]
    assert "--set sharding.cache_share=0.05" in flags
    smaller = lambda share: replace(short, sharding=replace(short.sharding, cache_share=share))
    assert fits(smaller(0.05)) and not fits(smaller(0.1))
    assert not any("cache_share" in r for r in remedies(asked(10**10, 128, 64)))


def test_what_is_short_is_said_and_what_would_do():
    short = asked(10**10, 128, 64, ddr=512)
    assert "GiB usable (15% of 80.0 GiB are kept free)" in shortage(short)
    assert shortage(short).endswith("; beside it tables may fill 54.4 GiB of the host's memory")
    flags = [r.partition(" (")[0] for r in remedies(short)]
    assert "--ddr 1024GiB" in flags and "--ssd 1024GiB" in flags
    fixed = asked(10**10, 128, 64, ddr=512, memory={"user": "uvm"})
    assert "needs 74.5 GiB of 54.4 GiB usable of the host's memory for tables that sharding.memory" in shortage(fixed)


@pytest.mark.parametrize(
    ("sharding", "changes", "message"),
    [
        ({"memory": {"usr": "uvm"}}, {}, r"sharding.memory.usr: no such table; did you mean 'user'"),
        ({"memory": {"user": "ram"}}, {}, r"sharding.memory.user='ram'"),
        ({"cache_share": 0.0}, {}, r"sharding.cache_share=0.0: must be above 0"),
        ({"replicas": 0}, {}, r"sharding.replicas=0: must be above 0"),
        ({"memory": {"user": "uvm"}, "tables": {"user": "data_parallel"}}, {}, r"sharding.memory.user=uvm: not for"),
        (
            {"default_memory": "uvm_caching", "replicate_up_to": 0},
            {"weight_decay": 0.1},
            r"sharding.default_memory=uvm_caching: not with optim.tables.weight_decay=0.1",
        ),
        ({"memory": {"user": "ssd"}}, {"kind": "sgd"}, r"sharding.memory.user=ssd: not with optim.tables.kind='sgd'"),
        ({"replicas": 2}, {"kind": "sgd"}, r"sharding.replicas=2: not with optim.tables.kind='sgd'"),
        ({"replicas": 2}, {"weight_decay": 0.1}, r"sharding.replicas=2: not with optim.tables.weight_decay=0.1"),
        ({"replicas": 2, "memory": {"user": "uvm"}}, {}, r"sharding.replicas=2: not with sharding.memory.user=uvm"),
        ({"replicas": 2, "tables": {"user": "table_row_wise"}}, {}, r"not with table user, which is table_row_wise"),
        (
            {"tables": {"tag": "data_parallel"}},
            {"kind": "adam"},
            r"sharding.tables.tag=data_parallel: not with optim.tables.kind='adam'",
        ),
        (
            {"default": "data_parallel"},
            {"clip_value": 0.5},
            r"sharding.default=data_parallel: not with optim.tables.clip_value=0.5",
        ),
        ({"tables": {"nothing": "row_wise"}}, {}, r"sharding.tables.nothing: no such table; there are user, .* more$"),
    ],
)
@tried("tables in other memory or replicas, beside what they cannot have", "refused, naming the field")
def test_what_cannot_be_is_refused(sharding, changes, message):
    config = with_optim(sample_base(), tables=changes) if changes else sample_base()
    with pytest.raises(UserError, match=message):
        validate(replace(config, sharding=ShardingConfig(**sharding)))


def test_rows_that_are_written_beside_the_lookup_lie_once_and_in_no_cache():
    config = sample_base()
    managed = tuple(replace(t, mapping="managed") if t.name == "user" else t for t in config.tables)
    of_hook = replace(config, hooks=(Mwuf(),))
    for arm, table in ((replace(config, tables=managed), "user"), (of_hook, "item")):
        for sharding in (ShardingConfig(memory={table: "uvm_caching"}), ShardingConfig(replicas=2)):
            with pytest.raises(UserError, match=r"rows"):
                validate(replace(arm, sharding=sharding))
        validate(replace(arm, sharding=ShardingConfig(memory={table: "uvm"})))
        one = replace(asked(1000, 8, 8, ddr=64), features=validate(arm), written=arm.written_tables)
        lies = {t.name: one.memories(t) for t in one.features.tables}
        assert lies.pop(table) == ["hbm", "uvm"] and set(map(tuple, lies.values())) == {("hbm", "uvm_caching", "uvm")}
    validate(replace(config, hooks=(Mwuf(common_init=False),), sharding=ShardingConfig(replicas=2)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ssd", "1TiB", "--ddr", "1TiB"], "--ssd: needs --hbm"),
        ([], "give --hbm, memory of each GPU, or --ddr"),
        (["--ddr", "1TiB", "--set", "sharding.memory.user=uvm"], "sharding.memory.user=uvm: the ranks have no GPUs"),
        (["--ddr", "1TiB", "--set", "sharding.replicas=2"], "sharding.replicas=2: needs GPUs"),
        (["--hbm", "8GiB", "--set", "sharding.memory.user=uvm"], "sharding.memory.user=uvm: needs memory of the hosts"),
        (["--hbm", "8GiB", "--set", "sharding.memory.user=ssd"], "sharding.memory.user=ssd: is for `coldrank plan"),
        (["--hbm", "8GiB", "--set", "sharding.replicas=3"], "sharding.replicas=3: 8 ranks on 2 hosts do not make"),
        (
            ["--hbm", "8GiB", "--set", "sharding.replicas=2", "sharding.replicate_up_to=100000000000"],
            "sharding.replicas=2: has no effect where every table is copied",
        ),
        (["--ddr", "1TiB", "--set", "sharding.cache_share=0.1"], "sharding.cache_share=0.1: has no effect on ranks"),
        (
            ["--hbm", "8GiB", "--set", "sharding.cache_share=0.1"],
            "sharding.cache_share=0.1: has no effect without memory beside the GPUs: give --ddr or --ssd; else must be",
        ),
        (
            [*(flag for what in ("--hbm", "--ddr") for flag in (what, "80GiB")), "--set", "sharding.cache_share=0.1"]
            + ["optim.tables.weight_decay=0.1"],
            "sharding.cache_share=0.1: has no effect here, where no table may be cached",
        ),
    ],
)
@tried("plan: memory or replicas that the cluster does not have", "refused, naming the field or flag")
def test_what_the_cluster_does_not_have_is_refused(flags, message, tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(big())))
    assert main(["plan", "--config", str(path), "--world-size", "8", "--hosts", "2", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@tried(
    "plan: maps of ids that the hosts' memory beside GPUs does not hold",
    "refused, with what they need and what there is",
)
@pytest.mark.parametrize(
    ("whole", "ddr", "needed"), [(True, 8, "12.0 GiB of 6.8 GiB"), (False, 1, "1.5 GiB of 870.4 MiB")]
)
def test_maps_that_hosts_do_not_hold_are_refused(whole, ddr, needed, tmp_path, capsys):
    """100 million ids of 16 bytes on each of 8 GPUs of a host, or an eighth of them."""
    config = big()
    tables = tuple(replace(t, mapping="growing", rows=10**8 if t.name == "user" else t.rows) for t in config.tables)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(replace(config, tables=tables))))
    command = ["plan", "--config", str(path), "--world-size", "8", "--hbm", "80GiB", "--ddr", f"{ddr}GiB"]
    maps = ["--set", f"sharding.id_maps={'whole' if whole else 'sharded'}"]
    assert main([*command, *maps]) == 2
    error = capsys.readouterr().err
    assert f"the maps of ids need {needed} usable on each host" in error and error.count("\n") == 1
    assert main([*command[:-1], "64GiB", *maps]) == 0


@tried("train: tables in the hosts' memory, or replicas, on ranks without GPUs", "refused, naming the field")
@pytest.mark.parametrize("setting", ["sharding.memory.user=uvm", "sharding.replicas=2", "sharding.cache_share=0.1"])
def test_training_without_gpus_is_refused(setting, data, tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(sample_base())))
    command = ["train", "--config", str(path), "--data", str(data.path), "--out", str(tmp_path / "out")]
    assert main([*command, "--set", setting]) == 2
    assert f"{setting}: " in capsys.readouterr().err
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize(
    ("ranks", "hosts", "replicas", "group"),
    [(1024, 128, 4, (256, 32)), (16, 2, 2, (8, 1)), (16, 2, 4, (4, 1)), (8, 1, 2, (4, 1)), (8, 1, 8, (1, 1))],
)
def test_which_ranks_make_a_replica(ranks, hosts, replicas, group):
    one = request(ShardingConfig(replicas=replicas), world_size=ranks, hosts=hosts)
    assert not cluster_problem(one)
    assert (one.group.world_size, one.group.hosts) == group
    assert all("table_row_wise" not in some for some in one.choices().values())


def test_replicas_are_planned_as_one_of_them():
    whole = request(ShardingConfig(replicas=2, sync_every=4), world_size=16, hosts=2, memory=30e9)
    alone = request(world_size=8, hosts=1, memory=30e9)
    two, one = make_plan(whole), make_plan(alone)
    assert two is not None and one is not None
    assert two.placed == one.placed and len(two.work()) == 8
    # Weights and sums of what is sharded, twice, but for the half that a rank has itself, in a quarter of the steps.
    kept = [s for p in two.placed if p.sharding != "data_parallel" for s in p.shards if s.rank == two.averaged.argmax()]
    assert two.averaged.max() == sum(4 * s.rows * (s.columns + 1) for s in kept)
    assert replicas(two).startswith("replicas: 2, each on 8 of 16 ranks in a row; averaged every 4 steps: the busiest")
    assert replicas(one) == ""


@tried("plan for 1,024 ranks in 4 replicas", "a plan of the 256 of one, within seconds")
def test_the_command_plans_replicas(tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(huge(10**9, 64))))
    cluster = ["--world-size", "1024", "--hosts", "128", "--hbm", "80GiB", "--set", "sharding.replicas=4"]
    assert main(["plan", "--config", str(path), *cluster]) == 0
    said = capsys.readouterr().out
    assert "all 256" in said and "replicas: 4, each on 256 of 1024 ranks in a row; averaged every step" in said


def test_fbgemm_has_no_tables_on_an_ssd():
    """Why `ssd` is not trained. Where this fails, it could be."""
    import fbgemm_gpu.split_table_batched_embeddings_ops_training  # noqa: F401

    with pytest.raises(RuntimeError, match="EmbeddingRocksDBWrapper"):
        _ = torch.classes.fbgemm.EmbeddingRocksDBWrapper
