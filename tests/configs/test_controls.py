"""What the arms of a config module promise about one another."""

from dataclasses import replace

import pytest
import torch

from coldrank.configs import base as parts
from coldrank.configs import kuairand, kuairand_table5, movielens, movielens_table5, simulated
from coldrank.models.features import Feature
from coldrank.models.ranker import RankerModule
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig


def dense_parameters(config: RunConfig) -> int:
    features = validate(config)
    with torch.device("meta"):
        ranker = RankerModule(config.model, features, len(config.tasks))
    return sum(p.numel() for p in ranker.parameters())


@pytest.mark.parametrize("module", [kuairand, movielens, simulated], ids=["kuairand", "movielens", "simulated"])
def test_base_wider_has_as_many_dense_parameters_as_poso(module):
    base, wider, poso = (dense_parameters(arm()) for arm in (module.base, module.base_wider, module.poso))
    assert base < 0.99 * poso, "the control is needed"
    assert wider == pytest.approx(poso, rel=0.01), f"base {base}, base_wider {wider}, poso {poso}"


@pytest.mark.parametrize(
    "column", ["user_id", "user_views", "views_user_x_tag", "rate_user_like", "rate_tag_x_user_like"]
)
def test_what_tells_how_much_was_seen_of_the_user(column):
    assert parts.tells_views(Feature(name="f", column=column, role="context", kind="number"))


@pytest.mark.parametrize("column", ["item_views", "views_tag", "rate_item_like", "user_register_days", "hist_item_id"])
def test_what_tells_something_else(column):
    assert not parts.tells_views(Feature(name="f", column=column, role="context", kind="number"))


@pytest.mark.parametrize("module", [kuairand, movielens, simulated], ids=["kuairand", "movielens", "simulated"])
def test_a_control_without_the_avc_keeps_it_in_the_gates_alone(module):
    """A cross of what is dropped goes with it, and so do tables that nothing reads, and positions."""
    base, gated = module.base_without_avc(), module.poso_avc_in_gates_only()
    assert [f for f in gated.features if parts.tells_views(f)] == [f for f in base.features if f.role == "pc"]
    assert not base.model.positions and {t.name for t in base.tables} <= {f.table for f in base.features}
    whole = module.base()
    crossed = replace(whole, features=(*whole.features, parts.cross("user_views_bucket", "item_id", rows=64, dim=4)))
    assert parts.without_avc(crossed).features == base.features
    validate(gated)


@pytest.mark.parametrize("module", [movielens_table5, kuairand_table5], ids=["movielens", "kuairand"])
def test_arms_of_table_5_differ_in_the_avc_alone(module):
    """No ordinary input tells the AVC but those of the arms that say so, and the wider base is as large as POSO."""
    arms = {arm.__name__: arm() for arm in (module.base, module.poso, module.base_avc, module.poso_avc)}
    told = {name: [f.name for f in a.features if f.role != "pc" and parts.tells_views(f)] for name, a in arms.items()}
    avc = ["user_views", "user_views_bucket"]
    assert told == {"base": [], "poso": [], "base_avc": avc, "poso_avc": avc}
    assert module.poso_constant_pc().model.pc == "constant"
    wider, poso = dense_parameters(module.base_wider()), dense_parameters(module.poso())
    assert wider == pytest.approx(poso, rel=0.005)
