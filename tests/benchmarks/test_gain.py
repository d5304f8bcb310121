"""benchmarks/gain.py: the last line of the quickstart claims no gain that the interval does not show."""

import pytest
from gain import sentence

SIMULATION = {"auc": {"new_user": {"long_view": {"best": 81.0, "gates_unknown": 71.0}}}}


def rows(difference, low, high):
    of = {"cohort": "new_user", "task": "long_view", "metric": "auc"}
    base = of | {"arm": "base", "difference": None, "low": None, "high": None}
    other = of | {"arm": "poso", "cohort": "all", "difference": 9.0, "low": 8.0, "high": 10.0}
    return [base, other, of | {"arm": "poso", "difference": difference, "low": low, "high": high}]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ((2.0, 0.5, 3.5), "poso: +2.00 \u00b11.50, 20% of that; a gain."),
        ((2.0, -0.5, 4.5), "poso: +2.00 \u00b12.50, 20% of that; not to be told from none by this one run."),
        ((-1.0, -1.5, -0.5), "poso: -1.00 \u00b10.50, -10% of that; a loss."),
        ((None, None, None), "Too few new users to compare poso."),
    ],
)
def test_a_gain_is_called_so_only_where_the_interval_excludes_zero(found, says):
    start = "long_view of new users: 10.00 points of AUC are to gain by knowing how they differ. "
    assert sentence(SIMULATION, rows(*found)) == start + says


def test_a_log_in_which_new_users_are_like_all_others():
    nothing = {"auc": {"new_user": {"long_view": {"best": 81.0, "gates_unknown": 81.0}}}}
    assert sentence(nothing, rows(0.1, -0.2, 0.4)).endswith(
        "poso: +0.10 \u00b10.30; not to be told from none by this one run."
    )
