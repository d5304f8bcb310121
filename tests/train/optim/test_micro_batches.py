"""A step in micro-batches is the step of the whole batch; a step in bf16 is near that in float32."""

import itertools
from dataclasses import replace

import pytest
import torch
from tiny import sample_base, with_optim

from coldrank.configs import base as arms
from coldrank.data.batches import batches
from coldrank.data.read import SampleReader
from coldrank.models.batch import Batch
from coldrank.models.model import Outputs
from coldrank.train.run import Run

CONFIG = arms.poso(sample_base())
CONFIG = with_optim(replace(CONFIG, cold_weight=2.0), tables={"lr": 0.1}, dense={"lr": 1e-2})


@pytest.fixture(scope="module")
def make(fitted):
    """train fields -> a run before its first step."""
    return lambda **fields: fitted(replace(CONFIG, train=replace(CONFIG.train, **fields)))


def read(run: Run, size: int, count: int) -> list[Batch]:
    reader = SampleReader(run.data.files(("train",)), run.make.columns(), size)
    with batches(reader, run.make, 2) as source:
        return list(itertools.islice(source, count))


def step(run: Run, batch: Batch) -> tuple[Outputs, dict[str, torch.Tensor]]:
    """Outputs, and the dense gradients and the tables after the step."""
    run.optimizers.begin_step(0, 1)
    outputs = run.model(batch)
    outputs.loss.backward()
    after = {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}
    run.optimizers.end_step()
    tables = {name: v for name, v in run.model.state_dict().items() if hasattr(v, "local_shards")}
    return outputs, after | {name: v.local_shards()[0].tensor.clone() for name, v in tables.items()}


@pytest.mark.parametrize(("rows", "count"), [(50, 2), (50, 3), (5, 8), (1, 2)])
def test_micro_batches_give_the_gradients_of_the_whole_batch(make, rows, count):
    whole_run, run = make(), make(accumulate=count)
    batch = read(run, rows, 1)[0]
    (whole, expected), (sliced, found) = step(whole_run, batch), step(run, batch)
    torch.testing.assert_close(sliced, whole, rtol=1e-5, atol=1e-6)
    assert expected.keys() == found.keys()
    assert any(name.startswith("ranker.") for name in found) and any("embedding_bags" in name for name in found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


class Held:
    """A tensor that waits for the backward pass; counts the elements of all that wait."""

    now, most = 0, 0

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        Held.now += tensor.numel()
        Held.most = max(Held.most, Held.now)

    def __del__(self) -> None:
        Held.now -= self.tensor.numel()


def test_micro_batches_hold_the_activations_of_one(make):
    most = {}
    for count in (1, 8):
        run = make(accumulate=count)
        batch = read(run, 400, 1)[0]
        Held.most = 0
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            run.model(batch).loss.backward()
        most[count] = Held.most
        assert Held.now == 0
    assert most[8] < 0.3 * most[1]


def test_evaluation_knows_neither_micro_batches_nor_bf16(make):
    plain, other = make(), make(accumulate=3, precision="bf16")
    batch = read(plain, 50, 1)[0]
    with torch.no_grad():
        assert torch.equal(plain.model.eval()(batch).logits, other.model.eval()(batch).logits)


@pytest.mark.parametrize("count", [1, 3])
def test_bf16_is_near_float32_and_learns(make, count):
    plain, run = make(), make(precision="bf16", accumulate=count)
    first, *rest = read(run, 50, 4)
    exact, rounded = plain.model(first), run.model(first)
    assert rounded.logits.dtype == rounded.loss.dtype == torch.float32
    assert 0 < (rounded.logits - exact.logits).abs().max() < 0.01
    losses = []
    for _ in range(6):
        for batch in [first, *rest]:
            run.optimizers.begin_step(0, 1)
            loss = run.model(batch).loss
            loss.backward()
            run.optimizers.end_step()
            losses.append(loss.item())
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    assert all(p.dtype == torch.float32 for p in run.model.parameters())
