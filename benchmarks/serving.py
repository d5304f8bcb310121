"""Latency of one request in the forms that a model is served in: `python benchmarks/serving.py --run RUN --data DATA`.

One thread; one user with the longest history of the sample, and 1 to 500 candidates. The forms take turns, so that what
else the machine does meets all alike. Milliseconds of the thread's CPU time (on a machine of its own that is the
latency), p50 and p99, as a Markdown table, and as JSON with --json.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from coldrank.data.batches import DataFolder, as_tensors
from coldrank.data.read import Raw, take_rows
from coldrank.serving.export import parity
from coldrank.serving.export.aoti import load_package, write_package
from coldrank.serving.export.trained import Trained, load_trained
from coldrank.serving.export.write import load_script, save_script

Request = dict[str, Tensor]
Serve = Callable[[Request], dict[str, Tensor]]
CANDIDATES = (1, 10, 100, 500)


def request_of(trained: Trained, raw: Raw, candidates: int, *, times: bool) -> Request:
    """The user with the longest history, and the first rows' items, of the types that signature.json names.

    times: whether the user's inputs are there once per candidate.
    """
    chosen = trained.columns()
    history = next(c for f in trained.encoder.features.features if f.role == "sequence" for c in f.raw_columns)
    user = int(np.argmax(np.diff(raw[history][1])))
    rows = {True: np.arange(candidates), False: np.full(candidates if times else 1, user)}
    parts = {i.name: take_rows({i.name: raw[i.name]}, rows[i.name in chosen]) for i in trained.encoder.features.inputs}
    request = as_tensors({name: part[name] for name, part in parts.items()})
    return {name: x.to(torch.float32 if x.is_floating_point() else torch.int64) for name, x in request.items()}


def forms(trained: Trained, folder: Path, *, compiled: bool) -> dict[str, Serve]:
    """Name -> a loaded model."""
    chosen = trained.columns()
    twin = trained.twin(chosen)
    save_script(twin, folder / "model.pt")
    save_script(trained.twin(chosen, "int8"), folder / "int8.pt")
    served: dict[str, Serve] = {"eager": twin, "scripted": load_script(folder / "model.pt")}
    save_script(trained.twin(chosen, traced=True), folder / "traced.pt")
    served["traced"] = load_script(folder / "traced.pt")
    served["frozen"] = torch.jit.freeze(load_script(folder / "model.pt").eval())
    served["traced, frozen"] = torch.jit.freeze(load_script(folder / "traced.pt").eval())
    served["int8, frozen"] = torch.jit.freeze(load_script(folder / "int8.pt").eval())
    if compiled:
        write_package(twin, folder)
        served["AOTInductor"] = load_package(folder)
    return served


def check(served: dict[str, tuple[Serve, Request]]) -> None:
    """Raises SystemExit if a form answers otherwise than the first, by more than what its tables explain."""
    answers = {name: torch.stack(list(serve(request).values())) for name, (serve, request) in served.items()}
    wanted = next(iter(answers.values()))
    for name, probabilities in answers.items():
        off = float((probabilities - wanted).abs().max())
        if not off <= (0.02 if name.startswith("int8") else parity.LIMIT):
            raise SystemExit(f"{name}: probabilities differ by {off:.2g} from those of the eager form")


def measure(served: dict[str, tuple[Serve, Request]], repeats: int) -> dict[str, dict[str, float]]:
    """Name -> p50 and p99 of a call in ms."""
    taken: dict[str, list[float]] = {name: [] for name in served}
    for n in range(repeats + 10):
        for name, (serve, request) in served.items():
            start = time.thread_time_ns()
            serve(request)
            if n >= 10:  # TorchScript optimises in its first calls
                taken[name].append((time.thread_time_ns() - start) / 1e6)
    return {name: {f"p{q}": round(float(np.percentile(t, q)), 3) for q in (50, 99)} for name, t in taken.items()}


def main() -> None:
    """Prints the table."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--run", type=Path, required=True, help="run folder")
    p.add_argument("--data", type=Path, required=True, help="prepared data")
    p.add_argument("--repeats", type=int, default=300, help="calls of each form (default: 300)")
    p.add_argument("--no-aoti", action="store_true", help="without AOTInductor, which needs a C++ compiler")
    p.add_argument("--json", type=Path, help="also write the figures here")
    args = p.parse_args()
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    torch.set_num_threads(1)
    trained = load_trained(args.run)
    data = DataFolder.open(args.data)
    raw = parity.sample(trained, data, trained.config.data.evaluate, max(CANDIDATES))
    figures: dict[str, dict[int, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        models = forms(trained, Path(folder), compiled=not args.no_aoti)
        for count in tqdm(CANDIDATES, desc="candidates"):
            once, times = (request_of(trained, raw, count, times=t) for t in (False, True))
            served = {name: (model, once) for name, model in models.items()}
            served |= {f"{name}, user N times": (models[name], times) for name in ("scripted", "frozen")}
            check(served)
            for name, percentiles in measure(served, args.repeats).items():
                figures.setdefault(name, {})[count] = percentiles
    rows = [[name, *(f"{f[c]['p50']:.2f} / {f[c]['p99']:.2f}" for c in CANDIDATES)] for name, f in figures.items()]
    print(tabulate(rows, headers=["ms, p50 / p99", *map(str, CANDIDATES)], tablefmt="github"))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
