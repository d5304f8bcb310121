"""Rankers from the literature on KuaiRand and the simulator, in the place of ours, with the features, samples and
optimizers of `coldrank.configs.kuairand` (docs/backbones.md)."""

from dataclasses import replace

from coldrank.configs.kuairand import base
from coldrank.models.afn import AFN
from coldrank.models.dcn import DCN
from coldrank.models.deepfm import DeepFM
from coldrank.models.din import DIN
from coldrank.models.fm import FM
from coldrank.models.gru4rec import GRU4Rec
from coldrank.models.model import Model
from coldrank.models.pnn import PNN
from coldrank.models.wide_deep import WideDeep
from coldrank.train.config import RunConfig

__all__ = ["base"]

DEFAULT = "base"
HIDDEN = (128, 64)
DROPOUT = 0.1
WIDTH = 8
# Of the tables, where a logit holds the sum over all pairs of some sixty fields: with the base's 0.05 the first steps
# throw it to a hundred and more.
PAIRS_RATE = 0.01
# Of each of the five tasks a weight and three factors.
FM_WIDTH = 20


def on(base: RunConfig, name: str, model: Model, width: int = 0, tables_lr: float = 0.0) -> RunConfig:
    """The base with another model. width: of all fields; 0: as the base has them. tables_lr: the tables' rate; 0: the
    base's."""
    config = replace(base, name=name, model=model)
    if tables_lr:
        config = replace(config, optim=replace(base.optim, tables=replace(base.optim.tables, lr=tables_lr)))
    if not width:
        return config
    features = tuple(replace(f, dim=width if f.dim else 0) for f in config.features)
    return replace(config, features=features, tables=tuple(replace(t, dim=width) for t in config.tables))


def wide_deep() -> RunConfig:
    """Wide & Deep."""
    return on(base(), "wide_deep", WideDeep(tower_hidden=HIDDEN, dropout=DROPOUT))


def dcn() -> RunConfig:
    """DCN-v2, parallel."""
    return on(base(), "dcn", DCN(tower_hidden=HIDDEN, dropout=DROPOUT))


def deepfm() -> RunConfig:
    """DeepFM."""
    return on(base(), "deepfm", DeepFM(tower_hidden=HIDDEN, dropout=DROPOUT), WIDTH, PAIRS_RATE)


def fm() -> RunConfig:
    """The factorization machine."""
    return on(base(), "fm", FM(), FM_WIDTH, PAIRS_RATE)


def pnn() -> RunConfig:
    """PNN, inner products."""
    return on(base(), "pnn", PNN(tower_hidden=HIDDEN, dropout=DROPOUT), WIDTH)


def pnn_outer() -> RunConfig:
    """PNN, outer products."""
    return on(base(), "pnn_outer", PNN(products="outer", tower_hidden=HIDDEN, dropout=DROPOUT), WIDTH, PAIRS_RATE)


def afn() -> RunConfig:
    """AFN."""
    return on(base(), "afn", AFN(tower_hidden=HIDDEN, dropout=DROPOUT), WIDTH)


def gru4rec() -> RunConfig:
    """The history through a GRU."""
    return on(base(), "gru4rec", GRU4Rec(tower_hidden=HIDDEN, dropout=DROPOUT))


def din() -> RunConfig:
    """The history weighed by the candidate."""
    return on(base(), "din", DIN(tower_hidden=HIDDEN, dropout=DROPOUT))
