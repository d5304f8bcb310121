import pytest
import torch

from coldrank.modules.losses import MaskedBCE


def test_known_labels_alone_count():
    nan = float("nan")
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5], [-0.7, 4.0]], requires_grad=True)
    labels = torch.tensor([[1.0, nan], [0.0, nan], [nan, nan]])
    loss, (sums, known) = MaskedBCE([2.0, 1.0])(logits, labels)
    p = torch.sigmoid(logits)
    expected = -torch.log(p[0, 0]) - torch.log(1 - p[1, 0])
    assert loss.item() == pytest.approx(2.0 * expected.item() / 3)
    assert sums.tolist() == pytest.approx([expected.item(), 0.0]) and known.tolist() == [2.0, 0.0]
    loss.backward()
    assert logits.grad is not None and not logits.grad[:, 1].any() and logits.grad[2, 0] == 0
    assert torch.isfinite(logits.grad).all()
