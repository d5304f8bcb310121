"""Arms on KuaiRand, and on the simulator, which writes the same layout: `coldrank train --config
coldrank.configs.kuairand:poso`.

AVC is an ordinary input of every arm, so that a gain of POSO's is not the feature's. The controls at the end say what
else a gain could be.
"""

from dataclasses import replace

from coldrank.configs import base as parts
from coldrank.models.features import Feature, Table
from coldrank.models.heads import Binary, Regression
from coldrank.models.ranker import Ranker
from coldrank.train.config import RunConfig
from coldrank.train.sections import DataConfig, DenseConfig, OptimConfig, TablesConfig, TrainConfig

# Nothing tried gains over it where user ids are learnt (docs/results.md).
DEFAULT = "base"
HISTORY = 50
TASKS = ("long_view", "finish_view", "like", "follow", "click")
# Tasks with enough positives for sixteen buckets of a rate.
DENSE_TASKS = ("long_view", "finish_view", "like", "click")
GROUPS = (
    "user",
    "item",
    "author",
    "tag",
    "music",
    "user_x_author",
    "user_x_tag",
    "user_x_duration",
    "user_x_item",
)
USER_CATEGORIES = (
    "active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{i}" for i in range(18)),
)
USER_COUNTS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")


def features(history: int = HISTORY) -> tuple[Feature, ...]:
    """Every input of the base: ids, categories, counts, as-of-time rates, and the history with its signals."""
    categories = [f"user_{c}" for c in USER_CATEGORIES]
    return (
        Feature(name="user_id", role="user", kind="id", table="user"),
        *(Feature(name=c, role="user", kind="id", table="user_category", salted=True, default=-1) for c in categories),
        *(Feature(name=f"user_{c}", role="user", kind="number", transform="log1p") for c in USER_COUNTS),
        Feature(name="item_id", role="item", kind="id", table="item"),
        Feature(name="item_author_id", role="item", kind="id", table="author", default=-1),
        Feature(name="item_music_id", role="item", kind="id", table="music", default=-1),
        Feature(name="item_tags", role="item", kind="id", table="tag", many=True),
        Feature(name="item_upload_type", role="item", kind="id", table="item_category", salted=True, default=-1),
        Feature(name="item_music_type", role="item", kind="id", table="item_category", salted=True, default=-1),
        Feature(name="item_duration_s", role="item", kind="number", transform="log1p"),
        Feature(name="item_duration_bucket", column="item_duration_s", role="item", kind="bucket", buckets=32, dim=8),
        Feature(name="item_age_h", role="item", kind="bucket", buckets=16, dim=4),
        Feature(name="tab", role="context", kind="id", table="context", salted=True, default=-1),
        Feature(name="hour", role="context", kind="id", table="context", salted=True, default=-1),
        Feature(name="user_gap_h", role="context", kind="bucket", buckets=32, dim=4),
        *parts.counts(["user_views", "item_views"], dim=8),
        *parts.counts([f"views_{g}" for g in GROUPS if g not in ("user", "item")]),
        *parts.rates(GROUPS, TASKS),
        *parts.rate_buckets(GROUPS, DENSE_TASKS, buckets=16, dim=4),
        *parts.history(history, {"hist_item_id": "item", "hist_tag": "tag"}, ("long_view", "like", "click")),
        parts.personalization_code("user_views", dim=8),
    )


def tables() -> tuple[Table, ...]:
    """Users, items and authors have rows of their own when seen twice in training; small categories are hashed
    together."""
    return (
        Table(name="user", rows=32_768, dim=16, mapping="vocabulary", min_count=2),
        Table(name="item", rows=16_384, dim=16, mapping="vocabulary", min_count=2),
        Table(name="author", rows=8_192, dim=8, mapping="vocabulary", min_count=2),
        Table(name="music", rows=8_192, dim=8, mapping="vocabulary", min_count=2),
        Table(name="tag", rows=1_024, dim=8),
        Table(name="user_category", rows=8_192, dim=4),
        Table(name="item_category", rows=256, dim=4),
        Table(name="context", rows=256, dim=4),
    )


def base() -> RunConfig:
    """The plain ranker: MHA over the history, MMoE, towers."""
    return RunConfig(
        name="base",
        tasks={task: Binary() for task in TASKS},
        features=features(),
        tables=tables(),
        model=Ranker(
            heads=4, head_dim=8, positions=True, experts=8, expert_hidden=(128, 64), tower_hidden=(32,), dropout=0.1
        ),
        data=DataConfig(batch_size=512),
        optim=OptimConfig(
            tables=TablesConfig(lr=0.05), dense=DenseConfig(lr=1.8e-3, gate_lr_scale=3.0), decay="linear"
        ),
        train=TrainConfig(epochs=1),
    )


def poso_mha() -> RunConfig:
    """POSO(MHA) alone."""
    return parts.poso_mha(base())


def poso_mmoe() -> RunConfig:
    """POSO(MMoE) alone."""
    return parts.poso_mmoe(base())


def poso_mlp() -> RunConfig:
    """POSO(MLP) towers alone."""
    return parts.poso_mlp(base())


def poso() -> RunConfig:
    """All POSO parts."""
    return parts.poso(base())


def base_without_avc() -> RunConfig:
    """Control: no ordinary input tells how much was seen of the user."""
    return parts.without_avc(base())


def poso_avc_in_gates_only() -> RunConfig:
    """Control: the AVC as the gates' input only."""
    return parts.avc_in_gates_only(poso())


def poso_constant_pc() -> RunConfig:
    """Control: POSO's parameters without its personalization."""
    return parts.constant_pc(poso())


def base_wider() -> RunConfig:
    """Control: a plain base of as many dense parameters as `poso`."""
    config = base()
    return replace(config, name="base_wider", model=parts.ranker(config, expert_hidden=(131, 64)))


def pepnet() -> RunConfig:
    """Rival: PEPNet, whose gates read what they gate, and the ids of user and item."""
    return parts.pepnet(base())


def watch_time() -> RunConfig:
    """The base with the seconds watched as a task beside the others: ranked by XAUC, off by MAE."""
    config = base()
    tasks = config.tasks | {"watch_s": Regression(loss="huber", transform="log1p")}
    return replace(config, name="watch_time", tasks=tasks)


def base_metacf() -> RunConfig:
    """The base with the ID embeddings of new users adapted to their first views."""
    return parts.metacf(base())


def poso_metacf() -> RunConfig:
    """All POSO parts, and MetaCF."""
    return parts.metacf(poso())


def base_posterior() -> RunConfig:
    """The base with the ID embeddings of cold items as posterior means of their first views."""
    return parts.posterior(base())
