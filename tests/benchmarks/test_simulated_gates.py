"""benchmarks/simulated_gates.py: what is left out of a score costs it."""

import numpy as np
from simulated_gates import measure, visible

from coldrank.data.simulate.world import VISIBLE_TASTE, Newness, build_world, draw_users


def test_closed_gates_and_hidden_tastes_cost_auc():
    worth = measure(100_000, 1_500, seed=1)
    assert 0 < worth.new < worth.views
    full, closed, first, both = map(np.array, worth.auc.values())
    assert (full > closed).all() and (full > first).all() and (first > both).all()


def test_the_user_file_shows_its_share_of_taste():
    world = build_world(1, 100_000, 30, Newness())
    users = draw_users(world, np.arange(4_000))
    seen = visible(world, users)
    hidden = users.taste - seen.taste
    assert abs(hidden.var() - (1 - VISIBLE_TASTE)) < 0.03
    assert abs(np.corrcoef(hidden.ravel(), seen.taste.ravel())[0, 1]) < 0.03
    rest = users.bias - seen.bias
    assert abs(np.corrcoef(rest[:, 0], users.sociability)[0, 1]) < 0.05
