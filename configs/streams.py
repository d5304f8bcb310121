"""Arms of methods for streams that PAM was compared with, on PF's model and data (docs/streams.md); `pam:pf` is what
they are held against."""

from dataclasses import replace

from coldrank.configs.pam import pf
from coldrank.train.config import RunConfig
from coldrank.train.hooks.asmg import ASMG
from coldrank.train.hooks.incctr import IncCTR
from coldrank.train.hooks.sml import SML


def incctr() -> RunConfig:
    """The model of the period before teaches that of the present one."""
    return replace(pf(), name="incctr", hooks=(IncCTR(),))


def sml() -> RunConfig:
    """A transfer network makes the tables that serve."""
    return replace(pf(), name="sml", hooks=(SML(),))


def asmg() -> RunConfig:
    """A generator makes the model that serves of the last three."""
    return replace(pf(), name="asmg", hooks=(ASMG(),))
