"""The arms of MetaCF's experiment, each with the settings that its tuning chooses from, the default first.

E episodes, N items, D width.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from metacf_data import UserSplit
from metacf_items import ease, factorise, fold_in, ials
from metacf_train import MetaConfig, Scorer, melu, meta_train, with_negatives
from torch import Tensor

from coldrank.modules.metacf import logistic_steps

Settings = dict[str, Any]


class Items:
    """Pre-trained item vectors of a split, each trained once. seed: seeds their first values."""

    def __init__(self, split: UserSplit, seed: int) -> None:
        self.split, self.seed = split, seed
        self.vectors: dict[tuple[str, int, float], Tensor] = {}
        self.ours: dict[str, Scorer] = {}

    def __call__(self, loss: str, epochs: int, l2: float) -> Tensor:
        """Vectors of the paper's width, float32 [N, 32]."""
        key = (loss, epochs, l2)
        if key not in self.vectors:
            self.vectors[key] = factorise(self.split.pretrain, loss, dim=32, epochs=epochs, l2=l2, seed=self.seed)
        return self.vectors[key]


Fit = Callable[[Items, Settings], Scorer]


@dataclass(frozen=True)
class TunedArm:
    """An arm of the experiment."""

    fit: Fit
    """Trains it on a split."""
    space: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Setting -> the values that its tuning chooses from."""
    tuned_as: str = ""
    """The arm whose tuned settings it takes; empty: its own."""
    fixed: Settings = field(default_factory=dict)
    """What it changes in them."""


def rated(support: Tensor, count: int) -> Tensor:
    """Supports as rows of 0 and 1, float32 [E, N]."""
    row = torch.zeros(len(support), count + 1)
    return row.scatter_(1, support % (count + 1), 1.0)[:, :-1]


def popularity(items: Items, _: Settings) -> Scorer:
    """All known records, counted."""
    counts = items.split.known.sum(0)
    return lambda support: counts.expand(len(support), -1)


def ease_arm(items: Items, s: Settings) -> Scorer:
    """EASE on all known records; the support is a new row."""
    weights = ease(items.split.known, s["l2"])
    return lambda support: rated(support, len(weights)) @ weights


def ials_arm(items: Items, s: Settings) -> Scorer:
    """iALS on all known records; a new user is folded in."""
    q = ials(items.split.known, dim=s["dim"], alpha=s["alpha"], l2=s["l2"], seed=items.seed)
    return lambda support: fold_in(rated(support, len(q)), q, s["alpha"], s["l2"]) @ q.T


def zero(items: Items, s: Settings) -> Scorer:
    """No meta-learning: gradient steps from zero, on the pre-trained items."""
    q, generator = items("bce", *s["pretrained"]), torch.Generator().manual_seed(items.seed)
    rates = torch.full((s["steps"],), s["rate"])

    def score(support: Tensor) -> Tensor:
        chosen, labels, weights = with_negatives(support, len(q), generator)
        return logistic_steps(torch.zeros(len(support), q.shape[1]), q[chosen], labels, weights, rates) @ q.T

    return score


def bpr(items: Items, s: Settings) -> Scorer:
    """BPR's items, and BPR's steps from zero for a new user: -log sigmoid(p . (q_i - q_j)) over random j."""
    q, generator = items("bpr", *s["pretrained"]), torch.Generator().manual_seed(items.seed)
    rates = torch.full((s["steps"],), s["rate"])

    def score(support: Tensor) -> Tensor:
        chosen, _, weights = with_negatives(support, len(q), generator)
        length = support.shape[1]
        pairs = q[chosen[:, :length]].repeat(1, 3, 1) - q[chosen[:, length:]]
        # A record's pairs count, those of padding don't; every pair's label is 1.
        valid = weights[:, length:]
        return logistic_steps(torch.zeros(len(support), q.shape[1]), pairs, valid, valid, rates) @ q.T

    return score


def melu_arm(items: Items, s: Settings) -> Scorer:
    """MeLU on the same pre-trained items."""
    q = items("bce", *s["pretrained"])
    return melu(items.split, q, hidden=32, steps=5, rate=s["rate"], lr=s["lr"], epochs=s["epochs"], seed=items.seed)


def metacf(base: MetaConfig, items: Items, s: Settings) -> Scorer:
    """MetaCF, as `base` and the settings say."""
    config = replace(base, **{name: value for name, value in s.items() if name != "pretrained"})
    return meta_train(items.split, items("bce", *s["pretrained"]), config, items.seed)


def fit_ours(items: Items, s: Settings) -> Scorer:
    """MetaCF as `OURS` has it, trained once for each split and settings."""
    key = json.dumps(s, sort_keys=True)
    if key not in items.ours:
        items.ours[key] = metacf(OURS, items, s)
    return items.ours[key]


def with_ease(items: Items, s: Settings) -> Scorer:
    """Scores of our MetaCF, standardised per user, times `weight`, and those of EASE."""
    parts = (fit_ours(items, DEFAULTS), ease_arm(items, {"l2": s["l2"]}))
    mine, theirs = (lambda x, f=f: _standard(f(x)) for f in parts)
    return lambda support: s["weight"] * mine(support) + theirs(support)


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)


PRETRAINED = ((40, 1e-2), (80, 1e-2), (40, 3e-2))  # epochs, l2
META = {"pretrained": PRETRAINED, "rate": (2e-3, 0.02, 0.1), "lr": (1e-3, 3e-3), "epochs": (50, 100)}
OURS = MetaConfig(
    hidden=128, learn_rates=True, rate=0.05, lr=1e-3, epochs=60, outer="softmax", replay=True, negatives=20
)
DEFAULTS = {"pretrained": PRETRAINED[0], "query": 0, "hidden": 128, "epochs": 60}  # the first of each

ARMS: dict[str, TunedArm] = {
    "popularity": TunedArm(popularity),
    "bpr": TunedArm(bpr, {"pretrained": PRETRAINED, "rate": (0.05, 0.2, 0.01), "steps": (50, 20)}),
    "bpr_5": TunedArm(bpr, tuned_as="bpr", fixed={"steps": 5}),
    "melu": TunedArm(melu_arm, {"pretrained": PRETRAINED, "rate": (2e-3, 0.02), "lr": (1e-3, 3e-3), "epochs": (5, 15)}),
    "zero_50": TunedArm(zero, {"pretrained": PRETRAINED, "rate": (0.05, 0.01, 0.2), "steps": (50,)}),
    "ials": TunedArm(ials_arm, {"dim": (32, 16), "alpha": (0.3, 0.1, 1.0), "l2": (0.01, 0.006, 0.015)}),
    "ease": TunedArm(ease_arm, {"l2": (2e4, 5e3, 4e4, 8e4)}),
    **{
        f"metacf_{learner}": TunedArm(partial(metacf, MetaConfig(learner=learner)), META)  # type: ignore[arg-type]
        for learner in ("general", "linear", "neural")
    },
    "ours": TunedArm(fit_ours, {"pretrained": PRETRAINED, "query": (0, 40), "hidden": (128, 512), "epochs": (60, 30)}),
    "ours_and_ease": TunedArm(with_ease, {"weight": (1.0, 2.0, 0.5, 4.0), "l2": (2e4,)}),
    "ours_logistic": TunedArm(fit_ours, tuned_as="ours", fixed={"outer": "bce"}),
    "ours_no_replay": TunedArm(fit_ours, tuned_as="ours", fixed={"replay": False}),
    "ours_no_steps": TunedArm(fit_ours, tuned_as="ours", fixed={"steps": 0}),
    "ours_narrow": TunedArm(fit_ours, tuned_as="ours", fixed={"hidden": 32}),
}
STEPS = {
    f"{name}_k{steps}": TunedArm(ARMS[name].fit, tuned_as=name, fixed={"steps": steps})
    for name in ("metacf_general", "metacf_linear", "metacf_neural")
    for steps in (1, 2, 3, 4)
}
ALL = ARMS | STEPS
