"""A model as it was: its rows and dense weights, beside a model that goes on."""

from dataclasses import replace

import pytest
import torch
from retrieving import two_tower
from streams import some, stepped, streamed
from tiny import growing, sample_base

from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.hooks.incctr import IncCTR
from coldrank.train.hooks.past import dense_of, task_of, with_weights
from coldrank.train.ids.dynamic import NewRows
from coldrank.train.stepping import Taken

CONFIGS = {"ranker": sample_base, "two towers": two_tower, "growing": growing}


def taken(run, batch):
    """What the teacher, the model as it is, has as the embeddings of a batch."""
    (hook,) = run.hooks
    hook.teacher.take(run, hook._tables)
    whole = hook._rows.of(batch)
    return lambda: hook._rows.embed(whole, hook._rows.read(whole, hook.teacher.tables))


@pytest.mark.parametrize("sharding", ["row_wise", "table_wise", "column_wise", "data_parallel"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_past_model_reads_as_the_model_did(fitted, name, sharding):
    config = streamed(CONFIGS[name](), IncCTR())
    columns = {"column_width": 4} if sharding == "column_wise" else {}
    run = fitted(replace(config, sharding=ShardingConfig(default=sharding, **columns)))
    before, *others = some(run, 4)
    run.dynamic_ids(before)
    task = task_of(run)
    with torch.no_grad():
        expected = task.embeddings(before)
    read = taken(run, before)
    list(stepped(run, others))
    found = read()
    assert found.keys() == expected.keys()
    with torch.no_grad():
        moved = task.embeddings(before)
    for feature, values in expected.items():
        assert torch.allclose(found[feature], values, rtol=1e-6, atol=1e-7), feature
    assert any((moved[feature] != values).any() for feature, values in expected.items())


def test_dense_weights_are_put_in_for_one_call(fitted):
    run = fitted(streamed(two_tower(), IncCTR()))
    task, batch = task_of(run), some(run, 1)[0]
    run.dynamic_ids(batch)
    (hook,) = run.hooks
    weights = {name: torch.zeros_like(w).requires_grad_() for name, w in dense_of(task, hook.teacher.names).items()}
    embedded = {name: values.detach() for name, values in task.embeddings(batch).items()}
    of_bias = lambda t: t.ranker.towers["item"].layers[1].bias.sum() + t.ranker.sides(embedded, batch.dense).item.sum()
    total = with_weights(task, weights, of_bias)
    total.backward()
    assert weights["ranker.towers.item.layers.1.bias"].grad.tolist() == [1.0] * 8
    assert not task.ranker.towers["item"].layers[1].bias.grad.any()
    assert task.ranker.towers["user"].layers[0].weight.abs().sum() > 0


def test_a_row_that_comes_to_another_id_is_renewed(fitted):
    run = fitted(streamed(growing(), IncCTR()))
    first, *_ = some(run, 1)
    run.begin_step(Taken(first, 0, 1, run.dynamic_ids(first)), 0, 10)
    (hook,) = run.hooks
    (mine, _), (theirs, _) = hook.teacher.tables["item"].parts[0], hook._tables["item"].parts[0]
    with torch.no_grad():
        mine.fill_(7.0)
    hook.teacher.renew({"item": NewRows(5, 0, torch.tensor([3, 5]))}, hook._tables)
    assert torch.equal(mine[[3, 5]], theirs[[3, 5]]) and (mine[[2, 4, 6]] == 7.0).all()
