"""What the posterior loses by a diagonal between batches: against ridge regression, and how large it is."""

import numpy as np
import pytest
import torch
from posterior_diagonal import KEPT, derivatives, drawn_slopes, errors, means
from sklearn.linear_model import Ridge


@pytest.mark.parametrize("per_batch", [1, 3])
def test_with_the_whole_precision_batches_are_one_ridge_regression(per_batch):
    torch.manual_seed(0)
    slopes, labels = drawn_slopes(2, 12, 5, 0.5), torch.randn(2, 12).double()
    *_, last = means(slopes, labels, "linear", per_batch, "whole")
    for mean, x, y in zip(last, slopes, labels, strict=True):
        wanted = Ridge(alpha=1.0, fit_intercept=False).fit(x.numpy(), y.numpy()).coef_
        np.testing.assert_allclose(mean.numpy(), wanted, atol=1e-10)


def test_the_diagonals_are_those_of_a_loop_over_events():
    torch.manual_seed(1)
    slopes, labels = drawn_slopes(1, 6, 3, 0.5), torch.randn(1, 6).double()
    for what in ("diagonal", "covariance"):
        mean, kept = np.zeros(3), np.ones(3)
        for x, y in zip(slopes[0].numpy(), labels[0].numpy(), strict=True):
            precision = np.diag(kept) + np.outer(x, x)
            mean = mean + np.linalg.solve(precision, x * (y - x @ mean))
            kept = np.diag(precision) if what == "diagonal" else 1 / np.diag(np.linalg.inv(precision))
        *_, last = means(slopes, labels, "linear", 1, what)
        np.testing.assert_allclose(last[0].numpy(), mean, atol=1e-12)


def test_within_one_batch_nothing_is_lost():
    for kind in ("linear", "logistic"):
        of = errors(kind, 50, 8, 0.8, per_batch=64)[64]
        assert of["whole"] == of["diagonal"] == of["covariance"]


def test_the_gap_grows_with_the_events():
    """docs/posterior.md states it for a width of 16 and one event a batch."""
    found = errors("logistic", 200, 16, 0.3, per_batch=1)
    gaps = {n: of["diagonal"] - of["whole"] for n, of in found.items()}
    assert abs(gaps[1]) < 1e-12 and gaps[4] < 0.01 and 0.03 < gaps[16] < 0.07 and 0.09 < gaps[64] < 0.15
    assert all(
        found[64][a] < found[64][b] for a, b in zip(("whole", "covariance"), ("covariance", "diagonal"), strict=True)
    )
    assert set(found[64]) == set(KEPT)


def test_derivatives_are_those_of_the_losses():
    logits, labels = torch.tensor([0.3, -2.0]).double().requires_grad_(), torch.tensor([1.0, 0.0]).double()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    (wanted,) = torch.autograd.grad(loss, logits, create_graph=True)
    first, second = derivatives("logistic", logits.detach(), labels)
    torch.testing.assert_close(first, wanted.detach())
    torch.testing.assert_close(second, torch.autograd.grad(wanted.sum(), logits)[0])
    assert torch.equal(derivatives("linear", logits.detach(), labels)[0], logits.detach() - labels)
