"""What one step does to tables and dense weights, and the schedules."""

import itertools
from dataclasses import replace

import pytest
import torch
from tiny import sample_base, with_optim
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, data_parallel
from torchrec.distributed.types import ShardingPlan

from coldrank.configs import base as arms
from coldrank.data.batches import batches
from coldrank.data.errors import UserError
from coldrank.data.read import SampleReader
from coldrank.train.checks import validate
from coldrank.train.optim.optimizers import Optimizers, factor
from coldrank.train.optim.table_optimizer import fused_params, replicated
from coldrank.train.run import Run
from coldrank.train.sections import TablesConfig
from coldrank.train.task import RankingTask

BASE = sample_base()
CONFIG = arms.poso(BASE)
TABLES = ("user", "item", "tag")


@pytest.fixture(scope="module")
def make(fitted):
    """Fields of optim -> a run before its first step."""
    return lambda config=CONFIG, **fields: fitted(with_optim(config, **fields))


def weights(run: Run) -> dict[str, torch.Tensor]:
    """Name -> copy of a weight; tables by their own names."""
    found = {}
    for name, value in run.model.state_dict().items():
        local = value.local_shards()[0].tensor if hasattr(value, "local_shards") else value
        found[name.split(".embedding_bags.")[-1].removesuffix(".weight")] = local.clone()
    return found


def train(run: Run, steps: int = 1, size: int = 50) -> dict[str, torch.Tensor]:
    """The weights after some steps."""
    reader = SampleReader(run.data.files(("train",)), run.make.columns(), size)
    with batches(reader, run.make, 2) as source:
        for step, batch in enumerate(itertools.islice(source, steps)):
            run.optimizers.begin_step(step, steps)
            run.model(batch).loss.backward()
            run.optimizers.end_step()
    return weights(run)


def test_every_table_moves_by_its_own_rate(make):
    before, plain = weights(make()), train(make())
    scaled = train(make(tables={"lr_scale": {"user": 0.25, "tag": 0.0}}))
    for name, scale in {"user": 0.25, "item": 1.0, "tag": 0.0, "user_views_bucket": 1.0}.items():
        moved = plain[name] - before[name]
        assert moved.abs().max() > 0.01
        torch.testing.assert_close(scaled[name] - before[name], scale * moved, rtol=1e-5, atol=1e-7)
    dense = [name for name in plain if name.startswith("ranker.")]
    assert all(torch.equal(scaled[name], plain[name]) for name in dense)


def test_a_scale_for_no_table_is_refused():
    wrong = with_optim(CONFIG, tables={"lr_scale": {"usr": 0.5}})
    with pytest.raises(UserError, match="optim.tables.lr_scale has 'usr', which is no table; did you mean 'user'"):
        validate(wrong)
    with pytest.raises(UserError, match=r"optim.tables.lr_scale.user=-1: must not be below 0"):
        validate(with_optim(CONFIG, tables={"lr_scale": {"user": -1}}))


def test_an_epsilon_of_0_is_refused():
    """Row-wise Adagrad divides a gradient of 0 by it where a row has had no other."""
    with pytest.raises(UserError, match=r"optim.tables.eps=0: must be above 0"):
        validate(with_optim(CONFIG, tables={"eps": 0}))


def test_the_rows_that_a_step_reads_decay_and_no_others(make):
    before, plain = weights(make()), train(make(tables={"lr_scale": {"tag": 0.5}}))
    decayed = train(make(tables={"lr_scale": {"tag": 0.5}, "weight_decay": 0.8}))
    for name, scale in {"user": 1.0, "item": 1.0, "tag": 0.5}.items():
        read = (plain[name] != before[name]).any(1)
        assert read.any() and not read.all()
        keep = 1 - 0.05 * scale * 0.8
        torch.testing.assert_close(decayed[name][read], keep * plain[name][read], rtol=1e-5, atol=0)
        assert torch.equal(decayed[name][~read], before[name][~read])


def test_dense_weights_decay_by_rate_times_decay(make):
    before, plain, decayed = weights(make()), train(make()), train(make(dense={"weight_decay": 3.0}))
    assert all(torch.equal(value, before[name]) for name, value in weights(make(dense={"weight_decay": 3.0})).items())
    dense = [name for name in before if name.startswith("ranker.")]
    for name in dense:
        torch.testing.assert_close(decayed[name], plain[name] - 1e-3 * 3.0 * before[name], rtol=0, atol=1e-7)
    assert any((plain[name] - decayed[name]).abs().max() > 1e-4 for name in dense)
    assert all(torch.equal(plain[name], decayed[name]) for name in TABLES)


def test_the_norm_of_all_dense_gradients_is_clipped(make):
    norms = {}
    for limit in (0.0, 0.01, 1e6):
        run = make(dense={"clip_norm": limit})
        train(run)
        norms[limit] = torch.stack([p.grad.norm() for p in run.optimizers.dense]).norm().item()
    assert norms[0.0] == norms[1e6] > 0.05
    assert norms[0.01] == pytest.approx(0.01, rel=1e-3)


def test_elements_of_a_bags_gradient_are_clipped(make):
    """SGD of rate 1 shows the gradient; with one sample, a row of `user` is read by one bag."""
    before, plain = weights(make()), train(make(tables={"kind": "sgd", "lr": 1.0}), size=1)
    limit = 2e-4
    clipped = train(make(tables={"kind": "sgd", "lr": 1.0, "clip_value": limit}), size=1)
    moved = plain["user"] - before["user"]
    assert moved.abs().max() > 2 * limit
    torch.testing.assert_close(clipped["user"] - before["user"], moved.clamp(-limit, limit), rtol=1e-3, atol=1e-8)


def test_dense_weights_take_adam_s_betas_and_epsilon(make):
    """Two steps by the paper's rule, in double precision."""
    run = make(dense={"betas": (0.5, 0.75), "eps": 1e-3})
    reader = SampleReader(run.data.files(("train",)), run.make.columns(), 50)
    name, weight = next((n, p) for n, p in run.model.named_parameters() if n.startswith("ranker.") and p.dim() == 2)
    expected, m, v = weight.detach().double().clone(), 0.0, 0.0
    with batches(reader, run.make, 2) as source:
        for step, batch in enumerate(itertools.islice(source, 2)):
            run.optimizers.begin_step(step, 2)
            run.model(batch).loss.backward()
            g = weight.grad.double()
            m, v = 0.5 * m + 0.5 * g, 0.75 * v + 0.25 * g**2
            hats = m / (1 - 0.5 ** (step + 1)), v / (1 - 0.75 ** (step + 1))
            expected -= 1e-3 * hats[0] / (hats[1].sqrt() + 1e-3)
            run.optimizers.end_step()
    torch.testing.assert_close(weight.detach().double(), expected, rtol=0, atol=1e-7)
    plain = make()
    train(plain, 2)
    assert not torch.allclose(weight, dict(plain.model.named_parameters())[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adagrad", "sgd"])
def test_other_table_optimizers_follow_their_rule(make, optimizer):
    before, gradient = weights(make()), train(make(tables={"kind": "sgd", "lr": 1.0}))
    after = train(make(tables={"kind": optimizer, "lr": 0.5}))
    for name in TABLES:
        g = before[name] - gradient[name]
        step = g if optimizer == "sgd" else g / (g.abs() + 1e-8)
        big = g.abs() > 1e-5  # the difference of weights tells small gradients badly
        torch.testing.assert_close((before[name] - after[name])[big], 0.5 * step[big], rtol=1e-2, atol=1e-7)


def test_adam_for_tables_is_refused_without_a_gpu():
    with pytest.raises(
        UserError, match="optim.tables.kind='adam' needs a GPU; on the CPU there are rowwise_adagrad, adagrad, sgd"
    ):
        fused_params(TablesConfig(kind="adam"), torch.device("cpu"))
    assert "optimizer" in fused_params(TablesConfig(kind="adam"), torch.device("cuda"))


def test_a_run_that_resumes_tells_the_fused_optimizer_its_step(make):
    """FBGEMM's Adam corrects its moments by a count that no checkpoint holds."""
    run = make()
    run.optimizers.begin_step(41, 100)
    collection = run.model.module.embeddings.ebc
    kernels = [m.emb_module for lookup in collection._lookups for m in lookup.modules() if hasattr(m, "emb_module")]
    assert kernels and all(kernel.iter.item() == 41 for kernel in kernels)


def replicated_run(run: Run) -> Run:
    """The run with every table data-parallel, from the same weights."""
    config, features = run.config, run.encoder.features
    task = RankingTask(features, config.model, config.tasks)
    sharder = EmbeddingBagCollectionSharder(fused_params=fused_params(config.optim.tables, run.ranks.device))
    choice = {name: data_parallel() for name in task.embeddings.ebc.embedding_bags}
    plan = construct_module_sharding_plan(task.embeddings.ebc, choice, sharder, 1, 1, "cpu")
    start = weights(run)
    model = DistributedModelParallel(
        task, device=run.ranks.device, plan=ShardingPlan({"embeddings.ebc": plan}), sharders=[sharder]
    )
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(start[name.split(".embedding_bags.")[-1].removesuffix(".weight")])
    return replace(run, model=model, optimizers=Optimizers(model, config.optim))


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad", "sgd"])
def test_data_parallel_tables_train_as_fused_ones(make, optimizer):
    tables = {"kind": optimizer, "warmup_steps": 3, "weight_decay": 0.5, "lr_scale": {"user": 0.25}}
    before, fused = weights(make(BASE)), train(make(BASE, tables=tables), 4)
    ours = train(replicated_run(make(BASE, tables=tables)), 4)
    assert not torch.equal(fused["user"], before["user"])
    for name, value in fused.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("fields", "said"), [({"kind": "adam"}, "'adam'"), ({"clip_value": 0.1}, "0.1")])
def test_what_data_parallel_tables_cannot_have_is_refused(fields, said):
    table = torch.nn.Parameter(torch.zeros(3, 4))
    with pytest.raises(
        UserError, match=rf"optim.tables.{next(iter(fields))}={said}: not for data-parallel tables \(user\)"
    ):
        replicated({"user": table}, TablesConfig(**fields))


def test_rates_warm_up_and_fall():
    assert [factor(s, 10, 4, "constant") for s in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [factor(s, 9, 0, "linear") for s in (0, 3, 9)] == pytest.approx([1, 0.7, 0.1])
    assert [factor(s, 9, 1, "cosine") for s in (0, 1, 5, 9)] == pytest.approx([1, 1, 0.55, 0.1])
    assert factor(3, 3, 3, "linear") == 1


def test_tables_have_a_schedule_of_their_own(make):
    def rates(step: int, **fields: object) -> list[float]:
        run = make(**fields)
        run.optimizers.begin_step(step, 8)
        parts = {part.what: part.optimizer.param_groups[0]["lr"] for part in run.optimizers.parts}
        return [round(parts[what], 6) for what in ("tables", "dense", "gates")]

    shared = {"warmup_steps": 4, "dense": {"gate_lr_scale": 3.0}}
    assert rates(1, **shared) == [0.025, 5e-4, 1.5e-3]
    assert rates(1, **shared, tables={"warmup_steps": 0}) == [0.05, 5e-4, 1.5e-3]
    assert rates(4, decay="linear") == [0.0275, 5.5e-4, 5.5e-4]
    assert rates(4, decay="linear", tables={"decay": "constant"}) == [0.05, 5.5e-4, 5.5e-4]
    assert rates(4, tables={"decay": "linear"}, dense={"warmup_steps": 8}) == [0.0275, 6.25e-4, 6.25e-4]


def test_only_the_gates_move_while_they_alone_are_trained(make):
    run = make(tables={"weight_decay": 1.0}, dense={"weight_decay": 1.0})
    before = weights(run)
    run.optimizers.gates_only = True
    moved = {name for name, value in train(run).items() if not torch.equal(value, before[name])}
    assert moved and all("gate" in name for name in moved)


def test_an_evaluation_between_two_steps_changes_no_decay(make):
    def two_steps(evaluates: bool) -> dict[str, torch.Tensor]:
        run = make(tables={"weight_decay": 0.8})
        reader = SampleReader(run.data.files(("train",)), run.make.columns(), 20)
        with batches(reader, run.make, 2) as source:
            first, second, other = itertools.islice(source, 3)
        for step, batch in enumerate((first, second)):
            run.optimizers.begin_step(step, 2)
            run.model(batch).loss.backward()
            run.optimizers.end_step()
            if evaluates and step == 0:
                run.model.eval()
                with torch.no_grad():
                    run.model(other)  # reads rows that the second step does not
                run.model.train()
        return weights(run)

    plain, between = two_steps(False), two_steps(True)
    assert all(torch.equal(value, between[name]) for name, value in plain.items())
