"""What a checkpoint holds beside parameters: what was learnt, and nothing that the config says anyway. A name that
comes or goes here is one that older checkpoints lack, or that newer programs refuse."""

from dataclasses import replace

import pytest
from retrieving import two_tower, with_pam
from tiny import growing

from coldrank.configs import base as arms
from coldrank.models.encode import FeatureEncoder
from coldrank.models.two_tower import TwoTower
from coldrank.train.checks import validate
from coldrank.train.hooks.make import make_hooks
from coldrank.train.task import RankingTask

PREVIOUS = {f"before.{name}" for name in ("user", "item", "labels", "ids", "task")}
SHIFTS = {
    f"shift_towers_{side}_layers_{i}_{p}" for side in ("user", "item") for i in (0, 1) for p in ("weight", "bias")
}
PAM = PREVIOUS | SHIFTS | {"cuts", "enhancer.kept", "enhancer.store"}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (arms.poso(growing()), set()),
        (two_tower(), set()),
        (
            replace(two_tower(), model=TwoTower(candidates="items", log_q=True)),
            {"ranker.frequency.counts", "ranker.frequency.total"},
        ),
        (with_pam(gamma=(1.0, 1.0, 1.0), support_of="previous", own=True), {f"hooks.pam.{name}" for name in PAM}),
    ],
)
def test_a_task_s_buffers(config, wanted):
    features = validate(config)
    task = RankingTask(features, config.model, config.tasks, hooks=make_hooks(config, features))
    assert task.state_dict().keys() - {name for name, _ in task.named_parameters()} == wanted


@pytest.mark.parametrize(
    ("mapping", "of_a_map"),
    [
        ("growing", {"known", "size", "missed"}),
        ("managed", {"ids", "places", "scores", "steps", "missed", "evicted"}),
        ("vocabulary", {"ids"}),
    ],
)
def test_an_encoder_s_buffers(mapping, of_a_map):
    names = FeatureEncoder(validate(growing(mapping=mapping))).state_dict()
    assert {n.removeprefix("maps.user.") for n in names if n.startswith("maps.user.")} == of_a_map
