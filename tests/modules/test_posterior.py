"""The posterior mode against scikit-learn and finite differences; CVAR's parts against their definitions."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from coldrank.modules.cvar import Cvar
from coldrank.modules.posterior import Gaussian, curvature, fit_of_moments, fit_prior, newton_step

D = 3


@pytest.fixture
def events():
    torch.manual_seed(0)
    slopes, items = torch.randn(60, D).double(), torch.arange(60) % 2
    return slopes, (torch.rand(60) < 0.5).double(), items


def test_newton_finds_the_mode_of_a_logistic_regression(events):
    slopes, labels, items = events
    prior = Gaussian(torch.zeros(2, D).double(), torch.eye(D).double().expand(2, -1, -1))
    ids = prior.mean
    for _ in range(8):
        gradient, matrix = curvature(slopes, (slopes * ids[items]).sum(1), labels, items, 2)
        ids = newton_step(prior, ids, gradient, matrix)
    for i in range(2):
        of = (items == i).numpy()
        wanted = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10).fit(slopes.numpy()[of], labels.numpy()[of])
        assert ids[i].numpy() == pytest.approx(wanted.coef_[0], abs=1e-6)


def test_gradient_and_matrix_are_the_derivatives_of_the_loss(events):
    slopes, labels, items = events
    ids = torch.randn(2, D).double()

    def loss(flat):
        logits = (slopes * flat.view(2, D)[items]).sum(1)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")

    gradient, matrix = curvature(slopes, (slopes * ids[items]).sum(1), labels, items, 2)
    assert torch.allclose(gradient.flatten(), torch.autograd.functional.jacobian(loss, ids.flatten()))
    second = torch.autograd.functional.hessian(loss, ids.flatten())
    assert torch.allclose(torch.block_diag(*matrix), second)


def test_an_item_without_events_stays_at_its_prior(events):
    prior = Gaussian(torch.randn(2, D).double(), torch.eye(D).double().expand(2, -1, -1))
    slopes, labels, items = (t[:0] for t in events)
    gradient, matrix = curvature(slopes, slopes.sum(1), labels, items, 2)
    assert torch.allclose(newton_step(prior, prior.mean, gradient, matrix), prior.mean)


def test_the_prior_is_a_ridge_regression_and_what_it_leaves():
    torch.manual_seed(0)
    side, ids = torch.randn(50, 4).double(), torch.randn(50, D).double()
    prior = fit_prior(ids, side, ridge=0.5)
    alpha = 0.5 * float(torch.cat([side, torch.ones(50, 1)], 1).square().sum(0).mean()) / 50
    wanted = Ridge(alpha=alpha).fit(side.numpy(), ids.numpy())
    assert prior.weight[:-1].T.numpy() == pytest.approx(wanted.coef_, abs=1e-8)
    rest = ids.numpy() - wanted.predict(side.numpy())
    assert prior.covariance.numpy() == pytest.approx(rest.T @ rest / 50, abs=1e-6)
    found = prior.of(side[:2], strength=2.0)
    assert found.mean.numpy() == pytest.approx(wanted.predict(side.numpy()[:2]))
    assert np.linalg.inv(found.precision[1].numpy()) == pytest.approx(prior.covariance.numpy() / 2)


def test_the_prior_of_sums_is_that_of_the_items_themselves():
    """All weigh the same; the variance is unbiased here."""
    torch.manual_seed(0)
    side, ids = torch.randn(50, 4).double(), torch.randn(50, D).double()
    prior = fit_prior(ids, side, ridge=0.5)
    z = torch.cat([side, torch.ones(50, 1), ids], 1)
    weight, variance = fit_of_moments(3.0 * z.T @ z, D, 50, ridge=0.5)
    assert torch.allclose(weight, prior.weight)
    assert torch.allclose(variance, prior.covariance.diagonal() * 50 / 45, atol=1e-6)


def test_cvar():
    torch.manual_seed(0)
    nets = Cvar(D, 5, latent=2).double()
    ids, side, views = torch.randn(7, D).double(), torch.randn(7, 5).double(), torch.arange(7)
    torch.manual_seed(1)
    out = nets(ids, side, views)
    torch.manual_seed(1)
    noise, prior_noise = (1e-4 * torch.randn(7, 2).double().numpy() for _ in range(2))  # the authors' scale
    w = nets.state_dict()
    code = lambda name, x: np.split((x @ w[f"{name}.weight"].T + w[f"{name}.bias"]).numpy(), 2, axis=1)
    (mean, spread), (prior_mean, prior_spread) = code("from_id", ids), code("from_side", side)
    decode = lambda z: np.c_[z, np.log1p(views.numpy())] @ w["decoder.weight"].T.numpy() + w["decoder.bias"].numpy()
    wanted = decode(prior_mean + np.exp(prior_spread / 2) * prior_noise)
    assert out.warm.detach().numpy() == pytest.approx(wanted, abs=1e-9)
    rebuilt = ((decode(mean + np.exp(spread / 2) * noise) - ids.numpy()) ** 2).sum(1).mean()
    assert out.reconstruction.item() == pytest.approx(rebuilt, rel=1e-9)
    wasserstein = ((mean - prior_mean) ** 2).sum() + ((np.exp(spread / 2) - np.exp(prior_spread / 2)) ** 2).sum()
    assert out.divergence.item() == pytest.approx(wasserstein)
