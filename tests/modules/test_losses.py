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


def test_row_weights_multiply_the_loss_of_their_rows():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 2), torch.tensor([[1.0, 0.0], [0.0, float("nan")], [1.0, 1.0], [0.0, 1.0]])
    loss, tasks = MaskedBCE([2.0, 1.0])(logits, labels, torch.tensor([3.0, 1.0, 0.0, 0.5]))
    of = lambda b, t: -torch.log(torch.sigmoid(logits[b, t] if labels[b, t] else -logits[b, t]))
    first = 3.0 * of(0, 0) + of(1, 0) + 0.5 * of(3, 0)
    expected = (2.0 * first + 3.0 * of(0, 1) + 0.5 * of(3, 1)) / 4
    assert loss.item() == pytest.approx(expected.item())
    plain, plain_tasks = MaskedBCE([2.0, 1.0])(logits, labels)
    for mine, theirs in zip(tasks, plain_tasks, strict=True):
        assert torch.equal(mine, theirs), "the log losses of the tasks stay unweighted"
    assert MaskedBCE([2.0, 1.0])(logits, labels, torch.ones(4))[0].item() == pytest.approx(plain.item())


def test_a_row_of_weight_2_counts_as_two_rows():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 2), torch.randint(0, 2, (3, 2)).float()
    twice, _ = MaskedBCE([1.0, 0.5])(logits, labels, torch.tensor([1.0, 2.0, 1.0]))
    copied, _ = MaskedBCE([1.0, 0.5])(logits[[0, 1, 1, 2]], labels[[0, 1, 1, 2]])
    assert 3 * twice.item() == pytest.approx(4 * copied.item())
