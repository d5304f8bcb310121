"""What each method is worth where counters are refreshed late: the ranker with one method at a time, on KuaiRand or the
simulator prepared with `--refresh-hours` (docs/results/late_features.md)."""

from dataclasses import replace

from coldrank.configs import base as parts
from coldrank.configs.kuairand import base, base_metacf, base_posterior, poso
from coldrank.train.config import RunConfig
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.pam import Pam

__all__ = ["base", "base_metacf", "base_posterior", "poso"]

DEFAULT = "base"


def base_mwuf() -> RunConfig:
    """New videos by warm embeddings."""
    return replace(base(), name="base_mwuf", hooks=(Mwuf(),))


def base_pam() -> RunConfig:
    """Towers adapted to videos by popularity."""
    return replace(base(), name="base_pam", hooks=(Pam(cold_weight=1.0, other_weight=1.0),))


def base_cold_pass() -> RunConfig:
    """A last pass over the samples of new users."""
    return parts.cold_pass(base())
