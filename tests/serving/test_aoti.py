"""The AOTInductor package answers as TorchScript does."""

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from served import CONFIGS, exported, random_model, request_of, rows_of

from coldrank.cli.main import main
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.serving.export import parity
from coldrank.serving.export.aoti import by_user, load_package, write_package
from coldrank.serving.export.digests import write_digests
from coldrank.serving.export.lead import check_base

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


@pytest.mark.tried("exports", "`score` with a compiled package", "the same probabilities as of the script")
@pytest.mark.tried("exports", "`--delta` from a compiled package", "refused")
def test_score_takes_a_package(data: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    if shutil.which("g++") is None:
        pytest.skip("no g++ here, which compiling needs")
    trained = random_model(CONFIGS["base"](), data)
    twin = exported(trained, tmp_path / "script")
    package = Path(shutil.copytree(tmp_path / "script", tmp_path / "package"))
    (package / "model.pt").unlink()
    write_package(twin, package)
    write_digests(package)
    for name in ("script", "package"):
        command = ["score", "--artifact", str(tmp_path / name), "--input", str(data.files(("test",))[0])]
        assert main([*command, "--out", str(tmp_path / f"{name}.parquet")]) == 0
    ours, theirs = (pl.read_parquet(tmp_path / f"{n}.parquet") for n in ("package", "script"))
    assert ours.height == 200 and ours.drop("prob_like", "prob_long_view").equals(
        theirs.drop("prob_like", "prob_long_view")
    )
    for name in ("prob_like", "prob_long_view"):
        assert (ours[name] - theirs[name]).abs().max() < 1e-5
    with pytest.raises(UserError, match="holds no model.pt; a compiled package takes no delta"):
        check_base(package)
