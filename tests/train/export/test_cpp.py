"""The exported model in C++, by the program in models/serving/cpp."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import write_samples
from served import CONFIGS, random_model, request_of, rows_of
from test_requests import malformed

from coldrank.models.serving.update import delta
from coldrank.train.data.batches import DataFolder
from coldrank.train.export import parity
from coldrank.train.export.write import load_script, save_script

SOURCE = Path(__file__).parents[3] / "models/serving/cpp/serve.cpp"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built against the LibTorch that came with torch."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here")
    out, home = tmp_path_factory.mktemp("cpp") / "serve", Path(torch.__file__).parent
    includes = [f"-I{home}/include", f"-I{home}/include/torch/csrc/api/include"]
    libraries = [f"-L{home}/lib", f"-Wl,-rpath,{home}/lib", "-ltorch", "-ltorch_cpu", "-lc10"]
    subprocess.run([compiler, "-std=c++20", "-Wall", *includes, str(SOURCE), "-o", str(out), *libraries], check=True)
    return out


def test_cpp_answers_as_python_does(program: Path, tmp_path: Path):
    data = DataFolder.open(write_samples(tmp_path / "data", {"train": 600, "valid": 100, "test": 10_000}))
    trained = random_model(CONFIGS["poso"](), data)
    chosen = trained.columns()
    raw = rows_of(trained, data, 10_000)
    twin = trained.twin(chosen)
    save_script(twin, tmp_path / "model.pt")
    served = load_script(tmp_path / "model.pt")
    columns = [i.name for i in twin.inputs]
    whole = [parity.request_of(part, columns) for part in parity.in_batches(raw)]
    some = [request_of(trained, raw, i, [i, 2, 3]) for i in range(10)]
    rng = np.random.default_rng(0)
    requests = [*whole, *some, *(malformed(some[0], rng) for _ in range(10_000))]
    answers = run(program, tmp_path, requests)
    refused = 0
    for request, answer in zip(requests, answers, strict=True):
        try:
            wanted = served(request)
        except torch.jit.Error as error:
            refused += 1
            assert answer == str(error).strip().splitlines()[-1].removeprefix("builtins.ValueError: ")
        else:
            assert list(answer) == list(wanted)
            torch.testing.assert_close(dict(answer), dict(wanted), rtol=0, atol=1e-6)
    assert refused > 5_000
    ours = torch.cat([torch.stack([a[t] for t in trained.tasks], 1) for a in answers[: len(whole)]])
    assert len(ours) == 10_000
    torch.testing.assert_close(ours, trained.scores(raw), rtol=0, atol=1e-5)


def test_cpp_applies_a_delta(program: Path, data: DataFolder, tmp_path: Path):
    trained = random_model(CONFIGS["base"](), data)
    chosen = trained.columns()
    before = trained.twin(chosen)
    trained.task.embeddings.ebc.embedding_bags["item"].weight.data += 1
    after = trained.twin(chosen)
    save_script(before, tmp_path / "model.pt")
    request = request_of(trained, rows_of(trained, data), 3, [5, 0, 17])
    changes = delta(before.state, after.state)
    torch.save(changes, tmp_path / "delta.pt")
    answer = run(program, tmp_path, [request], "delta.pt")[0]
    torch.testing.assert_close(answer["like"], after(request)["like"], rtol=0, atol=1e-6)
    (tmp_path / "half.pt").write_bytes((tmp_path / "delta.pt").read_bytes()[:-100])
    torch.save({n: t for n, t in changes.items() if n != "sum"}, tmp_path / "torn.pt")
    for name, message in (("half.pt", "archive"), ("torn.pt", "'sum' is missing")):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            run(program, tmp_path, [request], name)
        assert message in refused.value.stderr


def run(
    program: Path, folder: Path, requests: list[dict[str, torch.Tensor]], *deltas: str
) -> list[dict[str, torch.Tensor] | str]:
    """The program's answers; deltas: files in the folder."""
    torch.save(requests, folder / "requests.pt")
    command = [program, "model.pt", "requests.pt", "answers.pt", *deltas]
    subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True)
    return torch.load(folder / "answers.pt", weights_only=False)
