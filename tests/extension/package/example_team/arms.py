"""An arm that is made of the team's own parts, beside coldrank's."""

from dataclasses import replace

from coldrank.configs.kuairand import base
from coldrank.train.config import RunConfig
from coldrank.train.hooks.mwuf import Mwuf
from example_team.lift import Lift
from example_team.log_normal import LogNormal
from example_team.pairs import Pairs
from example_team.shrink import Shrink


def ours() -> RunConfig:
    """Shrunken and warmed embeddings, products of pairs, seconds watched beside the rest, judged by the lift as
    well."""
    hooks = (Shrink(k=3.0), Mwuf(max_views=7, users=4))
    tasks = base().tasks | {"watch_s": LogNormal(weight=0.3)}
    return replace(base(), name="ours", tasks=tasks, model=Pairs(width=6), hooks=hooks, metrics=(Lift(share=0.2),))
