"""POSO's Tables 6 and 7 on MovieLens, each row an arm; `base` is what all are compared with.

Left out: user IDs as the code, for the users of the test are not in the training data, and Table 3's age, for the log
does not tell when a film was uploaded.
"""

from coldrank.configs import base as parts
from coldrank.configs.movielens import base, base_cold_pass, poso, poso_mha, poso_mlp, poso_mmoe
from coldrank.train.config import RunConfig

__all__ = ["base", "base_cold_pass", "poso", "poso_mha", "poso_mlp", "poso_mmoe"]


def poso_all_features() -> RunConfig:
    """Table 6: all features (MoE)."""
    return parts.all_features(poso())


def poso_is_new_user() -> RunConfig:
    """Table 6: is-new-user."""
    return parts.is_new_user(poso())


def poso_avc_fine() -> RunConfig:
    """Table 6, AVC in buckets half as wide."""
    return parts.avc_fine(poso())


def poso_avc_coarse() -> RunConfig:
    """Table 6, AVC in buckets twice as wide."""
    return parts.avc_coarse(poso())


def poso_mha_qkv() -> RunConfig:
    """Table 7: N-fold Q, K and V."""
    return parts.mha_fold(poso_mha(), "qkv")


def poso_mha_kv() -> RunConfig:
    """Table 7: one Q, N-fold K and V."""
    return parts.mha_fold(poso_mha(), "kv")


def poso_mha_none() -> RunConfig:
    """Table 7: one Q, K and V gated element-wise."""
    return parts.mha_fold(poso_mha(), "none")


def poso_item_views() -> RunConfig:
    """Item cold start: the code is the film's views."""
    return parts.item_views(poso())


def base_cold_weighted() -> RunConfig:
    """Control: the samples of new users weigh twice."""
    return parts.cold_weighted(base())


def poso_cold_weighted() -> RunConfig:
    """POSO with the samples of new users weighing twice."""
    return parts.cold_weighted(poso())


def poso_cold_pass() -> RunConfig:
    """POSO with a last pass over the samples of new users."""
    return parts.cold_pass(poso())


def poso_gate_pass() -> RunConfig:
    """A last pass over the samples of new users, for the gates alone."""
    return parts.gate_pass(poso())
