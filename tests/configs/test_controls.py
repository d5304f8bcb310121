"""What the arms of a config module promise about one another."""

import pytest
import torch

from coldrank.configs import kuairand, movielens, simulated
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
