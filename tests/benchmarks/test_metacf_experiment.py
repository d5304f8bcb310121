"""MetaCF's experiment on a small log: splits, measures, rivals and the program."""

import json
import math

import figures
import metacf
import metacf_data
import metacf_knobs
import metacf_speed
import numpy as np
import pytest
import torch
from metacf_arms import ALL, ARMS, Items
from metacf_bpr import BprConfig, bpr
from metacf_data import Episodes, RatingLog, UserSplit, draw, split
from metacf_items import ease, factorise, fold_in, ials
from metacf_train import MetaConfig, melu, meta_train, with_negatives

USERS, ITEMS = 80, 40


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> RatingLog:
    """Users of even number rate items of the first half, others those of the second."""
    folder = tmp_path_factory.mktemp("log")
    rng = np.random.default_rng(0)
    lines = []
    for user in range(USERS):
        half = rng.permutation(ITEMS // 2)[: rng.integers(12, 18)] + (user % 2) * (ITEMS // 2)
        lines += [f"{user + 5}::{3 * item + 1}::4::9" for item in half]
    (folder / "ratings.dat").write_text("\n".join(rng.permutation(lines)) + "\n")
    return RatingLog.read(folder)


@pytest.fixture(scope="module")
def small(log) -> UserSplit:
    return split(log, 1, draws=2)


def test_the_log_is_read(log):
    assert log.item_count == ITEMS and len(log.starts) == USERS + 1
    assert ((log.matrix()[::2, ITEMS // 2 :] == 0).all()) and (log.matrix()[1::2, : ITEMS // 2] == 0).all()


def test_records_are_drawn_of_the_user_and_never_twice(log):
    drawn = draw(log, np.random.default_rng(3))
    rated = log.matrix()
    sizes = set()
    for user, support, query in zip(*drawn, strict=True):
        s, q = support[support >= 0].tolist(), query[query >= 0].tolist()
        assert not set(s) & set(q) and len({*s, *q}) == len(s) + len(q)
        assert rated[user, s + q].all() and len(s) == (len(s) + len(q)) // 2
        sizes.add(len(s) + len(q))
    assert sizes == set(range(2, 11))
    fixed = draw(log, np.random.default_rng(3), 3)
    assert ((fixed.support >= 0).sum(1) == 3).all() and ((fixed.query >= 0).sum(1) == 5).all()


def test_users_are_split_and_those_for_tuning_are_in_no_test(log, small):
    tuning, tests = set(split(log, 0).test.users.tolist()), [split(log, seed).test.users for seed in (1, 2)]
    assert len(tuning) == USERS // 4 and all(not tuning & set(t.tolist()) and len(t) == USERS // 4 for t in tests)
    assert set(tests[0].tolist()) != set(tests[1].tolist())
    assert len(small.meta.users) == USERS // 2 and len(small.pretrain.starts) - 1 == USERS // 4
    assert len(small.test.users) == 2 * (USERS // 4)
    everything = log.matrix()
    for users, support in ((small.test.users, small.test.support),):
        assert all(everything[u, s[s >= 0]].all() for u, s in zip(users, support, strict=True))
    few = (small.meta.support >= 0).sum() + (small.meta.query >= 0).sum()
    assert small.known.sum() == len(small.pretrain.items) + few


def test_measures_are_those_of_the_definition():
    scores = torch.arange(20.0, 0.0, -1.0).expand(2, -1)
    support = torch.tensor([[0, 1], [5, -1]])
    query = torch.tensor([[3, 15, -1], [19, 18, 17]])
    values = metacf_data.measure(scores, support, query, k=10)
    # Without items 0 and 1, item 3 is second; 15 is past the tenth.
    ndcg = (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    torch.testing.assert_close(values, torch.tensor([[0.5, ndcg, 1.0], [0.0, 0.0, 0.0]]))


def test_ease_and_ials_solve_what_they_say(small):
    x, l2 = small.known.double(), 3.0
    weights = ease(x.float(), l2).double()
    slope = (x.T @ x) @ weights + l2 * weights - x.T @ x
    slope.fill_diagonal_(0.0)
    assert weights.diagonal().abs().max() == 0 and slope.abs().max() < 1e-3
    q = ials(small.known, dim=4, alpha=0.2, l2=0.01).double()
    p = fold_in(x, q, 0.2, 0.01).requires_grad_()
    scores = p @ q.T
    reg = 0.01 * (x.sum(1) + 0.2 * ITEMS)
    loss = (x * (1 - scores).square()).sum() + 0.2 * scores.square().sum() + (reg * p.square().sum(1)).sum()
    assert torch.autograd.grad(loss, p)[0].abs().max() < 1e-4


def test_negatives_weigh_three_whatever_their_number():
    support = torch.tensor([[4, 7], [2, -1]])
    for negatives in (3, 20):
        items, labels, weights = with_negatives(support, ITEMS, torch.Generator().manual_seed(0), negatives)
        assert items.shape == labels.shape == weights.shape == (2, 2 + 2 * negatives)
        torch.testing.assert_close((weights * labels).sum(1), torch.tensor([2.0, 1.0]))
        torch.testing.assert_close((weights * (1 - labels)).sum(1), torch.tensor([6.0, 3.0]))


def halves(scores: torch.Tensor, test: Episodes) -> float:
    """Share of the users whose own half is scored higher."""
    means = scores.view(len(scores), 2, -1).mean(2)
    right = (means[:, 1] > means[:, 0]).long() == test.users % 2
    return right.double().mean().item()


@pytest.mark.parametrize("name", ["bce", "bpr"])
def test_factorisation_and_meta_training_find_the_two_halves(small, name):
    q = factorise(small.pretrain, name, dim=8, epochs=60, l2=1e-3, seed=0, lr=2e-2).items
    for config in (
        MetaConfig(lr=1e-2, rate=0.1),
        MetaConfig(learner="linear", lr=1e-2, outer="softmax", replay=True, epochs=20, negatives=5),
    ):
        assert halves(meta_train(small, q, config, 0)(small.test.support), small.test) > 0.8
    scorer = melu(small, q, hidden=8, steps=2, rate=0.05, lr=1e-2, epochs=20, seed=0)
    assert halves(scorer(small.test.support), small.test) > 0.7


def test_arms_take_the_settings_of_those_they_vary(tmp_path):
    (tmp_path / "tuned").mkdir()
    trials = [{"settings": {"hidden": h}, "hr": hr} for h, hr in ((128, 0.1), (512, 0.3), (64, 0.2))]
    (tmp_path / "tuned/ours.json").write_text(json.dumps(trials))
    assert metacf.settings_of("ours_no_steps", tmp_path) == {"hidden": 512, "steps": 0}
    assert all(arm.tuned_as in ARMS for arm in ALL.values() if arm.tuned_as)


def test_what_is_done_is_not_done_again(log, tmp_path, capsys):
    names = ["popularity", "zero_50", "ease"]
    metacf.tune(log, tmp_path, 2, names)
    assert len(json.loads((tmp_path / "tuned/ease.json").read_text())) == 2
    for _ in range(2):
        metacf.run(log, tmp_path, range(1, 3), names)
    assert capsys.readouterr().out.count("HR@10") == 2 * 2 + 2 * 3
    metacf.table(tmp_path)
    rows = {row["arm"]: row for row in json.loads((tmp_path / "table.json").read_text())}
    assert rows["ease"]["hr_over_ease"] == [0, 0, 0] and rows["ease"]["seeds"] == 2
    value, low, high = rows["ease"]["hr"]
    assert 0 < low <= value <= high <= 1 and rows["popularity-2"]["hr"][0] > 0
    assert all(Items(split(log, 1), 1)("bce", 1, 0.0).shape == (ITEMS, 32) for _ in range(1))


def test_speed_is_measured_on_equal_results():
    speeds = metacf_speed.measure(64, 2, 2)
    assert speeds["batch_over_loop"] == speeds["batch"] / speeds["autograd_loop"] and min(speeds.values()) > 0


def test_a_log_of_a_matrix_is_the_log(log):
    again = RatingLog.of(log.matrix())
    assert np.array_equal(again.starts, log.starts) and again.item_count == log.item_count
    assert torch.equal(again.matrix(), log.matrix()) and np.array_equal(again.users, log.users)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_steps_of_bpr_descend_the_loss_that_they_say(small, pairs, bias):
    """One step from the users' mean vector is minus the rate times the gradient of Eq. 3 in float64; a bias stays."""
    config = BprConfig(pairs=pairs, bias=bias, epochs=5, width=4, start="mean", steps=1, rate=0.1, decay=0.3)
    items, support = Items(small, 3), small.test.support[:6]
    scores = bpr(config, items, {})(support)
    users, q = (x.double() for x in items.factors("bpr" if pairs else "bce", 5, 1e-2, dim=4, bias=bias))
    assert users.shape[1] == q.shape[1] == 4 + bias and (not bias or q[:, -1].abs().max() > 0)
    p = users.mean(0).expand(6, -1).clone().requires_grad_()
    chosen, labels, weights = with_negatives(support, ITEMS, torch.Generator().manual_seed(3))
    logits = (q[chosen] @ p.unsqueeze(2)).squeeze(2)
    if pairs:
        length = support.shape[1]
        of_pairs = logits[:, :length].repeat(1, 3) - logits[:, length:]
        loss = -(torch.nn.functional.logsigmoid(of_pairs) * weights[:, length:]).sum()
    else:
        loss = -(weights * (labels * logits.sigmoid().log() + (1 - labels) * (1 - logits.sigmoid()).log())).sum()
    (gradient,) = torch.autograd.grad(loss + 0.3 * p.square().sum(), p)
    expected = p - 0.1 * gradient
    if bias:
        expected = torch.cat([expected[:, :-1], torch.ones(6, 1)], 1)
    torch.testing.assert_close(scores.double(), expected @ q.T, rtol=1e-5, atol=1e-5)


def test_each_knob_changes_the_scores(small):
    """Settings without effect would be knobs that were not turned."""
    items, seen = Items(small, 0), []
    for name, knob in metacf_knobs.KNOBS.items():
        settings = {"steps": 3} | knob | {"epochs": knob.get("epochs", 40) // 10}
        seen.append(bpr(BprConfig(), items, settings)(small.test.support))
        assert not any(torch.allclose(seen[-1], other) for other in seen[:-1]), name


def test_new_users_of_a_retrained_model_find_their_half(log, small):
    test = Episodes(*(part[: USERS // 4] for part in small.test))
    scores = metacf_knobs.retrained(small, test, 0, epochs=400)(test.support)
    assert scores.shape == (USERS // 4, ITEMS) and halves(scores, test) > 0.7


def test_differences_are_of_users_drawn_again():
    users = torch.tensor([0, 1, 2, 0, 1, 2])
    start = torch.tensor([0.0, 0.5, 1.0, 0.0, 0.5, 1.0])
    assert metacf_knobs.difference(start + 0.25, start, users) == [0.25, 0.25, 0.25]
    mean, low, high = metacf_knobs.difference(torch.ones(6), start, users)
    assert mean == 0.5 and low == 0.0 and high == 1.0


def test_an_arm_of_two_takes_the_tuned_settings_of_both(log, small, tmp_path):
    (tmp_path / "tuned").mkdir()
    for name, settings in (("ease", {"l2": 7.0}), ("ials", {"dim": 4, "alpha": 0.3, "l2": 0.1})):
        (tmp_path / f"tuned/{name}.json").write_text(json.dumps([{"settings": settings, "hr": 0.1}]))
    settings = metacf.settings_of("ease_and_ials_equal", tmp_path)
    assert settings == {"weight": 1.0, "ease": {"l2": 7.0}, "ials": {"dim": 4, "alpha": 0.3, "l2": 0.1}}
    items, support = Items(small, 0), small.test.support
    one, other = (items.fit(name, settings[name])(support).double() for name in ("ease", "ials"))
    for weight in (1.0, 4.0):
        scores = items.fit("ease_and_ials", settings | {"weight": weight})(support).double()
        standard = [(x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True) for x in (one, other)]
        torch.testing.assert_close(scores, weight * standard[0] + standard[1], rtol=1e-4, atol=1e-4)
    metacf.tune(log, tmp_path, 4, ["ease_and_ials"])
    trials = json.loads((tmp_path / "tuned/ease_and_ials.json").read_text())
    assert [t["settings"]["weight"] for t in trials] and {t["settings"]["weight"] for t in trials} == {
        1.0,
        2.0,
        0.5,
        4.0,
    }


def test_the_table_has_differences_to_every_rival_that_has_run(log, tmp_path):
    metacf.tune(log, tmp_path, 2, ["ease"])
    metacf.run(log, tmp_path, range(1, 3), ["popularity", "ease", "bpr_tuned"])
    metacf.table(tmp_path)
    rows = {row["arm"]: row for row in json.loads((tmp_path / "table.json").read_text())}
    mean = lambda name: np.mean(
        [np.load(tmp_path / f"runs/{seed}/{name}.npz")["values"][:, 0].mean() for seed in (1, 2)]
    )
    over = rows["popularity"]["hr_over_bpr_tuned"]
    assert over[0] == pytest.approx(mean("popularity") - mean("bpr_tuned")) and over[1] < over[0] < over[2]
    assert rows["bpr_tuned"]["hr_over_bpr_tuned"] == [0, 0, 0] and "hr_over_ease_and_ials" not in rows["ease"]
    assert (rows["ease"]["trials"], rows["popularity"]["trials"]) == (2, 1)
    draws = rows["ease"]["draws"]
    assert draws["least"] < rows["ease"]["hr"][0] < draws["most"] and draws["sd"] > 0


def test_the_picture_shows_the_arms_that_have_all_seeds(tmp_path):
    arms = {"ease": 5, "metacf_neural": 5, "bpr": 5, "bpr_tuned": 1}
    rows = [{"arm": name, "seeds": seeds, "hr": [0.06, 0.05, 0.07]} for name, seeds in arms.items()]
    rows += [{"arm": f"ease-{size}", "seeds": 5, "hr": [0.05 + size / 1000, 0.0, 0.1]} for size in (1, 10)]
    (tmp_path / "table.json").write_text(json.dumps(rows))
    left, right = figures.metacf(tmp_path / "table.json").axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["EASE", "MetaCF neural", "BPR"]
    paper = next(line for line in left.lines if line.get_label() == "paper")
    assert list(paper.get_xdata()) == [0.0694, 0.0656] and list(paper.get_ydata()) == [1, 2]
    (line,) = right.lines
    assert list(line.get_xdata()) == [1, 10] and list(line.get_ydata()) == pytest.approx([0.051, 0.06])
