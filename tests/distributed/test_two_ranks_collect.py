"""Rows, counts, objects and sums of two ranks, on both, and the sum's gradients."""

import json
from pathlib import Path

import pytest
from launch import launch


@pytest.mark.tried("ranks", "unequal numbers of rows on two ranks, none on one, none on both", "all of them, on both")
def test_both_ranks_get_what_both_have(tmp_path):
    launch(2, str(Path(__file__).with_name("collect.py")), str(tmp_path))
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for rank, of_rank in enumerate(said):
        assert of_rank["rows"] == [[0, 1], [2, 3], [4, 5], [100, 101]]
        assert of_rank["none on the first"] == [[100, 101]] and of_rank["none"] == [0, 2]
        assert of_rank["flags"] == [True, False, True, True]
        assert of_rank["per_rank"] == [2.0, 0.5], "3 and 1 rows over two ranks; at least one"
        assert of_rank["objects"] == [{"rank": 0}, {"rank": 1}]
        total, first, second, x = of_rank["sum"]
        assert x == [1.0 + rank, 2.0 + rank] and total == [3.0, 5.0], "what is summed stays as it was"
        # d/dx of (1 + 2) * total^3, then of the sum of both ranks' first derivatives.
        assert first == [3 * 3 * 3.0**2, 3 * 3 * 5.0**2]
        assert second == [2 * 3 * 6 * 3.0, 2 * 3 * 6 * 5.0]
