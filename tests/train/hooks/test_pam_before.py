"""The support rows that PAM keeps of the batch before."""

import torch
import torch.distributed as dist
from retrieving import with_pam

from coldrank.train.checks import validate
from coldrank.train.hooks.make import make_hooks


def noted(before, count: int, group: int) -> list[torch.Tensor]:
    """Rows as `note` leaves them: `group` in every place."""
    return [torch.full((count, *kept.shape[1:]), group, dtype=kept.dtype) for kept in before.buffers()]


def test_fewer_rows_leave_none_of_those_before(monkeypatch):
    """Also where a run goes on with ranks that cannot share the places out, so that some are given nothing."""
    config = with_pam(support_of="previous", support=0.25)
    before = make_hooks(config, validate(config))["pam"].before
    places = len(before.task)
    assert places == 16
    before._now = noted(before, places, 3)
    before.keep()
    assert before.task.tolist() == [3] * 16
    before._now = noted(before, 5, 2)
    before.keep()
    assert before.task.tolist() == [2] * 5 + [-1] * 11
    before.keep()  # a step that noted nothing
    assert before.task.tolist() == [2] * 5 + [-1] * 11

    before._now = noted(before, places, 3)
    before.keep()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "all_gather", lambda parts, mine: [part.copy_(mine) for part in parts])
    before._now = noted(before, 4, 1)
    before.keep()
    assert before.task.tolist() == [1, 1, 1, 1, -1] * 3 + [-1]
    assert before.labels[:, 0].tolist() == [1, 1, 1, 1, -1] * 3 + [3]  # of no group: not looked at
