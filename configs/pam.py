"""Arms of PAM: a two-tower retrieval model on streams of periods; PF is the same model, fine-tuned period by period.

MovieLens: `coldrank prepare movielens --history 30 --item-history 30 --periods 31`.
"""

from dataclasses import replace

from coldrank.models.features import Feature, Table
from coldrank.models.two_tower import TwoTowerConfig
from coldrank.train.config import DataConfig, OptimConfig, RunConfig, TrainConfig
from coldrank.train.hooks.pam_config import PamConfig

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
        tasks={"satisfied": 1.0},
        features=features("tag"),
        tables=(
            Table(name="user", rows=8192, dim=DIM, mapping="growing"),
            Table(name="item", rows=4096, dim=DIM, mapping="growing"),
            Table(name="tag", rows=64, dim=DIM),
        ),
        two_tower=TwoTowerConfig(),
        data=DataConfig(batch_size=1024, eval_batch_size=1024, order="time"),
        optim=OptimConfig(sparse_lr=0.03, dense_lr=1e-3, table_init=0.05),
        train=TrainConfig(mode="periods", first_period="p25", look_back=(), checkpoint_every=0),
    )


def pf_balanced() -> RunConfig:
    """PF with the losses weighed as PAM weighs its tasks': the control that tells the inner loop's gain from the weights'."""
    weighing = PamConfig(steps=0, support=0.0, query_average="task")
    return replace(pf(), name="pf_balanced", hooks=("pam",), pam=weighing)


def pam_m() -> RunConfig:
    """Tasks by popularity and the inner loop, without the enhancer."""
    return replace(pf(), name="pam_m", hooks=("pam",))


def pam_s() -> RunConfig:
    """With the self-supervised instructor."""
    return _gamma(pam_m(), "pam_s", s=3.0)


def pam_a() -> RunConfig:
    """With data augmentation."""
    return _gamma(pam_m(), "pam_a", a=2.0)


def pam_f() -> RunConfig:
    """With both."""
    return _gamma(pam_m(), "pam_f", s=3.0, a=2.0)


def _gamma(base: RunConfig, name: str, *, s: float = 0.0, a: float = 0.0) -> RunConfig:
    return replace(base, name=name, pam=replace(base.pam, gamma=(1.0, s, a)))
