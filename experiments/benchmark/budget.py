"""What fits into a given time: fewer trials, then fewer seeds, then a share of a pass.

A short run of the base tells what a run costs. Every method is taken to cost as much.
"""

import re
from dataclasses import dataclass, replace

from coldrank.data.errors import UserError

_UNITS = {"s": 1, "m": 60, "h": 3600}
FEWEST_SEEDS = 2
# Of a pass; less tells nothing of a method.
LEAST_SHARE = 0.05


def seconds_of(text: str) -> float:
    """`1h`, `30m`, `90s` or `1.5h` as seconds. Raises UserError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match or not float(match[1]):
        raise UserError(f"--budget {text}: write 90s, 30m or 1h")
    return float(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Of a run, in seconds."""

    fixed: float
    """Of whatever is no step: starting, fitting the encoder, evaluating."""
    step: float
    """Of a step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetPlan:
    """What every method gets."""

    trials: int
    """Settings that are tried; with 1 the method is as it is, and nothing is searched."""
    seeds: int
    """Runs that are reported."""
    share: float = 1.0
    """Of its steps that a run trains for."""
    cut: tuple[str, ...] = ()
    """What a budget took, in words."""
    seconds: float | None = None
    """What it was to take; None: nobody asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What there is to do, but for how much of it."""

    arms: int
    """Methods, and the base."""
    trial_steps: int
    """Of a trial of the base."""
    steps: int
    """Of a reported run of the base."""
    at_once: int
    """Runs side by side."""

    def seconds(self, plan: BudgetPlan, cost: Cost) -> float:
        """How long a plan takes: trials and reported runs side by side, leak tests one by one."""
        trials = plan.trials if plan.trials > 1 else 0
        fixed = (trials + plan.seeds) * cost.fixed
        steps = trials * self.trial_steps + plan.seeds * self.steps
        return self.arms * ((fixed + plan.share * steps * cost.step) / self.at_once + cost.fixed)


def fit(asked: BudgetPlan, work: Work, cost: Cost, budget: float, *, can_be_cut: bool) -> BudgetPlan:
    """The plan cut until it fits. Raises UserError where the least of it does not.

    can_be_cut: whether a share of a pass may be taken.
    """
    plan, cut = asked, []
    while work.seconds(plan, cost) > budget and plan.trials > 1:
        plan = replace(plan, trials=plan.trials - 1)
    while work.seconds(plan, cost) > budget and plan.seeds > FEWEST_SEEDS:
        plan = replace(plan, seeds=plan.seeds - 1)
    if work.seconds(plan, cost) > budget:
        none = work.seconds(replace(plan, share=0.0), cost)
        share = (budget - none) / (work.seconds(plan, cost) - none)
        if not can_be_cut or share < LEAST_SHARE:
            least = work.seconds(replace(plan, share=LEAST_SHARE) if can_be_cut else plan, cost)
            raise UserError(
                f"--budget: {work.arms} methods with {plan.seeds} seeds, nothing tuned"
                f"{f' and a share of {LEAST_SHARE:g} of a pass' if can_be_cut else ''}, take about {round(least):,} s; "
                "give more, or fewer --methods"
            )
        plan = replace(plan, share=int(share * 100) / 100)
    for name in ("trials", "seeds"):
        if getattr(plan, name) < getattr(asked, name):
            cut.append(f"{name}: {getattr(plan, name)} in place of {getattr(asked, name)}")
    if plan.share < 1:
        cut.append(f"every run trains for {plan.share:.0%} of its steps")
    return replace(plan, cut=tuple(cut), seconds=round(work.seconds(plan, cost), 1))
