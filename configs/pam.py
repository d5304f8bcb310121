"""Arms of PAM: a two-tower retrieval model on streams of periods; PF is the same model, fine-tuned period by period.

MovieLens: `coldrank prepare movielens --history 30 --item-history 30 --periods 31`. The figures: docs/results/pam.md.
"""

from dataclasses import replace
from typing import Any

from coldrank.models.features import Feature, Table
from coldrank.models.heads import Binary
from coldrank.models.two_tower import TwoTower
from coldrank.train.config import RunConfig
from coldrank.train.hooks.pam import Pam
from coldrank.train.sections import DataConfig, DenseConfig, OptimConfig, TablesConfig, TrainConfig

DIM = 8


def features(tag: str) -> tuple[Feature, ...]:
    """The paper's: the user, its last items and their categories; the item, its categories and its last users."""
    return (
        Feature(name="user_id", role="user", kind="id", table="user"),
        Feature(name="hist_item_id", role="user", kind="id", table="item", many=True),
        Feature(name=f"hist_{tag}", role="user", kind="id", table="tag", many=True),
        Feature(name="item_id", role="item", kind="id", table="item"),
        Feature(name=f"item_{tag}s", role="item", kind="id", table="tag", many=True),
        Feature(name="item_hist_user_id", role="item", kind="id", table="user", many=True),
    )


def pf() -> RunConfig:
    """Periodical fine-tuning: every period is trained on once, in order of time. The first 24 of 31 are not scored."""
    return RunConfig(
        name="pf",
        tasks={"satisfied": Binary()},
        features=features("tag"),
        tables=(
            Table(name="user", rows=8192, dim=DIM, mapping="growing"),
            Table(name="item", rows=4096, dim=DIM, mapping="growing"),
            Table(name="tag", rows=64, dim=DIM),
        ),
        model=TwoTower(same_user=False),
        data=DataConfig(batch_size=1024, eval_batch_size=1024, order="time"),
        optim=OptimConfig(tables=TablesConfig(lr=0.3, init=0.05), dense=DenseConfig(lr=4e-3)),
        train=TrainConfig(mode="periods", first_period="p25", look_back=(), checkpoint_every=0),
    )


def pf_balanced() -> RunConfig:
    """PF with the losses weighed as PAM weighs its groups': the control that tells the inner loop's gain from the
    weights'."""
    return balanced(pf())


def pf_towers() -> RunConfig:
    """PF with towers of its own for every popularity group: the control that tells the gain of adapting from that of
    more weights."""
    return own_towers(pf())


def pf_enhanced() -> RunConfig:
    """`pf_balanced` with the enhancer: both of PAM's losses for cold items, and nothing adapted."""
    settings = Pam(steps=0, support=0.0, gamma=(1.0, 3.0, 2.0))
    return replace(pf(), name="pf_enhanced", hooks=(settings,))


def pam_m() -> RunConfig:
    """Tasks by popularity and the inner loop, without the enhancer."""
    return meta(pf(), "pam_m")


def pam_s() -> RunConfig:
    """With the self-supervised instructor."""
    return meta(pf(), "pam_s", gamma=(1.0, 3.0, 0.0))


def pam_a() -> RunConfig:
    """With data augmentation."""
    return meta(pf(), "pam_a", gamma=(1.0, 0.0, 2.0))


def pam_f() -> RunConfig:
    """With both."""
    return meta(pf(), "pam_f", gamma=(1.0, 3.0, 2.0))


def pam_previous() -> RunConfig:
    """Tasks adapt to the batch before, and learn from every row with equal weights; no enhancer."""
    return previous(pf())


def pam_previous_balanced() -> RunConfig:
    """The same with PAM's weights: beside `pf_balanced` it tells what adapting adds."""
    return meta(pf(), "pam_previous_balanced", support_of="previous")


def balanced(base: RunConfig) -> RunConfig:
    """Weights of the groups, and nothing adapted."""
    return replace(base, name="pf_balanced", hooks=(Pam(steps=0, support=0.0),))


def own_towers(base: RunConfig) -> RunConfig:
    """Towers of every group, equal weights, and nothing adapted."""
    settings = Pam(steps=0, support=0.0, own=True, cold_weight=1.0, other_weight=1.0)
    return replace(base, name=f"{base.name}_towers", hooks=(settings,))


def meta(base: RunConfig, name: str, **settings: Any) -> RunConfig:
    """PAM on PF."""
    return replace(base, name=name, hooks=(Pam(candidates="set", **settings),))


def previous(base: RunConfig) -> RunConfig:
    """PAM that trains as it serves."""
    return meta(base, "pam_previous", support_of="previous", cold_weight=1.0, other_weight=1.0)
