"""Plans for hundreds of ranks: what is said of uneven work and of long exchanges, what mends them, and how long an
answer takes."""

import json
import time
from dataclasses import replace

import pytest
import torch
from test_plan import big, planned, request
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.types import Storage

from coldrank.cli.main import main
from coldrank.configs import kuairand
from coldrank.models.embeddings import EmbeddingStage
from coldrank.train.checks import validate
from coldrank.train.config import to_dict
from coldrank.train.distributed import advice, search, space
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.distributed.fit import _most
from coldrank.train.distributed.plan import Placed, Plan, Shard
from coldrank.train.distributed.search import make_plan
from coldrank.train.distributed.spread import Change, mended, times

# Seconds of processor time that an answer may take; beside other work it takes two thirds of that.
LIMIT = 30.0
IN_BAGS = ["--set", "sharding.sequences=bags"]


def tried(given: str, answer: str) -> pytest.MarkDecorator:
    return pytest.mark.tried("ranks", given, answer)


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    """KuaiRand's arm with 100 million users and items of 64 columns, histories of 50, batches of 4,096."""
    config = kuairand.poso()
    fields = {"rows": 100_000_000, "dim": 64, "mapping": "hash", "min_count": 1}
    large = [replace(t, **fields) for t in config.tables if t.name in ("user", "item")]
    tables = (*large, *(t for t in config.tables if t.name not in ("user", "item")))
    path = tmp_path_factory.mktemp("arm") / "config.json"
    path.write_text(json.dumps(to_dict(replace(config, tables=tables))))
    return ["plan", "--config", str(path), "--batch-size", "4096"]


def timed(command: list[str]) -> int:
    start = time.process_time()
    code = main(command)
    assert time.process_time() - start < LIMIT
    return code


@tried(
    "plan: 100M x 64 users and items, 256 ranks, histories in bags",
    "a plan; warns of balance 30 and of an exchange of 332 ms; names what mends both, histories un-pooled first",
)
def test_uneven_work_is_said_and_what_is_named_mends_it(arm, capsys):
    cluster = ["--world-size", "256", "--hosts", "32", "--hbm", "80GiB", *IN_BAGS]
    assert timed([*arm, *cluster]) == 0
    said = capsys.readouterr()
    assert said.err == (
        "coldrank plan: warning: balance 30.65: the busiest rank has so many times the mean work, most of it of table "
        "item, table_row_wise\n"
        "coldrank plan: warning: exchange 332.43 ms a step, the rest of it 50.17 ms (tables 48.41, dense part 1.76); "
        "most of it of table item, table_row_wise\n"
    )
    lines = [line.strip() for line in said.out.splitlines()]
    change = next(line for line in lines if line.startswith("--set"))
    assert "sharding.sequences=unpooled" in change
    assert main([*arm, *cluster[:6], *change.split()]) == 0
    after = capsys.readouterr()
    assert "uneven" not in after.out
    promised = [line.partition(" ")[2] for line in lines[lines.index(change) + 1 :][:2]]
    assert promised[0] in after.out and promised[1].removesuffix(": still longer than the rest") in after.out
    assert lines[lines.index(change) - 1] == "What would help, but not mend it (planned):"


@tried("plan: 100M x 64 users and items, 256 ranks", "histories un-pooled: a line says what they cost, and in bags")
def test_the_way_to_read_sequences_is_said_with_its_reason(arm, capsys):
    assert timed([*arm, "--world-size", "256", "--hosts", "32", "--hbm", "80GiB"]) == 0
    said = capsys.readouterr()
    assert said.err == (
        "coldrank plan: warning: exchange 14.66 ms a step, the rest of it 3.31 ms (tables 1.55, dense part 1.76); most "
        "of it of table item, row_wise\n"
    )
    assert "(balance 1.81)" in said.out
    assert (
        "sequences: un-pooled (table item), busiest rank 16.21 ms a step and 332.7 MiB exchanged; "
        "in bags 380.83 ms a step and 12.8 GiB exchanged\n"
    ) in said.out


@tried("plan for 1,024 ranks", "a plan within seconds, with a warning of balance 4.3")
def test_a_plan_for_a_thousand_ranks_takes_seconds(arm, capsys):
    assert timed([*arm, "--world-size", "1024", "--hosts", "128", "--hbm", "80GiB"]) == 0
    said = capsys.readouterr()
    assert "warning: balance 4.30" in said.err and "warning: exchange 34.21 ms" in said.err
    assert "still fits with" in said.out and "--set sharding.tables.user=grid sharding.column_width=4" in said.out


@tried("plan for 1,024 ranks that does not fit", "a refusal within seconds, with what would make it fit")
def test_a_refusal_for_a_thousand_ranks_takes_seconds(arm, capsys):
    cluster = ["--world-size", "1024", "--hosts", "128", "--hbm", "40GiB", *IN_BAGS]
    assert timed([*arm, *cluster]) == 1
    said = capsys.readouterr()
    assert "rank 0 needs" in said.err and "most of it for ids and embeddings" in said.err
    remedies = [line.strip().partition(" (")[0] for line in said.out.splitlines() if line.startswith("  --")]
    assert [r.split()[0] for r in remedies] == ["--hbm", "--batch-size"]
    assert main([*arm, *cluster[:4], *IN_BAGS, *remedies[0].split()]) == 0
    assert main([*arm, *cluster, *remedies[1].split()]) == 0


def test_even_plans_say_nothing_more(arm, capsys):
    assert main([*arm, "--world-size", "1", "--hbm", "80GiB", "--set", "data.batch_size=64"]) == 0
    said = capsys.readouterr()
    assert said.err == "" and "(balance 1.00)" in said.out and "uneven" not in said.out


CLUSTER = ["--world-size", "128", "--hosts", "16", "--hbm", "80GiB", "--ddr", "1TiB", "--batch-size", "8192"]
# Settings, what is to be among the changes, and the balances now and then, at least and at most.
UNEVEN = {
    "two small tables in the hosts' memory": (
        ["sharding.memory.pc=uvm", "sharding.memory.context=uvm", "sharding.tables.user=data_parallel"],
        "sharding.memory.context=hbm",
        (2, 1.05),
    ),
    "what is small is not copied": (["sharding.default=table_wise"], "sharding.default=auto", (2, 1.05)),
    "Adam": (["optim.tables.kind=adam"], "optim.tables.kind=rowwise_adagrad", (2, 1.05)),
}


@tried(
    "plan: small tables in the hosts' memory, not copied, or with an optimizer that copies none",
    "the change that mends it, as planned; where the balance stays above 2, that it does",
)
@pytest.mark.slow
@pytest.mark.parametrize("case", UNEVEN)
def test_small_tables_that_make_work_uneven_are_mended(case, capsys):
    settings, wanted, (before, after) = UNEVEN[case]
    command = ["plan", "--config", "coldrank.configs.kuairand:poso", *CLUSTER]
    assert timed([*command, "--set", *settings]) == 0
    said = capsys.readouterr()
    balance = lambda text: float(text.partition("(balance ")[2].partition(")")[0])
    assert balance(said.out) > before and "warning: balance" in said.err
    lines = [line.strip() for line in said.out.splitlines()]
    change = next(line for line in lines if line.startswith("--set"))
    promised = lines[lines.index(change) + 1]
    assert wanted in change and balance(promised) <= after
    assert ("less uneven, still above 2" in promised) == (balance(promised) > 2)
    assert main([*command, "--set", *settings, *change.split()[1:]]) == 0
    assert promised.removeprefix("then ").partition(":  ")[0].partition(": less")[0] in capsys.readouterr().out


def with_work(milliseconds: list[float]) -> Plan:
    """A plan for 8 ranks, one of whose tables gives each so much work."""
    plan = planned(memory=30e9)
    table = plan.placed[0].table
    shards = tuple(Shard(rank, 1, 1, 0, ms, 0.0) for rank, ms in enumerate(milliseconds))
    return replace(plan, placed=(Placed(table, "table_wise", "fused", shards),))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (90.0, 50.0, "(balance 7.02): less uneven, still above 2"),
        (90.0, 1.5, "(balance 1.41)"),
        (90.0, 89.99, "(balance 7.42): less uneven, still above 2"),
        (2.0, 0.0, "(balance 1.14)"),
    ],
)
def test_what_stays_above_two_is_said(before, after, said, monkeypatch):
    """The others have 1 ms of work."""
    plan = with_work([before, *[1.0] * 7])
    change = Change("--set x", with_work([after, *[1.0] * 7]))
    monkeypatch.setattr(advice, "mended", lambda _: change)
    lines = advice.mending(plan).splitlines()
    assert lines[0].startswith("uneven") == (before > 2) and lines[-2].endswith(said)
    mends = "would help, but not mend it" if "still" in said else "would mend it"
    assert lines[-4] == f"What {mends} (planned):"


def test_a_balance_above_two_that_no_one_notices_is_said_as_well(monkeypatch):
    change = Change("--set x", with_work([0.9, *[0.1] * 7]))
    monkeypatch.setattr(advice, "mended", lambda _: change)
    said = advice.mending(with_work([90.0, *[1.0] * 7]))
    assert (
        "(balance 4.50): less uneven, still above 2, which costs less than 1 ms a step" in said
        and "What would mend it" in said
    )


def test_what_takes_no_time_is_not_warned_of():
    """Microseconds: of a step no one would notice them."""
    plan = planned(world_size=16, hosts=2)
    assert plan.balance > 2 or times(plan).exchange > times(plan).tables
    assert plan.work().max() < 1 and advice.warnings(plan) == []


def test_a_row_is_looked_up_once_for_a_batch_however_many_read_it():
    """27 rows that 50 positions of each history read: 27 rows of each rank travel."""
    asked = request(ShardingConfig(default="table_wise", sequences="unpooled"), world_size=16, hosts=2)
    (table,) = [t for t in asked.features.tables if t.name == "hist_signals"]
    length = sum(len(f.keys) for f in asked.features.by_table["hist_signals"])
    constraint = lambda r: space.constraints_of(r, r.choices())["hist_signals"].pooling_factors
    assert constraint(asked) == [table.rows / 512] and table.rows < 512 * length
    assert constraint(replace(asked, batch_size=1)) == [length]
    clipped = replace(asked, optimizer=replace(asked.optimizer, clip_value=0.1))
    assert constraint(clipped) == [length]  # each read by itself
    bags = replace(asked, sharding=replace(asked.sharding, sequences="bags"))
    assert constraint(bags) == [1.0] * length


def test_where_nothing_spreads_the_work_nothing_is_named():
    alone = request(ShardingConfig(tables={"user": "table_wise", "item": "table_wise"}), world_size=2, memory=30e9)
    few = replace(
        alone, features=validate(replace(big(), tables=tuple(replace(t, rows=8, dim=4) for t in big().tables)))
    )
    plan = search.make_plan(few)
    assert plan is not None
    better = mended(plan)
    assert better is None or better.plan.work().max() < plan.work().max()


def test_the_exchange_is_measured_against_the_rest_of_the_step():
    plan = planned(world_size=16, hosts=2)
    alone = planned(world_size=1, memory=10e9)
    assert times(alone).exchange == 0 and not times(alone).exceed
    found = times(plan)
    rank = plan.moving().argmax()
    assert found.exchange == plan.moving().max() and found.exchange + found.tables == plan.work()[rank]
    # Longer, but not long.
    assert found.exchange > found.tables and not found.exceed and found.dense == 0
    larger = make_plan(replace(plan.request, batch_size=100 * plan.request.batch_size))
    found = times(larger)
    assert found.exchange > found.tables and found.exceed
    dense = replace(larger, request=replace(larger.request, dense_flops=int(10e9 * found.exchange)))
    assert times(dense).dense == pytest.approx(found.exchange) and not times(dense).exceed


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("choice", ["table_wise", "row_wise", "column_wise", "table_row_wise", "grid"])
@pytest.mark.parametrize("sequences", ["bags", "unpooled"])
def test_shards_of_one_size_cost_the_same(choice, device, sequences):
    """What is estimated of one and said of all is what TorchRec estimates of each."""
    columns = {"column_width": 8} if choice in ("column_wise", "grid") else {}
    asked = request(ShardingConfig(default=choice, **columns), world_size=6, hosts=2, kind="sgd")
    asked = replace(asked, cluster=replace(asked.cluster, device=device))
    asked = replace(asked, sharding=replace(asked.sharding, sequences=sequences))
    stage = EmbeddingStage(asked.features, torch.device("meta"), asked.unpooled)
    allowed = asked.choices()
    constraints = space.constraints_of(asked, allowed)
    sharders = [space.Part(set(allowed)), space.UnpooledSharder()]
    topology = space.topology_of(asked, Storage(1 << 40, 1 << 40) if device == "cuda" else Storage(0, 1 << 40))
    with space.quiet():
        ours = space.Enumerated(asked, topology, constraints).enumerate(stage, sharders)
        theirs = EmbeddingEnumerator(topology, asked.batch_size, constraints).enumerate(stage, sharders)
    wanted = {(o.name, o.sharding_type, o.compute_kernel): o for o in theirs}
    assert len(wanted) == len(ours)
    for option in ours:
        like = wanted[option.name, option.sharding_type, option.compute_kernel]
        assert [(s.size, s.offset) for s in option.shards] == [(s.size, s.offset) for s in like.shards]
        assert [s.storage for s in option.shards] == [s.storage for s in like.shards]
        assert [s.perf for s in option.shards] == [s.perf for s in like.shards]


@pytest.mark.parametrize("sharding", [ShardingConfig(), ShardingConfig(tables={"item": "table_wise"})])
def test_fits_says_what_an_even_plan_would(sharding):
    needed = search.even_plan(request(sharding, memory=1e12)).memory()["all"].max() / 0.85
    for memory in (0.5 * needed, 0.999 * needed, 1.001 * needed, 2 * needed):
        asked = request(sharding, memory=memory)
        assert search.fits(asked) == (search.even_plan(asked) is not None) == (memory > needed)


@pytest.mark.parametrize("bound", [7, 50, 123_456, 99_999_999])
@pytest.mark.parametrize("guess", [1, 60, 122_000, 123_457, 10**11])
def test_the_most_is_found_from_any_guess(bound, guess):
    asked: list[int] = []

    def good(n: int) -> bool:
        asked.append(n)
        return n <= bound

    found = _most(good, 5, 1 << 40, guess)
    assert 0.98 * bound - 1 <= found <= bound and len(asked) < 40
    asked.clear()
    _most(good, 5, 1 << 40, bound)
    assert len(asked) <= 9
