"""All heads together: which are computed at once, the loss of all tasks, and what is served."""

import pytest
import torch
from torch import Tensor, nn

from coldrank.models.heads import Binary, Head, HeadModule
from coldrank.models.heads.heads import Answers, Heads


def binary(*weights: float) -> Heads:
    return Heads({f"t{i}": Binary(weight=weight) for i, weight in enumerate(weights)})


class Sloped(Head):
    """Of nobody's use but this file's: a square, and a slope that is learned."""

    def build(self) -> HeadModule:
        return SlopedModule()


class SlopedModule(HeadModule):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.rand(()))

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = ~torch.isnan(labels)
        return torch.where(known, (self.slope * logits - torch.where(known, labels, 0.0)).square(), 0.0)

    def predict(self, logits: Tensor) -> Tensor:
        return self.slope * logits


def test_known_labels_alone_count():
    nan = float("nan")
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5], [-0.7, 4.0]], requires_grad=True)
    labels = torch.tensor([[1.0, nan], [0.0, nan], [nan, nan]])
    loss, (sums, known) = binary(2.0, 1.0).loss(logits, labels)
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
    loss, tasks = binary(2.0, 1.0).loss(logits, labels, torch.tensor([3.0, 1.0, 0.0, 0.5]))
    of = lambda b, t: -torch.log(torch.sigmoid(logits[b, t] if labels[b, t] else -logits[b, t]))
    first = 3.0 * of(0, 0) + of(1, 0) + 0.5 * of(3, 0)
    expected = (2.0 * first + 3.0 * of(0, 1) + 0.5 * of(3, 1)) / 4
    assert loss.item() == pytest.approx(expected.item())
    plain, plain_tasks = binary(2.0, 1.0).loss(logits, labels)
    for mine, theirs in zip(tasks, plain_tasks, strict=True):
        assert torch.equal(mine, theirs), "the log losses of the tasks stay unweighted"
    assert binary(2.0, 1.0).loss(logits, labels, torch.ones(4))[0].item() == pytest.approx(plain.item())


def test_a_row_of_weight_2_counts_as_two_rows():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 2), torch.randint(0, 2, (3, 2)).float()
    twice, _ = binary(1.0, 0.5).loss(logits, labels, torch.tensor([1.0, 2.0, 1.0]))
    copied, _ = binary(1.0, 0.5).loss(logits[[0, 1, 1, 2]], labels[[0, 1, 1, 2]])
    assert 3 * twice.item() == pytest.approx(4 * copied.item())


def mixed() -> Heads:
    return Heads({"a": Binary(), "b": Binary(weight=2.0), "c": Sloped(weight=0.5), "d": Sloped(), "e": Binary()})


def test_neighbours_that_are_alike_and_have_no_state_are_one_part():
    heads = mixed()
    assert list(heads.parts) == ["label_a", "label_c", "label_d", "label_e"] and heads.starts == [0, 2, 3, 4, 5]
    assert list(heads.state_dict()) == ["parts.label_c.slope", "parts.label_d.slope"]
    assert list(binary(1.0, 0.5, 2.0).parts) == ["label_t0"]


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_each_task_has_its_own_head(rows: int):
    torch.manual_seed(0)
    heads = mixed()
    logits, labels = torch.randn(rows, 5), torch.randint(0, 2, (rows, 5)).float()
    labels[:1, 1] = float("nan")
    losses, answers = heads.losses(logits, labels), heads(logits)
    for i, part in enumerate(("a", "a", "c", "d", "e")):
        head = heads.parts[f"label_{part}"]
        assert torch.equal(losses[:, i], head.losses(logits[:, i], labels[:, i]))
        assert torch.equal(answers[:, i], head.predict(logits[:, i]))
    total, (sums, known) = heads.loss(logits, labels, rows=4.0)
    torch.testing.assert_close(total, (losses.sum(0) * torch.tensor([1.0, 2.0, 0.5, 1.0, 1.0])).sum() / 4)
    assert torch.equal(sums, losses.sum(0).detach()) and known.tolist() == [rows, max(0, rows - 1), rows, rows, rows]


def test_what_is_served_scripts():
    heads = mixed()
    answers = Answers(heads.parts, heads.starts)
    logits = torch.randn(6, 5)
    assert torch.equal(torch.jit.script(answers)(logits), heads(logits))


def test_heads_leave_the_draws_of_the_rest_as_they_are():
    drawn = []
    for heads in (binary, lambda *_: mixed()):
        torch.manual_seed(3)
        heads(1.0, 1.0)
        drawn.append(torch.rand(2))
    assert torch.equal(*drawn)
