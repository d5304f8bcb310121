"""The exported model in C++, by the program in serving/cpp."""

import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples import write_samples
from served import CONFIGS, random_model, request_of, rows_of
from test_requests import malformed

from coldrank.data.batches import DataFolder
from coldrank.serving.export import parity
from coldrank.serving.export.digests import write_digests
from coldrank.serving.export.write import load_script, save_script
from coldrank.serving.twin import Twin
from coldrank.serving.update import delta

SOURCE = Path(__file__).parents[2] / "serving/cpp/serve.cpp"
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


Base = tuple[Twin, dict[str, torch.Tensor], Path]


@pytest.fixture(scope="module")
def base(data: DataFolder, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A model, a request of it, and its file."""
    trained = random_model(CONFIGS["base"](), data)
    twin, path = trained.twin(trained.columns()), tmp_path_factory.mktemp("base") / "model.pt"
    save_script(twin, path)
    return twin, request_of(trained, rows_of(trained, data), 3, [5, 0]), path


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
    changes = delta(before.state, before.version, after.state, after.version)
    torch.save(changes, tmp_path / "delta.pt")
    answer = run(program, tmp_path, [request], "delta.pt")[0]
    torch.testing.assert_close(answer["like"], after(request)["like"], rtol=0, atol=1e-6)
    (tmp_path / "half.pt").write_bytes((tmp_path / "delta.pt").read_bytes()[:-100])
    torch.save({n: t for n, t in changes.items() if n != "sum"}, tmp_path / "torn.pt")
    for name, message in (("half.pt", "archive"), ("torn.pt", "'sum' is missing")):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            run(program, tmp_path, [request], name)
        assert message in refused.value.stderr


def tried(given: str, answer: str) -> pytest.MarkDecorator:
    return pytest.mark.tried("exports", f"C++, {given}", answer)


def harmed(
    given: str,
    name: str,
    harm: Callable[[Path], object],
    message: str,
    *,
    signed: bool = True,
    answer: str = "one line with the file",
) -> Any:
    """A file of an export that is changed, before its digests are written (signed) or after."""
    return pytest.param(harm, signed, name, message, marks=tried(given, answer))


@pytest.mark.parametrize(
    ("harm", "signed", "name", "message"),
    [
        harmed(
            "a dict for the model",
            "model.pt",
            lambda p: torch.save({"a": torch.ones(2)}, p),
            "is no model.pt of an export",
        ),
        harmed("a text for the model", "model.pt", lambda p: p.write_text("hello"), "is no model.pt of an export"),
        harmed("another script for the model", "model.pt", lambda p: save_other(p), "gives no answers by task"),
        harmed(
            "half a model", "model.pt", lambda p: p.write_bytes(p.read_bytes()[:-500]), "is no model.pt of an export"
        ),
        harmed("no file for the model", "model.pt", lambda p: p.unlink(), "cannot be read", signed=False),
        harmed(
            "a dict for the list of requests",
            "requests.pt",
            lambda p: torch.save({"user_id": torch.ones(1)}, p),
            "holds no list of requests",
        ),
        harmed(
            "a number for the list of requests", "requests.pt", lambda p: torch.save(3, p), "holds no list of requests"
        ),
        harmed("an empty file of requests", "requests.pt", lambda p: p.write_bytes(b""), "is no file of torch.save"),
        harmed(
            "a sparse tensor among the requests, which LibTorch cannot read",
            "requests.pt",
            lambda p: torch.save([torch.ones(1).to_sparse()], p),
            "is no file of torch.save",
        ),
        harmed("a list for a delta", "delta.pt", lambda p: torch.save([1], p), "is no dict of tensors"),
        harmed(
            "a flipped bit of a model",
            "model.pt",
            lambda p: flip(p),
            "is damaged, or of another export",
            signed=False,
            answer="one line with the file, before it is loaded",
        ),
        harmed(
            "a delta cut off",
            "delta.pt",
            lambda p: p.write_bytes(p.read_bytes()[:-1]),
            "is damaged, or of another export",
            signed=False,
            answer="one line with the file, before it is loaded",
        ),
        harmed(
            "a model without its digests",
            "model.pt",
            lambda p: (p.parent / "sha256sums.txt").unlink(),
            "no sha256sums.txt beside it",
            signed=False,
        ),
        harmed(
            "a model that its digests do not list",
            "model.pt",
            lambda p: (p.parent / "sha256sums.txt").write_text("0" * 64 + "  other.pt"),
            "is not of the export that it lies in",
            signed=False,
        ),
        harmed(
            "an empty dict for a delta", "delta.pt", lambda p: torch.save({}, p), "this is no delta, or half of one"
        ),
    ],
)
def test_cpp_names_a_file_that_is_something_else(program, base, tmp_path, harm, signed, name, message):
    _, request, saved = base
    shutil.copy(saved, tmp_path / "model.pt")
    if name == "delta.pt":
        (tmp_path / name).touch()
    if not signed:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() or b"a delta")
        write_digests(tmp_path)
    torch.save([request], tmp_path / "requests.pt")
    harm(tmp_path / name)
    if signed:
        write_digests(tmp_path)
    command = [program, "model.pt", "requests.pt", "answers.pt", *(["delta.pt"] if name == "delta.pt" else [])]
    given = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert given.returncode == 1 and not (tmp_path / "answers.pt").exists()
    assert given.stderr.count("\n") == 1 and f"serve: {name}: " in given.stderr and message in given.stderr


@pytest.mark.tried(
    "requests", "C++, requests that are no dict, or whose values are no tensors", "a line each; the others are answered"
)
def test_cpp_answers_beside_what_is_no_request(program: Path, base: Base, tmp_path: Path):
    twin, right, saved = base
    shutil.copy(saved, tmp_path / "model.pt")
    none = {n: t[:0] if n.startswith("item_") else t for n, t in right.items()}
    odd = [
        5,
        None,
        "x",
        [right],
        {1: torch.ones(1)},
        right | {"user_id": 5},
        right | {"user_id": None},
        {},
        none,
        right,
    ]
    answers = run(program, tmp_path, odd)
    no_dict, no_tensor = "is no dict of tensors", "input 'user_id' is no tensor"
    assert answers[:7] == [*[no_dict] * 4, "has a key that is no string", no_tensor, no_tensor]
    assert answers[7] == "input 'user_id' is missing" and answers[8]["like"].shape == (0,)
    torch.testing.assert_close(answers[9], twin(right), rtol=0, atol=1e-6)


def flip(path: Path) -> None:
    """Another bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def save_other(path: Path) -> None:
    """A script that is no model of ours."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))


def run(program: Path, folder: Path, requests: list[Any], *deltas: str) -> list[dict[str, torch.Tensor] | str]:
    """The program's answers; deltas: files in the folder."""
    torch.save(requests, folder / "requests.pt")
    write_digests(folder)
    command = [program, "model.pt", "requests.pt", "answers.pt", *deltas]
    subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True)
    answers = torch.load(folder / "answers.pt", weights_only=True)
    return [a if isinstance(a, str) else dict(a) for a in answers]
