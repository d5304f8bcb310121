"""POSO's Table 5 on KuaiRand with users held out (`coldrank prepare kuairand --split users`): arms whose ordinary
inputs tell as little as can be of how much was seen of the user, and the same with the AVC as one more input.

What the publisher tells of users (days since they registered, how active they are) stays: it does not come from the
log.
"""

from dataclasses import replace

from coldrank.configs import base as parts
from coldrank.configs import kuairand_users
from coldrank.train.config import RunConfig

DEFAULT = "poso_avc"


def base() -> RunConfig:
    """The plain ranker without the AVC."""
    return replace(parts.without_avc(kuairand_users.base()), name="base")


def poso() -> RunConfig:
    """The AVC in POSO's gates alone: the paper's contrast to `base`."""
    return parts.poso(base())


def base_avc() -> RunConfig:
    """The AVC as an ordinary input."""
    return parts.with_avc(base())


def poso_avc() -> RunConfig:
    """Both."""
    return parts.with_avc(poso())


def poso_constant_pc() -> RunConfig:
    """Control: POSO's parameters without the AVC."""
    return parts.constant_pc(poso())


def base_wider() -> RunConfig:
    """Control: a plain base of as many dense parameters as `poso`."""
    return replace(base(), name="base_wider", model=parts.ranker(base(), expert_hidden=(132, 64)))


def pepnet() -> RunConfig:
    """Rival: PEPNet's gates take the AVC."""
    return parts.pepnet(base(), prior=("item_id",))
