"""KuaiRand's arms for long simulated logs: a row for every user and video of some ten million events, and larger
batches."""

from dataclasses import replace

from coldrank.configs import kuairand, kuairand_tables
from coldrank.train.config import RunConfig

DEFAULT = "base"
ROWS = {"user": 131_072, "item": 131_072, "author": 131_072, "music": 131_072}


def base() -> RunConfig:
    """The plain ranker."""
    return _long(kuairand.base())


def poso_mha() -> RunConfig:
    """POSO(MHA) alone."""
    return _long(kuairand.poso_mha())


def poso_mmoe() -> RunConfig:
    """POSO(MMoE) alone."""
    return _long(kuairand.poso_mmoe())


def poso_mlp() -> RunConfig:
    """POSO(MLP) towers alone."""
    return _long(kuairand.poso_mlp())


def poso() -> RunConfig:
    """All POSO parts."""
    return _long(kuairand.poso())


def poso_constant_pc() -> RunConfig:
    """Control: POSO's parameters without its personalization."""
    return _long(kuairand.poso_constant_pc())


def poso_avc_in_gates_only() -> RunConfig:
    """Control: the AVC as the gates' input only."""
    return _long(kuairand.poso_avc_in_gates_only())


def base_without_avc() -> RunConfig:
    """Control: no ordinary input tells how much was seen of the user."""
    return _long(kuairand.base_without_avc())


def base_wider() -> RunConfig:
    """Control: a plain base of as many dense parameters as `poso`."""
    return _long(kuairand.base_wider())


def base_cold_weighted() -> RunConfig:
    """Control: the samples of new users weigh twice."""
    return _long(kuairand_tables.base_cold_weighted())


def _long(config: RunConfig) -> RunConfig:
    tables = tuple(replace(t, rows=ROWS.get(t.name, t.rows)) for t in config.tables)
    data = replace(config.data, batch_size=1024)
    optim = replace(config.optim, dense=replace(config.optim.dense, lr=2.5e-3))
    return replace(config, tables=tables, data=data, optim=optim)
