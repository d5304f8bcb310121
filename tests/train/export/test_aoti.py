"""The AOTInductor package answers as TorchScript does."""

import shutil
from pathlib import Path

import pytest
import torch
from served import CONFIGS, random_model, request_of, rows_of

from coldrank.train.data.batches import DataFolder
from coldrank.train.export import parity
from coldrank.train.export.aoti import by_user, load_package, write_package

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["poso", "growing", "multi_hash", "two_tower"])
def test_a_package_scores_as_the_trained_model(name: str, data: DataFolder, tmp_path: Path):
    if shutil.which("g++") is None:
        pytest.skip("no g++ here, which compiling needs")
    trained = random_model(CONFIGS[name](), data)
    raw = rows_of(trained, data)
    twin = trained.twin(trained.columns(), "int8" if name == "growing" else "float32")
    write_package(twin, tmp_path)
    served = load_package(tmp_path)
    names = [i.name for i in twin.inputs]
    both = parity.score_both(trained, by_user(served, names), raw)
    assert both.worst < (0.1 if name == "growing" else parity.LIMIT)
    for candidates in ([], [3], [1, 2], list(range(50))):
        request = request_of(trained, raw, 7, candidates)
        torch.testing.assert_close(dict(served(request)), twin(request), rtol=0, atol=1e-5)
    with pytest.raises(torch.jit.Error, match="input 'item_id' is missing"):
        served({n: t for n, t in request.items() if n != "item_id"})
    with pytest.raises(torch.jit.Error, match="the request has 3 users; the compiled model takes one"):
        served(request_of(trained, raw, 7, [1, 2, 3], once=False))
