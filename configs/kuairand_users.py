"""Arms for KuaiRand with users held out (`coldrank prepare kuairand --split users`): every user of the test is new to
the tables.

No arm reads the user's id, which would be learnt on the training users and is worth nothing on others.
"""

from dataclasses import replace

from coldrank.configs import base as parts
from coldrank.configs import kuairand
from coldrank.train.config import RunConfig

# The pass costs nobody here, and what it does for new users is small and above zero (docs/results.md).
DEFAULT = "base_cold_pass"


def base() -> RunConfig:
    """The plain ranker."""
    return _without_user_id(kuairand.base())


def poso() -> RunConfig:
    """All three POSO modules."""
    return parts.poso(base())


def poso_constant_pc() -> RunConfig:
    """Control: POSO's parameters without the code."""
    return parts.constant_pc(poso())


def base_cold_pass() -> RunConfig:
    """A last pass over the samples of new users."""
    return parts.cold_pass(base())


def poso_cold_pass() -> RunConfig:
    """POSO with a last pass over the samples of new users."""
    return parts.cold_pass(poso())


def poso_gate_pass() -> RunConfig:
    """A last pass over the samples of new users, for the gates alone."""
    return parts.gate_pass(poso())


def _without_user_id(arm: RunConfig) -> RunConfig:
    features = tuple(f for f in arm.features if f.name != "user_id")
    return replace(arm, features=features, tables=tuple(t for t in arm.tables if t.name != "user"))
