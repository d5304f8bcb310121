"""Arms of PAM on KuaiRand, and on the simulator, which writes the same layout, as streams.

`coldrank prepare kuairand --data LOGS --out DATA --history 30 --item-history 30 --periods 31`, for all arms but the
rankers', which take KuaiRand by days (docs/streaming.md).
"""

from dataclasses import replace

from coldrank.configs import kuairand, pam
from coldrank.models.features import Feature, Table
from coldrank.models.heads import Binary
from coldrank.train.config import RunConfig
from coldrank.train.hooks.pam import Pam


def pf() -> RunConfig:
    """Periodical fine-tuning."""
    base = pam.pf()
    features = tuple(f for f in pam.features("tag") if f.name != "item_hist_user_id")
    author = Feature(name="item_author_id", role="item", kind="id", table="author", default=-1)
    users = Feature(name="item_hist_user_id", role="item", kind="id", table="user", many=True)
    tables = (
        Table(name="user", rows=65_536, dim=pam.DIM, mapping="growing"),
        Table(name="item", rows=65_536, dim=pam.DIM, mapping="growing"),
        Table(name="author", rows=65_536, dim=pam.DIM, mapping="growing"),
        Table(name="tag", rows=1_024, dim=pam.DIM),
    )
    return replace(base, tasks={"long_view": Binary()}, features=(*features, author, users), tables=tables)


def pf_balanced() -> RunConfig:
    """PF with the losses weighed as PAM weighs its groups'."""
    return pam.balanced(pf())


def pf_towers() -> RunConfig:
    """PF with towers of its own for every popularity group."""
    return pam.own_towers(pf())


def pam_m() -> RunConfig:
    """Tasks by popularity and the inner loop, without the enhancer."""
    return pam.meta(pf(), "pam_m")


def pam_s() -> RunConfig:
    """With the self-supervised instructor."""
    return pam.meta(pf(), "pam_s", gamma=(1.0, 3.0, 0.0))


def pam_a() -> RunConfig:
    """With data augmentation."""
    return pam.meta(pf(), "pam_a", gamma=(1.0, 0.0, 2.0))


def pam_f() -> RunConfig:
    """With both."""
    return pam.meta(pf(), "pam_f", gamma=(1.0, 3.0, 2.0))


def pam_previous() -> RunConfig:
    """Tasks adapt to the batch before."""
    return pam.previous(pf())


def base() -> RunConfig:
    """The plain ranker on the stream of days."""
    return _stream(kuairand.base())


def poso() -> RunConfig:
    """All POSO parts on the stream."""
    return _stream(kuairand.poso())


def base_pam() -> RunConfig:
    """The ranker's towers, one per task, adapted to items by popularity."""
    return _adapted(base())


def poso_pam() -> RunConfig:
    """The same with POSO's towers."""
    return _adapted(poso())


def base_towers() -> RunConfig:
    """The ranker with towers of its own for items of each popularity, and nothing adapted."""
    return pam.own_towers(base())


def poso_towers() -> RunConfig:
    """The same with POSO's towers."""
    return pam.own_towers(poso())


def _stream(config: RunConfig) -> RunConfig:
    train = replace(config.train, mode="periods", first_period="2022-04-25", look_back=())
    return replace(config, optim=replace(config.optim, decay="constant"), train=train)


def _adapted(config: RunConfig) -> RunConfig:
    return replace(config, name=f"{config.name}_pam", hooks=(Pam(cold_weight=1.0, other_weight=1.0),))
