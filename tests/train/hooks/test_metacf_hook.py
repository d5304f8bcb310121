"""MetaCF in a model: new users' embeddings come from their own events, others' from the table."""

import json
from dataclasses import replace

import polars as pl
import pytest
import torch
from retrieving import two_tower, with_events
from tiny import changed, sample_base
from torch.nn import functional as F

from coldrank.configs import base as arms
from coldrank.data.errors import UserError
from coldrank.data.read import SampleReader
from coldrank.models.features import Table
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig
from coldrank.train.hooks.make import make_hooks
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.run import build
from coldrank.train.trainer import train

BELOW = 8


def with_metacf(base: RunConfig | None = None, **fields: object) -> RunConfig:
    """The sample base with users as wide as items, and the hook."""
    base = base or sample_base()
    tables = tuple(
        Table(name="user", rows=64, dim=8, mapping="vocabulary") if t.name == "user" else t for t in base.tables
    )
    kept = next((hook for hook in base.hooks if isinstance(hook, MetaCF)), MetaCF())
    return replace(base, tables=tables, hooks=(replace(kept, max_views=BELOW - 1, steps=2, **fields),))


@pytest.fixture(scope="module")
def batch(data, fitted):
    """A run, a batch of the training data, its raw columns, and its embeddings before and after the hook."""
    run = fitted(with_metacf(signal="hist_like"))
    raw = next(SampleReader(data.files(("train",)), run.make.columns(), 64, shuffle_rows=0, seed=1).epoch(0))
    made = run.make(raw)
    task = run.model.module
    embedded = task.embeddings(made)
    return (
        run,
        made,
        pl.read_parquet(data.files(("train",))[0]).head(64),
        embedded,
        run.hooks[0].embed(made, embedded),
    )


def test_codes_are_those_of_the_history(batch):
    _run, made, frame, _, _ = batch
    codes = made.positions("hist_signals")
    for row, views, likes in zip(codes.tolist(), frame["hist_long_view"], frame["hist_like"], strict=True):
        states = [3 * (v + 1) + like + 1 for v, like in zip(views, likes, strict=True)]
        assert row == states + [-1] * (6 - len(states))


def test_new_users_are_adapted_to_their_own_events(batch):
    run, _, frame, before, after = batch
    table = run.model.module.embeddings.ebc.state_dict()["embedding_bags.item.weight"]
    weight = table.local_shards()[0].tensor
    metacf = run.hooks[0].users.metacf
    assert after.keys() == before.keys() and len(after) > 5
    assert all(after[name] is values for name, values in before.items() if name != "user_id")
    new = 0
    for row, (views, items, likes) in enumerate(frame.select("user_views", "hist_item_id", "hist_like").iter_rows()):
        if views >= BELOW:
            assert torch.equal(after["user_id"][row], before["user_id"][row])
            continue
        known = [like >= 0 for like in likes]
        q = weight[torch.tensor(items, dtype=torch.int64)][torch.tensor(known, dtype=torch.bool)]
        y = torch.tensor([float(like) for like in likes if like >= 0])
        p = metacf.learner((q[y == 1].mean(0) if y.any() else torch.zeros(8)).unsqueeze(0))[0]
        for rate in metacf.rates:
            p = p - rate * torch.autograd.grad(F.binary_cross_entropy_with_logits(q @ p, y, reduction="sum"), p)[0]
        torch.testing.assert_close(after["user_id"][row], p)
        new += 1
    assert 5 < new < 60


def towers() -> RunConfig:
    """The two-tower model; its towers read no sequence, the hook does."""
    return replace(with_events(), hooks=(MetaCF(items="events"),))


@pytest.mark.parametrize("arm", [sample_base, lambda: arms.poso(sample_base()), towers])
def test_at_fraction_0_the_first_loss_is_that_of_the_base(data, ranks, tmp_path, arm):
    first = {}
    off = replace(with_metacf(arm()), hooks=())
    if off.model.retrieves:
        off = replace(off, features=two_tower().features)
    for name, config in {"off": off, "on": with_metacf(arm(), fraction=0.0)}.items():
        config = replace(config, train=replace(config.train, steps=1, log_every=1))
        train(config, data, tmp_path / name, ranks, fresh=False, diff="")
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        first[name] = next(r["value"] for r in rows if r["metric"] == "loss")
    assert first["on"] == first["off"]


def test_a_run_that_resumes_ends_as_one_that_was_not_stopped(data, ranks, tmp_path):
    config = with_metacf()
    whole, cut = (tmp_path / name for name in ("whole", "cut"))
    train(replace(config, train=replace(config.train, steps=6)), data, whole, ranks, fresh=False, diff="")
    for steps in (3, 6):
        train(replace(config, train=replace(config.train, steps=steps)), data, cut, ranks, fresh=False, diff="")
    assert (cut / "predictions-test.parquet").read_bytes() == (whole / "predictions-test.parquet").read_bytes()


def test_learner_and_rates_are_trained_with_the_model(batch):
    run, made, _, _, _ = batch
    run.optimizers.begin_step(0, 10)
    run.model(made).loss.backward()
    gradients = {name: p.grad for name, p in run.hooks[0].named_parameters()}
    assert set(gradients) == {"users.metacf.rates"} | {
        f"users.metacf.learner.{n}" for n in ("0.weight", "0.bias", "2.weight", "2.bias")
    }
    assert all(g is not None and g.abs().sum() > 0 for g in gradients.values())


def test_scripted_equals_eager(batch):
    run, made, _, before, after = batch
    users = run.hooks[0].users
    codes = made.positions("hist_signals")
    scripted = torch.jit.script(users)
    with torch.inference_mode():
        args = (before["user_id"], before["hist_item_id"], codes, made.keys["user_views"])
        torch.testing.assert_close(scripted(*args), after["user_id"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"user": "item_tags"}, "user='item_tags'"),
        ({"items": "item_id"}, r"items='item_id': no id feature of a sequence"),
        ({"signal": "hist_follow"}, r"signal='hist_follow'.*\['hist_like', 'hist_long_view'\]"),
        ({"fraction": 1.5}, "fraction=1.5"),
        ({"steps": -1}, "metacf.steps=-1: must not be below 0"),
    ],
)
def test_what_leaves_no_room_for_it_is_named(fields, text):
    config = with_metacf()
    tables = tuple(replace(t, dim=8) for t in config.tables)
    config = changed(replace(config, tables=tables), "metacf", **fields)
    with pytest.raises(UserError, match=text):
        make_hooks(config, validate(config))


def test_tables_must_be_equally_wide(data, ranks):
    config = replace(sample_base(), hooks=(MetaCF(),))
    with pytest.raises(UserError, match=r"tables of one width, not \{'user_id': 4, 'hist_item_id': 8\}"):
        build(config, data, ranks)


def test_a_checkpoint_holds_when_items_were_born_where_negatives_are_drawn(fitted):
    for draws in (False, True):
        config = with_metacf(signal="hist_like") if not draws else with_metacf(signal="none", negatives=2)
        (hook,) = fitted(config).hooks
        assert bool(hook.users.negatives) == draws
        assert {name for name in hook.state_dict() if "." not in name} == ({"born", "steps"} if draws else set())
