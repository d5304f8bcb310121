"""What each of two ranks gets of both; run by test_two_ranks_collect.py."""

import json
import sys
from pathlib import Path

import torch

from coldrank.train.distributed.ranks import (
    objects_of_all_ranks,
    of_all_ranks,
    per_rank,
    process_group,
    sum_over_ranks,
)

SIZES = (3, 1)

if __name__ == "__main__":
    with process_group() as ranks:
        n = SIZES[ranks.rank]
        rows = torch.arange(2 * n).view(n, 2) + 100 * ranks.rank
        x = torch.tensor([1.0, 2.0]).add(ranks.rank).requires_grad_()
        total = sum_over_ranks(x)
        # Each rank's loss is its rank + 1 times the cubes of the sum.
        (first,) = torch.autograd.grad(((ranks.rank + 1) * total**3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
        said = {
            "rows": of_all_ranks(rows).tolist(),
            "none on the first": of_all_ranks(rows[: ranks.rank]).tolist(),
            "none": of_all_ranks(rows[:0]).shape,
            "flags": of_all_ranks(rows[:, 0] % 4 == 0).tolist(),
            "per_rank": per_rank(torch.tensor([n, 0]), torch.float32).tolist(),
            "objects": objects_of_all_ranks({"rank": ranks.rank}),
            "sum": [total.tolist(), first.tolist(), second.tolist(), x.tolist()],
        }
        (Path(sys.argv[1]) / f"{ranks.rank}.json").write_text(json.dumps(said))
