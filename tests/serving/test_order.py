"""Columns of two sides in an order of their own."""

import pytest
import torch

from coldrank.serving.order import Columns


@pytest.mark.parametrize(
    ("wanted", "rows", "columns"),
    [([], 2, []), ([1, 0], 2, [1, 0]), ([2], 4, [2]), ([3, 1], 4, [3, 1])],
    ids=["none", "of the request", "of the candidates", "of both"],
)
def test_columns_have_rows_of_candidates_where_one_is_theirs(wanted, rows, columns):
    request, candidate = torch.arange(4.0).view(2, 2), torch.arange(10.0, 18.0).view(4, 2)
    made = torch.jit.script(Columns([[0, 1], [2, 3]], wanted))
    every = torch.cat([request if rows == 2 else request[[0, 0, 1, 1]], candidate[:rows]], 1)
    assert torch.equal(made(request, candidate), every[:, columns])
