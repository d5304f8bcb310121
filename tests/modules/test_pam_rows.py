"""PAM's routing and its support rows, against their definitions."""

import torch

from coldrank.modules.pam import RowsByGroup, route, support


def test_a_cut_belongs_to_the_task_below_it():
    views = torch.tensor([0, 5, 6, 50, 51, 5001])
    assert route(views, torch.tensor([5, 50, 200, 1000, 5000])).tolist() == [0, 0, 1, 1, 2, 5]


def test_support_is_the_first_share_of_each_task_in_order():
    task = torch.tensor([2, 0, 2, 2, 0, 2, 2, 0, 2, 2, 2])
    found = support(task, 4, 0.25)
    for n in range(4):
        own = found[task == n].tolist()
        count = len(own) // 4
        assert own == [True] * count + [False] * (len(own) - count)
    assert support(torch.empty(0, dtype=torch.int64), 4, 0.25).tolist() == []


def test_rows_stand_task_after_task_in_the_order_of_the_batch():
    task = torch.tensor([2, 0, 2, 1, 0])
    rows = RowsByGroup.of(task, 4, torch.tensor([True, True, True, False, True]))
    assert rows.index.tolist() == [1, 4, 0, 2]
    assert rows.task.tolist() == [0, 0, 2, 2] and rows.counts == [2, 0, 2, 0]
    assert rows.sums(torch.tensor([1.0, 2.0, 4.0, 8.0])).tolist() == [3, 0, 12, 0]
