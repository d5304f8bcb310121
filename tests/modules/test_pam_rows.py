"""PAM's routing and its support rows, against their definitions."""

import torch

from coldrank.modules.pam import RowsByGroup, route, support


def test_a_cut_belongs_to_the_group_below_it():
    views = torch.tensor([0, 5, 6, 50, 51, 5001])
    assert route(views, torch.tensor([5, 50, 200, 1000, 5000])).tolist() == [0, 0, 1, 1, 2, 5]


def test_support_is_the_first_share_of_each_group_in_order():
    group = torch.tensor([2, 0, 2, 2, 0, 2, 2, 0, 2, 2, 2])
    first = support(group, 4, 0.25)
    for n in range(4):
        of_group = first[group == n].tolist()
        count = len(of_group) // 4
        assert of_group == [True] * count + [False] * (len(of_group) - count)
    assert support(torch.empty(0, dtype=torch.int64), 4, 0.25).tolist() == []


def test_rows_stand_group_after_group_in_the_order_of_the_batch():
    group = torch.tensor([2, 0, 2, 1, 0])
    rows = RowsByGroup.of(group, 4, torch.tensor([True, True, True, False, True]))
    assert rows.index.tolist() == [1, 4, 0, 2]
    assert rows.group.tolist() == [0, 0, 2, 2] and rows.counts == [2, 0, 2, 0]
    assert rows.sums(torch.tensor([1.0, 2.0, 4.0, 8.0])).tolist() == [3, 0, 12, 0]
