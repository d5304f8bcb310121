"""Each head against float64 references written from its equations, finite differences, edges and scripting."""

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coldrank.models.component import find
from coldrank.models.heads import Binary, Head, HeadModule, Ordinal, Regression

HEADS: dict[str, Head] = {
    "binary": Binary(),
    "mse": Regression(),
    "mse_log1p": Regression(transform="log1p"),
    "mae": Regression(loss="mae"),
    "mae_log1p": Regression(loss="mae", transform="log1p"),
    "huber": Regression(loss="huber", delta=0.7),
    "huber_log1p": Regression(loss="huber", transform="log1p"),
    "two_levels": Ordinal(2),
    "three_levels": Ordinal(3),
    "five_levels": Ordinal(5),
    "grades": Ordinal(4, lowest=0),
}


def some_labels(head: Head, rows: int) -> list[float]:
    """Right labels, of every kind that there is."""
    if isinstance(head, Binary):
        return [float(i % 2) for i in range(rows)]
    if isinstance(head, Ordinal):
        return [float(head.lowest + i % head.levels) for i in range(rows)]
    return [0.3 * i * i for i in range(rows)]


def built(head: Head, dtype: torch.dtype = torch.float64) -> HeadModule:
    """With parameters that are not as at first."""
    module = head.build().to(dtype)
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.add_(0.3 * torch.linspace(-1, 1, p.numel(), dtype=dtype).view(p.shape) + 0.1 * i)
    return module


def naive_thresholds(module: nn.Module) -> list[float]:
    found = [module.first.item()]  # type: ignore[union-attr, operator]
    for gap in module.gaps.tolist():  # type: ignore[union-attr, operator]
        found.append(found[-1] + math.log1p(math.exp(gap)) + 1e-6)
    return found


def naive_above(module: nn.Module, z: float) -> list[float]:
    """P(label above the k-th level), k = 0 to K."""
    return [1.0, *(1 / (1 + math.exp(t - z)) for t in naive_thresholds(module)), 0.0]


def naive_loss(head: Head, module: HeadModule, z: float, y: float) -> float:
    if isinstance(head, Binary):
        p = 1 / (1 + math.exp(-z))
        return -math.log(p if y == 1 else 1 - p)
    if isinstance(head, Ordinal):
        above = [
            1.0,
            *(1 / (1 + math.exp(t - z)) for t in naive_thresholds(module)),
            0.0,
        ]  # P(label above level k), k = 0..K
        level = int(y) - head.lowest
        return -math.log(above[level] - above[level + 1])
    assert isinstance(head, Regression)
    e = abs(z - (math.log(1 + y) if head.transform == "log1p" else y))
    if head.loss == "huber":
        return 0.5 * e * e if e <= head.delta else head.delta * (e - 0.5 * head.delta)
    return e * e if head.loss == "mse" else e


def naive_answer(head: Head, module: HeadModule, z: float) -> float:
    if isinstance(head, Binary):
        return 1 / (1 + math.exp(-z))
    if isinstance(head, Ordinal):
        above = naive_above(module, z)
        return sum((head.lowest + k) * (above[k] - above[k + 1]) for k in range(head.levels))
    assert isinstance(head, Regression)
    return math.exp(z) - 1 if head.transform == "log1p" else z


@pytest.mark.parametrize("name", HEADS)
def test_loss_and_answer_are_those_of_the_equations(name: str) -> None:
    head = HEADS[name]
    module, labels = built(head), some_labels(head, 30)
    logits = torch.linspace(-4, 4, 30, dtype=torch.float64)
    logits = logits[torch.randperm(30, generator=torch.Generator().manual_seed(1))]
    losses, answers = module.losses(logits, torch.tensor(labels, dtype=torch.float64)), module.predict(logits)
    for i, z in enumerate(logits.tolist()):
        assert losses[i].item() == pytest.approx(naive_loss(head, module, z, labels[i]), rel=1e-9, abs=1e-12)
        assert answers[i].item() == pytest.approx(naive_answer(head, module, z), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", HEADS)
def test_gradients_are_finite_differences(name: str) -> None:
    head = HEADS[name]
    module = built(head)
    labels = torch.tensor(some_labels(head, 8), dtype=torch.float64)
    logits = torch.tensor([-2.3, -0.4, 0.9, 1.7, 0.2, -1.1, 3.1, 0.5], dtype=torch.float64, requires_grad=True)
    names, parameters = list(dict(module.named_parameters())), list(module.parameters())

    def losses(z: Tensor, *changed: Tensor) -> Tensor:
        with (
            torch.nn.utils.parametrize.cached() if not names else _with(module, dict(zip(names, changed, strict=True)))
        ):
            return module.losses(z, labels)

    assert torch.autograd.gradcheck(losses, (logits, *parameters))
    smooth = not (isinstance(head, Regression) and head.loss != "mse")
    if smooth:  # PAM's inner loop takes the gradient of a gradient
        assert torch.autograd.gradgradcheck(losses, (logits, *parameters))


class _with:
    """Other parameters in a module for a while."""

    def __init__(self, module: nn.Module, changed: dict[str, Tensor]) -> None:
        self.module, self.changed = module, changed

    def __enter__(self) -> None:
        self.kept = {name: self.module._parameters[name] for name in self.changed}
        self.module._parameters.update(self.changed)  # type: ignore[arg-type]

    def __exit__(self, *_: object) -> None:
        self.module._parameters.update(self.kept)


@pytest.mark.parametrize("name", HEADS)
def test_an_unknown_label_has_no_loss_and_no_gradient(name: str) -> None:
    head = HEADS[name]
    module = built(head, torch.float32)
    labels = torch.tensor(some_labels(head, 6))
    logits = torch.linspace(-60, 60, 6, requires_grad=True)
    some = labels.clone()
    some[[0, 3]] = float("nan")
    losses = module.losses(logits, some)
    assert losses[0] == losses[3] == 0 and torch.isfinite(losses).all()
    known = [1, 2, 4, 5]
    inputs = [logits, *module.parameters()]
    ours = torch.autograd.grad(losses.sum(), inputs)
    assert not ours[0][[0, 3]].any()
    for a, b in zip(ours, torch.autograd.grad(module.losses(logits[known], labels[known]).sum(), inputs), strict=True):
        torch.testing.assert_close(a, b)
    nothing = torch.autograd.grad(module.losses(logits, torch.full((6,), float("nan"))).sum(), inputs)
    assert not any(g.any() for g in nothing), "all take part, with nothing"


@pytest.mark.parametrize("name", HEADS)
def test_every_element_is_by_itself_in_any_shape(name: str) -> None:
    head = HEADS[name]
    module, labels = built(head, torch.float32), torch.tensor(some_labels(head, 12))
    logits = torch.randn(12, generator=torch.Generator().manual_seed(0))
    losses, answers = module.losses(logits, labels), module.predict(logits)
    for shape in ((3, 4), (12, 1), (2, 2, 3)):
        assert torch.equal(module.losses(logits.view(shape), labels.view(shape)), losses.view(shape))
        assert torch.equal(module.predict(logits.view(shape)), answers.view(shape))
    assert module.losses(logits[:0], labels[:0]).shape == module.predict(logits[:0]).shape == (0,)
    torch.testing.assert_close(module.losses(logits[5:6], labels[5:6]), losses[5:6])


class _Both(nn.Module):
    def __init__(self, head: HeadModule) -> None:
        super().__init__()
        self.head = head

    def forward(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.head.losses(logits, labels), self.head.predict(logits)


@pytest.mark.parametrize("name", HEADS)
def test_scripted_equals_eager(name: str) -> None:
    head = HEADS[name]
    both, labels = _Both(built(head, torch.float32)), torch.tensor([*some_labels(head, 9), float("nan")])
    logits = torch.randn(10, generator=torch.Generator().manual_seed(2))
    for ours, theirs in zip(torch.jit.script(both)(logits, labels), both(logits, labels), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", HEADS)
def test_far_logits_are_finite(name: str) -> None:
    head = HEADS[name]
    module = head.build()
    labels, logits = torch.tensor(some_labels(head, 6)), torch.tensor([-80.0, 80.0] * 3, requires_grad=True)
    losses = module.losses(logits, labels)
    assert torch.isfinite(losses).all() and torch.isfinite(module.predict(logits)).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(losses.sum(), [logits, *module.parameters()]))


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_its_json(name: str) -> None:
    head = replace(HEADS[name], weight=0.25)
    values = json.loads(json.dumps(head.to_json()))
    kind = find(Head, values.pop("kind"))
    assert kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}) == head


def test_levels_begin_alike_and_thresholds_ascend() -> None:
    for levels in (2, 3, 5, 30):
        head = Ordinal(levels)
        module = head.build()
        labels = torch.arange(1.0, levels + 1)
        torch.testing.assert_close(
            torch.exp(-module.losses(torch.zeros(levels), labels)), torch.full((levels,), 1 / levels)
        )
        assert module.predict(torch.zeros(())).item() == pytest.approx((levels + 1) / 2)
        thresholds = naive_thresholds(module)
        assert thresholds == sorted(thresholds) and len(thresholds) == levels - 1
    with torch.no_grad():
        module.gaps.fill_(-90.0)  # type: ignore[union-attr, operator]
    assert torch.isfinite(module.losses(torch.zeros(30), labels)).all(), "no level is impossible"


def test_two_levels_are_a_binary_task() -> None:
    z, y = torch.linspace(-3, 3, 7), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    ordinal, binary = Ordinal(2, lowest=0).build(), Binary().build()
    torch.testing.assert_close(ordinal.losses(z, y), binary.losses(z, y))
    torch.testing.assert_close(ordinal.predict(z), binary.predict(z))


@pytest.mark.parametrize(
    ("head", "labels", "wrong"),
    [
        (Binary(), [0, 1, 0.5, -1, 2], [0, 0, 1, 1, 1]),
        (Ordinal(5), [1, 5, 0, 6, 2.5, 3], [0, 0, 1, 1, 1, 0]),
        (Ordinal(3, lowest=0), [0, 2, 3, -1], [0, 0, 1, 1]),
        (Regression(), [-3, 0, 1e9], [0, 0, 0]),
        (Regression(transform="log1p"), [-3, -0.5, 0, 1e9], [1, 1, 0, 0]),
    ],
)
def test_labels_that_cannot_be(head: Head, labels: list[float], wrong: list[int]) -> None:
    found, why = head.label_problem(np.array(labels, np.float32))
    assert found.tolist() == [bool(w) for w in wrong] and (why or not any(wrong))


def test_a_fit_of_each_finds_what_made_the_labels() -> None:
    """Logits of one number per group of rows: the answer is what the loss calls best of the group."""
    groups = {1: [0.0, 0.0, 8.0], 2: [3.0, 4.0, 20.0]}
    best: dict[str, Callable[[list[float]], float]] = {
        "mse": lambda y: sum(y) / 3,
        "mae": lambda y: sorted(y)[1],
        "log": lambda y: math.exp(sum(math.log1p(v) for v in y) / 3) - 1,
    }
    for name, head in {
        "mse": Regression(),
        "mae": Regression(loss="mae"),
        "log": Regression(transform="log1p"),
    }.items():
        module, z = head.build(), torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.Adam([z], lr=0.5)
        for step in range(600):
            optimizer.param_groups[0]["lr"] = 0.5 * 0.99**step
            optimizer.zero_grad()
            module.losses(z.repeat_interleave(3), torch.tensor([*groups[1], *groups[2]])).sum().backward()
            optimizer.step()
        assert module.predict(z).tolist() == pytest.approx([best[name](y) for y in groups.values()], abs=0.05)
