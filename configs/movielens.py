"""Arms on MovieLens, after POSO's section 5.3: tasks Favorite (5 stars) and Satisfied (>= 4), histories of 30, the PC
is AVC."""

from dataclasses import replace

from coldrank.configs import base as parts
from coldrank.models.features import Feature, Table
from coldrank.models.heads import Binary
from coldrank.models.ranker import Ranker
from coldrank.train.config import RunConfig
from coldrank.train.sections import DataConfig, DenseConfig, OptimConfig, TablesConfig, TrainConfig

HISTORY = 30
TASKS = ("favorite", "satisfied")
# New users gain by the pass, and nobody loses (docs/results.md).
DEFAULT = "base_cold_pass"


def features(*, ratings: bool = True) -> tuple[Feature, ...]:
    """The paper's two lists, past films and their genres, beside the ids and counts; `ratings`: also what the user
    thought of the past films, and the as-of-time rates. Who the user is (age, occupation) only some layouts tell: left
    out."""
    opinions = TASKS if ratings else ()
    return (
        Feature(name="item_id", role="item", kind="id", table="item"),
        Feature(name="item_tags", role="item", kind="id", table="tag", many=True),
        *parts.counts(["user_views", "item_views"], dim=8),
        *parts.history(HISTORY, {"hist_item_id": "item", "hist_tag": "tag"}, opinions),
        *parts.rates(("user", "item", "user_x_tag"), opinions),
        parts.personalization_code("user_views", dim=8),
    )


def base() -> RunConfig:
    """The plain ranker. Users are held out, so a user's id would be unknown in test: it is not a feature."""
    return RunConfig(
        name="base",
        tasks={task: Binary() for task in TASKS},
        features=features(),
        tables=(
            Table(name="item", rows=32_768, dim=16, mapping="vocabulary", min_count=2),
            Table(name="tag", rows=64, dim=8),
        ),
        model=Ranker(
            heads=4, head_dim=8, positions=True, experts=4, expert_hidden=(128, 64), tower_hidden=(32,), dropout=0.1
        ),
        data=DataConfig(batch_size=512),
        optim=OptimConfig(tables=TablesConfig(lr=0.03), dense=DenseConfig(lr=4e-3, gate_lr_scale=3.0), decay="linear"),
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


def base_without_ratings() -> RunConfig:
    """The paper's inputs: the past films, not what the user thought of them."""
    return replace(base(), name="base_without_ratings", features=features(ratings=False))


def poso_without_ratings() -> RunConfig:
    """All POSO parts on the paper's inputs."""
    return replace(poso(), name="poso_without_ratings", features=features(ratings=False))


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
    return replace(config, name="base_wider", model=parts.ranker(config, expert_hidden=(142, 64)))


def pepnet() -> RunConfig:
    """Rival: PEPNet. Users are held out, so the film's id alone is its prior."""
    return parts.pepnet(base(), prior=("item_id",))


def base_cold_pass() -> RunConfig:
    """A last pass over the samples of new users."""
    return parts.cold_pass(base())


def base_metacf() -> RunConfig:
    """The base with an embedding for every user, adapted to the last films at every view count: users are held out, so
    none has one in a table."""
    return _metacf(base())


def poso_metacf() -> RunConfig:
    """All POSO parts, and MetaCF."""
    return _metacf(poso())


def _metacf(config: RunConfig) -> RunConfig:
    user = Feature(name="user_id", role="user", kind="id", table="user")
    config = replace(
        config,
        features=(user, *config.features),
        tables=(Table(name="user", rows=2, dim=16), *config.tables),
    )
    return parts.metacf(config, signal="hist_satisfied", max_views=1_000_000)
