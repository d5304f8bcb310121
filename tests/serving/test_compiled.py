"""What the compiler is given, run as it is: the same figures as the served model's, and sizes that are free where they
vary."""

import pytest
import torch
from served import CONFIGS, random_model, request_of, rows_of

from coldrank.data.batches import DataFolder
from coldrank.serving.compiled import OneUser, Ready, example, shapes

NAMES = ["poso", "two_tower_pam", "poso_pam_mwuf_metacf"]


@pytest.mark.parametrize("name", NAMES)
def test_the_model_behind_the_door_scores_as_the_whole(name: str, data: DataFolder):
    trained = random_model(CONFIGS[name](), data)
    twin, raw = trained.twin(trained.columns()), rows_of(trained, data)
    ready, model = Ready(twin), OneUser(twin)
    for candidates in ([3], [1, 2, 5]):
        request = request_of(trained, raw, 7, candidates)
        found = dict(zip(ready.tasks, model(*ready(dict(request))), strict=True))
        wanted = twin(request)
        assert found.keys() == wanted.keys()
        for task, scores in wanted.items():
            torch.testing.assert_close(found[task], scores, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="the request has 3 users; the compiled model takes one"):
        ready(request_of(trained, raw, 7, [1, 2, 3], once=False))


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_free_where_requests_differ(name: str, data: DataFolder):
    trained = random_model(CONFIGS[name](), data)
    twin = trained.twin(trained.columns())
    ready, free = Ready(twin), shapes(twin)
    few, many = example(twin.inputs, 7), example(twin.inputs, 9)
    for request, rows in ((few, 7), (many, 9)):
        for i in twin.inputs:
            own = rows if i.per == "candidate" else 1
            assert request[i.name].shape == ((3 * own if i.is_list else own),)
            if i.is_list:
                assert request[f"{i.name}.lengths"].tolist() == [3] * own
    before, after = ready(few), ready(many)
    assert len(free) == len(before)
    by_name: dict[str, set[str]] = {}
    for dims, x, y in zip(free, before, after, strict=True):
        changed = {d for d in range(x.dim()) if x.shape[d] != y.shape[d]}
        assert changed <= dims.keys() and all(str(dims[d].__name__) == "candidates" or x.dim() == 1 for d in dims)
    lists = free[4 : 4 + 2 * sum(i.is_list for i in twin.inputs) : 2]
    for i, dims in zip((i for i in twin.inputs if i.is_list), lists, strict=True):
        by_name.setdefault(i.sequence or i.name, set()).add(dims[0].__name__)
    assert all(names == {f"values_{group}"} for group, names in by_name.items()), (
        "columns of a sequence are of one size"
    )
