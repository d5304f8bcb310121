"""Building blocks, each usable alone in another model. Plain and personalized (POSO) versions take the same call."""

from coldrank.modules.attention import MultiheadAttention, PosoMultiheadAttention
from coldrank.modules.gate import PersonalizedGate
from coldrank.modules.inner_loop import InnerLoop
from coldrank.modules.linear import GroupedLinear, Linear, PosoLinear
from coldrank.modules.metacf import MetaCF
from coldrank.modules.mlp import MLP, PosoMLP
from coldrank.modules.mmoe import MMoE, PosoMMoE
from coldrank.modules.mwuf import Mwuf
from coldrank.modules.towers import PosoTowers, Towers

__all__ = [
    "MLP",
    "GroupedLinear",
    "InnerLoop",
    "Linear",
    "MMoE",
    "MetaCF",
    "MultiheadAttention",
    "Mwuf",
    "PersonalizedGate",
    "PosoLinear",
    "PosoMLP",
    "PosoMMoE",
    "PosoMultiheadAttention",
    "PosoTowers",
    "Towers",
]
