"""The arms of MetaCF's experiment, each with the settings that its tuning chooses from, the default first.

E episodes, N items, D width.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from metacf_bpr import BprConfig, bpr
from metacf_data import RatingLog, UserSplit
from metacf_items import Factors, ease, factorise, fold_in, ials
from metacf_train import MetaConfig, Scorer, melu, meta_train
from torch import Tensor

Settings = dict[str, Any]


class Items:
    """What is fitted on a split, each once. seed: seeds first values."""

    def __init__(self, split: UserSplit, seed: int) -> None:
        self.split, self.seed = split, seed
        self.vectors: dict[str, Factors] = {}
        self.fitted: dict[str, Scorer] = {}

    def __call__(self, loss: str, epochs: int, l2: float, dim: int = 32) -> Tensor:
        """Pre-trained vectors of the items, float32 [N, D], of the paper's width by default."""
        return self.factors(loss, epochs, l2, dim=dim).items

    def factors(
        self,
        loss: str,
        epochs: int,
        l2: float,
        *,
        dim: int,
        bias: bool = False,
        negatives: int = 0,
        known: bool = False,
    ) -> Factors:
        """Pre-trained vectors of users and items. known: on the records of meta-training, too."""
        key = repr((loss, epochs, l2, dim, bias, negatives, known))
        if key not in self.vectors:
            log = RatingLog.of(self.split.known) if known else self.split.pretrain
            self.vectors[key] = factorise(
                log, loss, dim=dim, epochs=epochs, l2=l2, seed=self.seed, bias=bias, negatives=negatives
            )
        return self.vectors[key]

    def fit(self, name: str, settings: Settings) -> Scorer:
        """The arm of ALL with these settings."""
        key = json.dumps([name, settings], sort_keys=True)
        if key not in self.fitted:
            self.fitted[key] = ALL[name].fit(self, settings)
        return self.fitted[key]


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
    parts: tuple[str, ...] = ()
    """The arms that it is made of, whose tuned settings it gets under their names."""


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


def melu_arm(items: Items, s: Settings) -> Scorer:
    """MeLU on the same pre-trained items."""
    q = items("bce", *s["pretrained"])
    return melu(items.split, q, hidden=32, steps=5, rate=s["rate"], lr=s["lr"], epochs=s["epochs"], seed=items.seed)


def metacf(base: MetaConfig, items: Items, s: Settings) -> Scorer:
    """MetaCF, as `base` and the settings say."""
    config = replace(base, **{name: value for name, value in s.items() if name not in ("pretrained", "width")})
    return meta_train(items.split, items("bce", *s["pretrained"], s.get("width", 32)), config, items.seed)


def ours_arm(items: Items, s: Settings) -> Scorer:
    """MetaCF as `OURS` has it."""
    return metacf(OURS, items, s)


def both(first: str, second: str, items: Items, s: Settings) -> Scorer:
    """Scores of one arm, standardised per user, times `weight`, and those of another."""
    mine, theirs = (items.fit(name, s[name]) for name in (first, second))
    return lambda support: s["weight"] * _standard(mine(support)) + _standard(theirs(support))


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)


PRETRAINED = ((40, 1e-2), (80, 1e-2), (40, 3e-2))  # epochs, l2
META = {"pretrained": PRETRAINED, "rate": (2e-3, 0.02, 0.1), "lr": (1e-3, 3e-3), "epochs": (50, 100)}
OURS = MetaConfig(
    hidden=128, learn_rates=True, rate=0.05, lr=1e-3, epochs=60, outer="softmax", replay=True, negatives=20
)
WEIGHTS = {"weight": (1.0, 2.0, 0.5, 4.0)}
OURS_AND_EASE, EASE_AND_IALS = ("ours", "ease"), ("ease", "ials")

ARMS: dict[str, TunedArm] = {
    "popularity": TunedArm(popularity),
    "bpr": TunedArm(
        partial(bpr, BprConfig(pairs=True, redraw=False)),
        {"pretrained": PRETRAINED, "rate": (0.05, 0.2, 0.01), "steps": (50, 20)},
    ),
    "bpr_5": TunedArm(partial(bpr, BprConfig(pairs=True, redraw=False)), tuned_as="bpr", fixed={"steps": 5}),
    "bpr_tuned": TunedArm(
        partial(bpr, BprConfig()),
        {
            "pretrained": (*PRETRAINED[:2], (40, 3e-3)),
            "rate": (0.05, 0.02),
            "steps": (50, 100),
            "bias": (False, True),
        },
    ),
    "melu": TunedArm(melu_arm, {"pretrained": PRETRAINED, "rate": (2e-3, 0.02), "lr": (1e-3, 3e-3), "epochs": (5, 15)}),
    "zero_50": TunedArm(
        partial(bpr, BprConfig(redraw=False)), {"pretrained": PRETRAINED, "rate": (0.05, 0.01, 0.2), "steps": (50,)}
    ),
    "ials": TunedArm(ials_arm, {"dim": (32, 16), "alpha": (0.3, 0.1, 1.0), "l2": (0.01, 0.006, 0.015)}),
    "ease": TunedArm(ease_arm, {"l2": (2e4, 5e3, 4e4, 8e4)}),
    **{
        f"metacf_{learner}": TunedArm(partial(metacf, MetaConfig(learner=learner)), META)  # type: ignore[arg-type]
        for learner in ("general", "linear", "neural")
    },
    "ours": TunedArm(ours_arm, {"pretrained": PRETRAINED, "query": (0, 40), "hidden": (128, 512), "epochs": (60, 30)}),
    "ease_and_ials": TunedArm(partial(both, *EASE_AND_IALS), WEIGHTS, parts=EASE_AND_IALS),
    "ease_and_ials_equal": TunedArm(partial(both, *EASE_AND_IALS), fixed={"weight": 1.0}, parts=EASE_AND_IALS),
    "ours_and_ease": TunedArm(partial(both, *OURS_AND_EASE), WEIGHTS, parts=OURS_AND_EASE),
    "ours_logistic": TunedArm(ours_arm, tuned_as="ours", fixed={"outer": "bce"}),
    "ours_no_replay": TunedArm(ours_arm, tuned_as="ours", fixed={"replay": False}),
    "ours_no_steps": TunedArm(ours_arm, tuned_as="ours", fixed={"steps": 0}),
    "ours_narrow": TunedArm(ours_arm, tuned_as="ours", fixed={"hidden": 32}),
    "bpr_tuned_64": TunedArm(partial(bpr, BprConfig(width=64)), tuned_as="bpr_tuned"),
    "metacf_neural_64": TunedArm(partial(metacf, MetaConfig()), tuned_as="metacf_neural", fixed={"width": 64}),
    "ours_64": TunedArm(ours_arm, tuned_as="ours", fixed={"width": 64}),
}
STEPS = {
    f"{name}_k{steps}": TunedArm(ARMS[name].fit, tuned_as=name, fixed={"steps": steps})
    for name in ("metacf_general", "metacf_linear", "metacf_neural")
    for steps in (1, 2, 3, 4)
}
ALL = ARMS | STEPS
