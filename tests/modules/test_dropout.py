"""Dropout: what is dropped, how often, and what is left of it."""

import pytest
import torch

from coldrank.modules.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_numbers_are_dropped_with_the_probability_and_the_rest_is_scaled(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 997, requires_grad=True)
    y = Dropout(p)(x)
    kept = y != 0
    assert y[kept].unique().tolist() == pytest.approx([1 / (1 - p)], rel=2e-4)
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=5 * (p * (1 - p) / x.numel()) ** 0.5 + 2**-16)
    # Neither rows, columns nor neighbours of one draw of 64 bits go together.
    assert kept.float().mean(0).std() < 0.025 and kept.float().mean(1).std() < 0.025
    fours = kept.flatten()[: x.numel() // 4 * 4].view(-1, 4).float()
    assert torch.corrcoef(fours.T).fill_diagonal_(0).abs().max() < 0.02
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_it_is_off_in_evaluation_and_at_0_and_the_seed_decides() -> None:
    x, drop = torch.randn(5, 3), Dropout(0.5)
    assert drop.eval()(x) is x and Dropout(0.0)(x) is x
    assert Dropout(2**-18)(x) is x, "below half of what 16 bits can tell"
    drop.train()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(drop(x))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    with pytest.raises(ValueError, match="dropout is 1"):
        Dropout(1.0)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_scripted_vmapped_and_in_half_precision() -> None:
    x, drop = torch.randn(4, 6, 5), Dropout(0.5)
    each = torch.vmap(drop, randomness="different")(torch.ones(50, 6))
    assert (each == 0).any() and len({tuple(row) for row in each.tolist()}) > 10
    assert drop(x.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(torch.jit.script(drop.eval())(x), x)


def test_other_devices_take_torchs_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    x, calls = torch.ones(3, device="meta"), []
    monkeypatch.setattr(torch, "dropout", lambda *given: calls.append(given) or given[0])
    assert Dropout(0.3)(x) is x and calls == [(x, 0.3, True)]
