"""POSO's tables on KuaiRand and the simulator, each row an arm; `base` is what all are compared with.

Table 2: poso_mlp, poso_mha, poso_mmoe, poso ("All Combined"). Table 3: the arms ..._video_age, and poso_item_views.
Table 6, of which the row AVC is Table 2's "All Combined": poso with other personalization codes. Table 7, of which the
third row is Table 2's POSO (MHA): poso_mha with other folds. What the codes are made of is an ordinary input of every
arm as well.
"""

from coldrank.configs import base as parts
from coldrank.configs.kuairand import base, poso, poso_mha, poso_mlp, poso_mmoe
from coldrank.train.config import RunConfig

__all__ = ["base", "poso", "poso_mha", "poso_mlp", "poso_mmoe"]


def poso_all_features() -> RunConfig:
    """Table 6: all features (MoE)."""
    return parts.all_features(poso())


def poso_is_new_user() -> RunConfig:
    """Table 6: is-new-user."""
    return parts.is_new_user(poso())


def poso_user_id() -> RunConfig:
    """Table 6: user ID embedding."""
    return parts.id_codes(poso(), "user_id", "user_id")


def poso_user_and_item_id() -> RunConfig:
    """Table 6: user ID and video ID embedding."""
    return parts.id_codes(poso(), "user_and_item_id", "user_id", "item_id")


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


def poso_mlp_video_age() -> RunConfig:
    """Table 3: POSO (MLP)."""
    return parts.video_age(poso_mlp())


def poso_mha_video_age() -> RunConfig:
    """Table 3: POSO (MHA)."""
    return parts.video_age(poso_mha())


def poso_mmoe_video_age() -> RunConfig:
    """Table 3: POSO (MMoE)."""
    return parts.video_age(poso_mmoe())


def poso_video_age() -> RunConfig:
    """Table 3: All Combined."""
    return parts.video_age(poso())


def poso_item_views() -> RunConfig:
    """Table 3, All Combined, with the video's views in the place of its age."""
    return parts.item_views(poso())


def base_cold_weighted() -> RunConfig:
    """Control: the samples of new users weigh twice."""
    return parts.cold_weighted(base())


def poso_cold_weighted() -> RunConfig:
    """POSO with the samples of new users weighing twice."""
    return parts.cold_weighted(poso())


def base_cold_pass() -> RunConfig:
    """Control: a last pass over the samples of new users."""
    return parts.cold_pass(base())


def poso_cold_pass() -> RunConfig:
    """POSO with a last pass over the samples of new users."""
    return parts.cold_pass(poso())


def poso_gate_pass() -> RunConfig:
    """A last pass over the samples of new users, for the gates alone."""
    return parts.gate_pass(poso())
