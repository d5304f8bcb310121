"""Arms of the warm-up experiments (docs/mwuf.md): four models of users and items as they are, without anything counted
over time.

What the data counts (views, rates, histories) would tell of events of the new items that the phase does not know yet.
"""

from dataclasses import replace

from coldrank.models.deepfm import DeepFM
from coldrank.models.features import Feature, Table
from coldrank.models.heads import Binary
from coldrank.train.config import RunConfig
from coldrank.train.sections import DataConfig, DenseConfig, OptimConfig, TrainConfig

DIM = 16


def movielens() -> RunConfig:
    """MovieLens-1M: at least four stars or not."""
    model = DeepFM(tower_hidden=(16, 16), dropout=0.2)
    categories = [f"user_{c}" for c in ("gender", "age", "occupation")]
    return RunConfig(
        name="deepfm",
        tasks={"satisfied": Binary()},
        features=(
            Feature(name="user_id", role="user", kind="id", table="user"),
            *(Feature(name=c, role="user", kind="id", table="category", salted=True) for c in categories),
            Feature(name="item_id", role="item", kind="id", table="item"),
            Feature(name="item_year", role="item", kind="id", table="category", salted=True),
            Feature(name="item_tags", role="item", kind="id", table="tag", many=True),
        ),
        tables=(
            Table(name="user", rows=8_192, dim=DIM, mapping="vocabulary"),
            Table(name="item", rows=4_096, dim=DIM, mapping="vocabulary"),
            Table(name="tag", rows=1_024, dim=DIM),
            Table(name="category", rows=4_096, dim=DIM),
        ),
        model=model,
        data=DataConfig(fit=("old",), evaluate="test", batch_size=2048),
        optim=OptimConfig(dense=DenseConfig(lr=1e-3, weight_decay=1e-6)),
        train=TrainConfig(epochs=1),
    )


def kuairand() -> RunConfig:
    """KuaiRand-Pure: a long view or not."""
    config = movielens()
    categories = ("active_degree", "fans_user_num_range", "register_days_range", "friend_user_num_range")
    salted = {
        "user": [f"user_{c}" for c in categories],
        "item": ["item_upload_type", "item_music_type"],
    }
    return replace(
        config,
        tasks={"long_view": Binary()},
        features=(
            Feature(name="user_id", role="user", kind="id", table="user"),
            *(
                Feature(name=c, role="user", kind="id", table="category", salted=True, default=-1)
                for c in salted["user"]
            ),
            Feature(name="item_id", role="item", kind="id", table="item"),
            Feature(name="item_author_id", role="item", kind="id", table="author", default=-1),
            *(
                Feature(name=c, role="item", kind="id", table="category", salted=True, default=-1)
                for c in salted["item"]
            ),
            Feature(name="item_duration_s", role="item", kind="bucket", buckets=32, dim=DIM),
            Feature(name="item_tags", role="item", kind="id", table="tag", many=True),
        ),
        tables=(
            Table(name="user", rows=32_768, dim=DIM, mapping="vocabulary"),
            Table(name="item", rows=8_192, dim=DIM, mapping="vocabulary"),
            Table(name="author", rows=8_192, dim=DIM, mapping="vocabulary", min_count=2),
            Table(name="tag", rows=1_024, dim=DIM),
            Table(name="category", rows=4_096, dim=DIM),
        ),
    )
