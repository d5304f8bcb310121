"""Random requests: every form of a served model answers as training does, or refuses by the name of an input at fault.

The reference reads the request in plain Python and hands the values to training's own code.
COUNT requests from SEED on; `make fuzz` takes 10,000. A failure says its seed: `make fuzz SEED=12 COUNT=1` is that one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_requests import Reading, Request, changed, disturbed, padded, read, read_padded, right
from samples import write_samples

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from served import CONFIGS, exported, random_model

from coldrank.data.batches import KEYS, DataFolder
from coldrank.serving.compiled import OneUser, Ready
from coldrank.serving.export.structure import load_script
from coldrank.serving.export.trained import Trained
from coldrank.serving.export.triton import write_repository
from coldrank.serving.twin import Twin

COUNT, SEED = int(os.environ.get("COUNT", "300")), int(os.environ.get("SEED", "0"))
SOURCE = Path(__file__).parents[2] / "serving/cpp/serve.cpp"
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested", "ignore:.*quantiz"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]
Answer = dict[str, torch.Tensor] | str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Twin, Path]:
    """A model, as it was trained and as it is served, and its export folder."""
    folder = tmp_path_factory.mktemp("fuzz")
    trained = random_model(CONFIGS["poso"](), DataFolder.open(write_samples(folder / "data")))
    twin = exported(trained, folder / "export")
    write_repository(twin, folder / "triton")
    return trained, twin, folder


def drawn(twin: Twin, *, odd: bool) -> list[tuple[int, Request, Reading]]:
    """COUNT requests with their seeds, and how they read."""
    requests = []
    for seed in range(SEED, SEED + COUNT):
        rng = np.random.default_rng(seed)
        request = changed(right(rng, twin.inputs), rng, odd)
        requests.append((seed, request, read(request, twin.inputs)))
    return requests


def expected(trained: Trained, readings: list[Reading]) -> list[torch.Tensor]:
    """Training's probabilities [C, T] of every request."""
    rows = [row for reading in readings for row in reading.rows]
    raw: dict[str, Any] = {f"label_{t}": np.zeros(len(rows), np.float32) for t in trained.tasks}
    raw |= {k: np.zeros(len(rows), np.int64) for k in KEYS}
    for i in trained.encoder.features.inputs:
        kind = np.int64 if i.dtype == "int" else np.float32
        if i.is_list:
            ends = np.cumsum([0, *(len(row[i.name]) for row in rows)])
            raw[i.name] = np.array([v for row in rows for v in row[i.name]], kind), ends
        else:
            raw[i.name] = np.array([row[i.name] for row in rows], kind)
    scores = trained.scores(raw) if rows else torch.zeros(0, len(trained.tasks))
    return list(scores.split([len(reading.rows) for reading in readings]))


def line(error: Exception) -> str:
    last = str(error).strip().splitlines()[-1]
    assert last.startswith("builtins.ValueError: "), error
    return last.removeprefix("builtins.ValueError: ")


def hold(
    trained: Trained, requests: list[tuple[int, Request, Reading]], answers: list[Answer], one_user: bool = False
) -> None:
    """Every request is answered rightly or refused by the name of an input at fault."""
    wanted = expected(trained, [reading for _, _, reading in requests])
    for (seed, _, reading), answer, want in zip(requests, answers, wanted, strict=True):
        what = f"seed {seed}: {answer}"
        if reading.faults:
            assert isinstance(answer, str) and any(f"'{name}'" in answer for name in reading.faults), what
        elif one_user and reading.users != 1:
            assert answer == f"the request has {reading.users} users; the compiled model takes one", what
        else:
            assert isinstance(answer, dict) and list(answer) == trained.tasks, what
            probabilities = torch.stack(list(answer.values()), 1)
            assert probabilities.shape == want.shape and bool(((probabilities - want).abs() <= 1e-5).all()), (
                f"{what}, not {want}"
            )


@pytest.mark.tried("requests", "10,000 random requests, by name", "training's answer, or an input at fault named")
def test_requests_by_name(served):
    trained, _, folder = served
    script = load_script(folder / "export/model.pt")
    before = {name: value.clone() for name, value in script.state.items()}
    requests = drawn(served[1], odd=True)
    answers: list[Answer] = []
    for _, request, _ in requests:
        try:
            answers.append(script(request))
        except torch.jit.Error as error:
            answers.append(line(error))
    hold(trained, requests, answers)
    refused = sum(isinstance(a, str) for a in answers)
    assert COUNT < 100 or 0.2 * COUNT < refused < 0.9 * COUNT
    assert all(torch.equal(before[name], value) for name, value in script.state.items())


@pytest.mark.tried(
    "requests", "10,000 random requests, packed for the compiled form", "training's answer, or an input at fault named"
)
def test_requests_packed(served):
    trained, twin, _ = served
    ready, model = torch.jit.script(Ready(twin)), OneUser(twin)
    requests = drawn(twin, odd=True)
    answers: list[Answer] = []
    for _, request, _ in requests:
        try:
            answers.append(dict(zip(twin.tasks, model(*ready(request)), strict=True)))
        except torch.jit.Error as error:
            answers.append(line(error))
    hold(trained, requests, answers, one_user=True)


@pytest.mark.tried(
    "requests",
    "10,000 random requests, padded, in batches of 16 with the wrong among the right",
    "training's answers; NaN and a status that names an input for the wrong",
)
def test_requests_padded(served):
    trained, twin, folder = served
    script = load_script(folder / "triton/coldrank/1/model.pt")
    names = [n for i in twin.inputs for n in ([i.name, f"{i.name}.lengths"] if i.is_list else [i.name])]
    seen = [0, 0]
    for seed in range(SEED, SEED + COUNT, 16):
        rng = np.random.default_rng(seed)
        candidates = int(rng.integers(0, 5))
        sent = padded([right(rng, twin.inputs, (1, candidates)) for _ in range(16)], twin.inputs)
        disturbed(sent, rng)
        readings = [read_padded({n: t[row] for n, t in sent.items()}, twin.inputs) for row in range(16)]
        probabilities, status = script(sent)
        assert probabilities.shape == (16, candidates, len(trained.tasks)) and status.shape == (16, 1)
        wanted = expected(trained, readings)
        for reading, answer, place, want in zip(
            readings, probabilities, status.flatten().tolist(), wanted, strict=True
        ):
            seen[bool(reading.faults)] += 1
            what = f"seed {seed}: {answer}, status {place}; {reading.faults or want}"
            if reading.faults:
                assert place > 0 and names[place - 1] in reading.faults and bool(answer.isnan().all()), what
            else:
                assert place == 0 and bool(((answer - want).abs() <= 1e-5).all()), what
    assert COUNT < 100 or min(seen) > 0.1 * COUNT


@pytest.mark.slow
@pytest.mark.tried("requests", "10,000 random requests, in C++", "training's answer, or an input at fault named")
def test_requests_in_cpp(served, tmp_path: Path):
    if (compiler := shutil.which("g++")) is None:
        pytest.skip("no g++ here")
    trained, twin, folder = served
    home = Path(torch.__file__).parent
    paths = [f"-I{home}/include", f"-I{home}/include/torch/csrc/api/include", f"-L{home}/lib", f"-Wl,-rpath,{home}/lib"]
    libraries = ["-ltorch", "-ltorch_cpu", "-lc10"]
    subprocess.run([compiler, "-std=c++20", *paths, str(SOURCE), "-o", str(tmp_path / "serve"), *libraries], check=True)
    requests = drawn(twin, odd=False)
    torch.save([request for _, request, _ in requests], tmp_path / "requests.pt")
    command = [tmp_path / "serve", folder / "export/model.pt", tmp_path / "requests.pt", tmp_path / "answers.pt"]
    subprocess.run(command, check=True, capture_output=True)
    answers = torch.load(tmp_path / "answers.pt", weights_only=True)
    hold(trained, requests, [a if isinstance(a, str) else dict(a) for a in answers])
