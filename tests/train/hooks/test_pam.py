"""PAM against a loop over groups."""

from dataclasses import replace

import pytest
import torch
from retrieving import PAM
from retrieving import with_pam as config
from tiny import growing
from torch.func import functional_call

from coldrank.configs import base as arms
from coldrank.data.batches import BatchMaker, DataFolder
from coldrank.data.errors import UserError
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader
from coldrank.models.encode import FeatureEncoder
from coldrank.models.heads import Binary, Ordinal, Regression
from coldrank.models.ranker import Ranker
from coldrank.models.two_tower import Sides
from coldrank.modules.pam import RowsByGroup
from coldrank.train.checks import validate
from coldrank.train.distributed.ranks import Ranks
from coldrank.train.hooks.make import make_hooks
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.pam import Pam
from coldrank.train.hooks.pam.rows import TowerRows, group_rows
from coldrank.train.task import RankingTask

ONE = Ranks(0, 1, torch.device("cpu"))


def batch_and_task(folder, wanted, rows=64):
    """A batch and the model in float64, training."""
    data, features = DataFolder.open(folder), validate(wanted)
    encoder = FeatureEncoder(features)
    fit_encoder(encoder, data.files(("train",)))
    make = BatchMaker(encoder, wanted.tasks)
    batch = make(next(SampleReader(data.files(("train",)), make.columns(), rows).epoch(0)))
    torch.manual_seed(0)
    hooks = make_hooks(wanted, features)
    task = RankingTask(features, wanted.model, wanted.tasks, hooks=hooks).double()
    # The collection pools in float32 whatever its weights are.
    double = lambda e: {name: x.double() for name, x in e.items()}
    task.embeddings.register_forward_hook(lambda module, args, out: double(out))
    for table in task.embeddings.ebc.parameters():
        torch.nn.init.normal_(table)
    rows_of_tables = 30 if wanted.model.retrieves else 5
    batch.sparse._values = torch.randint(1, rows_of_tables, batch.sparse.values().shape)
    batch.dense, batch.labels = batch.dense.double(), batch.labels.double()
    return batch, task, hooks["pam"]


def naive(task, batch, c, rates, own=None, embedded=None):
    """Query losses summed as in Eq. 11, with a loop over the groups, and the weights of each after the inner steps.
    own: what each group adds to the shared weights, [N, ...]. embedded: in the place of the batch's own."""
    model, labels = task.ranker, batch.labels[:, 0]
    sides = model.sides(embedded or task.embeddings(batch), batch.dense)
    views = batch.keys["item_views"]
    names = [n for n, _ in model.named_parameters()]

    def losses(weights, rows, candidates):
        user, item = towers(weights)
        found = []
        for row in rows.tolist():
            known = [c for c in candidates if c == row or model.config.same_user or users[c] != users[row]]
            shares = torch.softmax(user[known] @ item[row] / model.config.temperature, 0)
            share = shares[known.index(row)]
            found.append(-(labels[row] * share.log() + (1 - labels[row]) * (1 - share).log()))
        return torch.stack(found)

    def towers(weights):
        out = []
        for side, x in (("user", sides.user), ("item", sides.item)):
            own = {n.removeprefix(f"towers.{side}."): w for n, w in weights.items() if side in n}
            out.append(functional_call(model.towers[side], own, (x,)))
        return out

    total, adapted, n_rows, users = 0.0, [], len(batch), batch.keys["user_id"]
    bounds = zip((-1, *c.cuts), (*c.cuts, 10**9), strict=True)
    of_group = [((views > low) & (views <= high)).nonzero().squeeze(1) for low, high in bounds]
    supports = [row for rows in of_group for row in rows[: int(c.support * len(rows))].tolist()]
    queries = [row for row in range(n_rows) if c.query == "all" or row not in supports]
    if c.candidates == "batch":
        supports = queries = list(range(n_rows))
    for n, rows in enumerate(of_group):
        first = int(c.support * len(rows))
        weights = {k: p if own is None else p + own[k][n] for k, p in model.named_parameters()}
        path = [weights]
        for step in range(c.steps):
            if first:
                given = losses(weights, rows[:first], supports)
                loss = given.mean() if c.support_average == "group" else given.sum() / n_rows
                grads = torch.autograd.grad(loss, [weights[k] for k in names], create_graph=c.second_order)
                weights = {
                    k: weights[k] - rates[step, i] * g for i, (k, g) in enumerate(zip(names, grads, strict=True))
                }
            path.append(weights)
        shares = c.step_weights or (0.0,) * c.steps + (1.0,)
        query = rows if c.query == "all" else rows[first:]
        for share, w in zip(shares, path, strict=True):
            if share and len(query):
                given = losses(w, query, queries)
                mean = given.mean() if c.query_average == "group" else given.sum() / n_rows
                total = total + share * (c.cold_weight if n == c.cold else c.other_weight) * mean
        adapted.append(weights)
    return total, adapted


@pytest.mark.parametrize(
    "pam",
    [
        {},
        {"second_order": False},
        {"steps": 1, "support_average": "batch", "query_average": "group"},
        {"step_weights": (0.1, 0.1, 0.8)},
        {"candidates": "set"},
        {"candidates": "set", "same_user": False},
        {"candidates": "set", "query": "all"},
    ],
)
def test_equals_a_loop_over_the_groups(folder, pam):
    batch, task, hook = batch_and_task(folder, config(**pam))
    assert min(hook.split(batch).support.counts[:4]) > 0 and hook.split(batch).support.counts[4] == 0
    total, adapted = naive(task, batch, hook.config, hook.loop.rates)
    out = task(batch)
    torch.testing.assert_close(out.loss, total)
    wanted = [*task.ranker.parameters(), *task.embeddings.ebc.parameters(), hook.loop.rates]
    pairs = zip(torch.autograd.grad(out.loss, wanted), torch.autograd.grad(total, wanted), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)
    hook.after_step(type("Run", (), {"ranks": ONE}))
    for n in range(hook.config.groups):
        for name, p in task.ranker.named_parameters():
            left = hook.served(hook.start(task.ranker))[name][n]
            torch.testing.assert_close(left, adapted[n][name])
            assert n < 4 or torch.equal(left, p)  # a group without rows


def test_without_steps_and_weights_the_loss_is_that_of_the_base(folder):
    neutral = {"rate": 0.0, "cold_weight": 1.0, "other_weight": 1.0, "support": 0.001}
    batch, task, _ = batch_and_task(folder, config(**neutral))
    torch.testing.assert_close(task(batch).loss, task.rank(batch, task.embeddings(batch)).loss, rtol=1e-12, atol=0)


def test_without_an_inner_loop_the_hook_weighs_the_groups(folder):
    batch, task, hook = batch_and_task(folder, config(steps=0, support=0.0, query_average="group"))
    total, _ = naive(task, batch, hook.config, hook.loop.rates)
    torch.testing.assert_close(task(batch).loss, total)
    even = config(steps=0, support=0.0, cold_weight=1.0, other_weight=1.0)
    batch, task, _ = batch_and_task(folder, even)
    torch.testing.assert_close(task(batch).loss, task.rank(batch, task.embeddings(batch)).loss, rtol=1e-12, atol=0)


def test_towers_of_every_group_learn_from_its_rows(folder):
    settings = {"steps": 0, "support": 0.0, "own": True, "cold_weight": 1.0, "other_weight": 1.0}
    batch, task, hook = batch_and_task(folder, config(**settings))
    torch.testing.assert_close(task(batch).loss, task.rank(batch, task.embeddings(batch)).loss, rtol=1e-12, atol=0)
    for p in hook.own.values():
        torch.nn.init.normal_(p, std=0.1)
    own = {name: hook.own["own_" + name.replace(".", "_")] for name in hook.names}
    total, _ = naive(task, batch, hook.config, hook.loop.rates, own)
    out = task(batch)
    torch.testing.assert_close(out.loss, total)
    wanted = [*own.values(), *task.ranker.parameters(), *task.embeddings.ebc.parameters()]
    pairs = zip(torch.autograd.grad(out.loss, wanted), torch.autograd.grad(total, wanted), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_support_rows_of_the_batch_before(folder):
    batch, task, hook = batch_and_task(folder, config(support_of="previous", candidates="set", cuts=(20, 60, 120)))
    for buffer in hook.before.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.double()
    run, route = type("Run", (), {"ranks": ONE}), hook.split(batch).group
    _, logged = task(batch), hook.after_step(run)
    assert logged is None
    names = [n.replace(".", "_") for n in hook.names]
    assert not any(hook.get_buffer(f"shift_{n}").any() for n in names), "nothing was there to adapt to"
    last = [
        rows[len(rows) - len(rows) // 4 :].tolist() for rows in ((route == n).nonzero().squeeze(1) for n in range(4))
    ]
    kept = sorted(row for rows in last for row in rows)
    assert (
        hook.before.task[: len(kept)].tolist() == route[kept].tolist() and (hook.before.task[len(kept) :] == -1).all()
    )
    rows = group_rows(task.ranker, batch, task.embeddings(batch), task.heads)
    torch.testing.assert_close(hook.before.item[: len(kept)], rows.sides.item[kept].detach())
    chosen = RowsByGroup.of(route, 4, torch.isin(torch.arange(len(route)), torch.tensor(kept)))
    detached = TowerRows(rows.model, Sides(*(x.detach() for x in rows.sides)), rows.labels, rows.ids)
    path = hook.adapt(detached, chosen, hook.start(task.ranker), chosen.index)
    everything = RowsByGroup.of(route, 4, torch.ones_like(route, dtype=torch.bool))
    expected, _ = hook._query(rows, everything, path)
    torch.testing.assert_close(task(batch).loss, expected)


def test_scores_are_those_of_the_row_s_group(folder):
    batch, task, hook = batch_and_task(folder, config(own=True))
    for p in hook.own.values():
        torch.nn.init.normal_(p, std=0.1)
    task.eval()
    with torch.no_grad():
        out = task(batch)
        served = hook.served(hook.start(task.ranker))
        sides = task.ranker.sides(task.embeddings(batch), batch.dense)
        for row in (0, 5, 17):
            own = {k: w[int(out.vectors.group[row])] for k, w in served.items()}
            tower = lambda side, x, own=own: functional_call(
                task.ranker.towers[side],
                {k.removeprefix(f"towers.{side}."): w for k, w in own.items() if side in k},
                (x,),
            )
            item, user = tower("item", sides.item)[row], tower("user", sides.user)
            torch.testing.assert_close(out.vectors.item[row], item)
            torch.testing.assert_close(out.vectors.users[out.vectors.group[row]], user)
            torch.testing.assert_close(out.logits[row, 0], user[row] @ item / 0.07)


def test_the_moving_mean_of_what_the_inner_loops_add(folder):
    batch, task, hook = batch_and_task(folder, config(serve_decay=0.75))
    run = type("Run", (), {"ranks": ONE})
    name, key = hook.names[0], "shift_" + hook.names[0].replace(".", "_")
    added = []
    for _ in range(2):
        task(batch)
        added.append(hook._adapted[0][name])
        hook.after_step(run)
    torch.testing.assert_close(getattr(hook, key), 0.25 * added[1] + 0.75 * 0.25 * added[0])
    before = getattr(hook, key).clone()
    batch.keys["item_views"] = torch.full_like(batch.keys["item_views"], 30)  # all of group 1
    task(batch)
    hook.after_step(run)
    same = (getattr(hook, key) == before).flatten(1).all(1)
    assert before[2].any() and same.tolist() == [True, False, True, True, True]


@pytest.mark.parametrize(
    ("pam", "text"),
    [
        ({"cuts": (5, 5)}, "must ascend"),
        ({"cuts": (9, 5)}, "must ascend"),
        ({"cold": 9}, "groups 0 to 4"),
        ({"cold": 5}, "groups 0 to 4"),
        ({"cold": -1}, "groups 0 to 4"),
        ({"cuts": (), "quantiles": 1}, "quantiles=1: must be 0, or 2 or more"),
        pytest.param(
            {"cuts": (), "quantiles": -2},
            "quantiles=-2: must be 0, or 2 or more",
            marks=pytest.mark.tried("hooks", "pam.quantiles=-2", "refused: must be 0, or 2 or more"),
        ),
        ({"cold_weight": -1.0}, "must not be below 0"),
        ({"other_weight": -1.0}, "must not be below 0"),
        ({"steps": -1}, "steps=-1: must not be below 0"),
        ({"support": 0.0}, "support=0.0: must be between 0 and 1; 0 goes with steps=0"),
        ({"support": 1.0}, "support=1.0: must be between 0 and 1"),
        ({"support": 1.5, "support_of": "previous"}, "support=1.5: must not be above 1"),
        ({"serve_decay": 1.0}, r"serve_decay=1.0: must be below 1"),
        ({"gamma": (1.0, -1.0, 0.0)}, "must not be below 0"),
        ({"adapt": ()}, "adapt is empty"),
        ({"step_weights": (1.0,)}, "steps . 1 = 3"),
        ({"steps": 0}, "0 goes with steps=0"),
        ({"gamma": (1.0, 1.0, 0.0), "behaviour": ("nothing",)}, "'nothing'"),
        ({"adapt": ("nothing",)}, "begins so; there is towers.user"),
        ({"gamma": (1.0, 1.0, 0.0), "cold": 4}, "cold=4: .* there is none"),
        ({"dress": "next"}, "dress='next' has no effect with gamma"),
        ({"store": "spread"}, "store='spread' has no effect with gamma"),
        ({"enhancer_trains": "towers"}, "enhancer_trains='towers' has no effect with gamma"),
        ({"steps": 0, "support": 0.0, "serve_decay": 0.5}, "serve_decay=0.5 has no effect with steps=0"),
        ({"steps": 0, "support": 0.0, "adapt_on_test_labels": True}, "adapt_on_test_labels=True has no effect"),
    ],
)
def test_what_cannot_work_is_refused(pam, text):
    with pytest.raises(UserError, match=text):
        wanted = config(**pam)
        make_hooks(wanted, validate(wanted))


def test_the_cold_group_has_a_weight_of_its_own():
    pam = Pam(cuts=(5, 50, 200), cold=1, cold_weight=3.0, other_weight=0.25)
    assert pam.groups == 4 and pam.lambdas == [0.25, 3.0, 0.25, 0.25]
    assert Pam(quantiles=3, cold=0).lambdas == [2.0, 0.5, 0.5]


def test_a_model_that_is_held_still_leaves_no_room():
    wanted = config()
    with pytest.raises(UserError, match="mwuf.mode='warm_up' holds the model still, and 'pam' adapts"):
        validate(
            replace(wanted, hooks=(Mwuf(mode="warm_up"), *wanted.hooks), train=replace(wanted.train, warm_start="x"))
        )


@pytest.mark.tried("hooks", "pam.candidates=set on the ranker", "refused: its rows have no candidates")
def test_candidates_are_of_the_two_tower_model():
    wanted = ranker(candidates="set")
    with pytest.raises(UserError, match="candidates='set' needs model=two_tower"):
        make_hooks(wanted, validate(wanted))


def test_the_enhancer_needs_the_two_tower_model():
    wanted = replace(config(gamma=(1.0, 1.0, 0.0)), model=Ranker())
    with pytest.raises(UserError, match="needs model=two_tower"):
        make_hooks(wanted, validate(wanted))


BINARY = {"long_view": Binary(), "like": Binary(weight=0.5)}
NUMBERS = {"long_view": Regression(loss="huber", delta=0.3), "like": Ordinal(3, lowest=0, weight=0.5)}


def ranker(tasks=BINARY, **pam: object):
    """POSO's ranker with two tasks and PAM's on its towers."""
    return replace(arms.poso(growing()), hooks=(replace(PAM, **pam),), tasks=tasks)


def naive_losses(tasks, heads, logits, labels):
    """[R, 2]; labels without NaN."""
    if tasks is BINARY:
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    head = heads.parts["label_like"]
    cuts = torch.stack([head.first, head.first + torch.log1p(head.gaps[0].exp()) + 1e-6])
    above = torch.nn.functional.pad(
        torch.sigmoid(logits[:, 1:] - cuts), (1, 0), value=1.0
    )  # P(above level k), k = 0, 1, 2
    level = labels[:, 1].long()
    share = above.gather(1, level[:, None]) - above.gather(1, (level + 1)[:, None])
    huber = torch.nn.functional.huber_loss(logits[:, 0], labels[:, 0], reduction="none", delta=0.3)
    return torch.stack([huber, -share[:, 0].log()], 1)


@pytest.mark.parametrize(("tasks", "second_order"), [(BINARY, True), (BINARY, False), (NUMBERS, True)])
def test_on_the_ranker_equals_a_loop_over_the_groups(folder, tasks, second_order):
    batch, task, hook = batch_and_task(folder, ranker(tasks, second_order=second_order))
    c, model = hook.config, task.ranker
    x, pc = model.represent(task.embeddings(batch), batch)
    weight = torch.tensor([1.0, 0.5], dtype=torch.float64)

    def loss(weights, rows):
        own = {k.removeprefix("towers."): w for k, w in weights.items()}
        logits = functional_call(model.towers, own, (x[rows], pc[rows]))
        labels = batch.labels[rows]
        known = ~torch.isnan(labels)
        losses = naive_losses(tasks, task.heads, logits, labels.nan_to_num())
        return (losses.where(known, 0.0) * weight).sum()

    total = 0.0
    names = [k for k, _ in model.named_parameters() if k.startswith("towers.")]
    adapted, route = [], hook.split(batch).group
    for n in range(c.groups):
        rows = (route == n).nonzero().squeeze(1)
        first = int(c.support * len(rows))
        weights = {k: p for k, p in model.named_parameters() if k in names}
        for step in range(c.steps if first else 0):
            grads = torch.autograd.grad(
                loss(weights, rows[:first]) / first, [weights[k] for k in names], create_graph=second_order
            )
            rates = hook.loop.rates[step]
            weights = {k: weights[k] - r * g for k, r, g in zip(names, rates, grads, strict=True)}
        total = total + (c.cold_weight if n == c.cold else c.other_weight) * loss(weights, rows[first:]) / len(batch)
        adapted.append(weights)
    out = task(batch)
    torch.testing.assert_close(out.loss, total)
    wanted = [*model.parameters(), *task.embeddings.ebc.parameters(), hook.loop.rates, *task.heads.parameters()]
    assert len(list(task.heads.parameters())) == (0 if tasks is BINARY else 2)
    pairs = zip(torch.autograd.grad(out.loss, wanted), torch.autograd.grad(total, wanted), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)
    hook.after_step(type("Run", (), {"ranks": ONE}))
    with torch.no_grad():
        logits = task.eval()(batch).logits
        for row in range(0, 64, 7):
            own = {k.removeprefix("towers."): w for k, w in adapted[int(route[row])].items()}
            expected = functional_call(model.towers, own, (x[row : row + 1], pc[row : row + 1]))[0]
            torch.testing.assert_close(logits[row], expected)


def test_on_the_ranker_without_steps_the_loss_is_that_of_the_base(folder):
    batch, task, _ = batch_and_task(folder, ranker(rate=0.0, cold_weight=1.0, other_weight=1.0, support=0.001))
    torch.testing.assert_close(
        task(batch).loss, task.rank(batch, task.embeddings(batch)).loss, rtol=1e-6, atol=0
    )  # the base's are float32
