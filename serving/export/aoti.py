"""The model as an AOTInductor package: torch.export's graph compiled to machine code, beside the script that checks its
inputs."""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from coldrank.serving.compiled import OneUser, Ready, example, shapes
from coldrank.serving.export.parity import Request, Serve
from coldrank.serving.twin import Twin


def write_package(twin: Twin, folder: Path) -> None:
    """Writes `model.pt2` and `ready.pt`. Compiling needs a C++ compiler."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        torch.jit.save(torch.jit.script(Ready(twin)), str(folder / "ready.pt"))
    with torch.no_grad(), warnings.catch_warnings():
        # Of torch 2.13's own code while it exports.
        warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated", FutureWarning)
        ready = Ready(twin)(example(twin.inputs))
        program = torch.export.export(OneUser(twin), tuple(ready), dynamic_shapes={"ready": shapes(twin)})
        torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "model.pt2"))


def load_package(folder: Path) -> Serve:
    """The compiled model behind its checks: a request of one user -> task: its answers [C]."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        ready = torch.jit.load(str(folder / "ready.pt"))
    # The loader itself, as C++ has it: what wraps it in Python reads the signature anew in every call.
    run = torch._inductor.aoti_load_package(str(folder / "model.pt2")).loader.run
    return lambda request: dict(zip(ready.tasks, run(ready(request)), strict=True))


def by_user(serve: Serve, names: list[str]) -> Serve:
    """A model for requests of one user, for requests of B users with a candidate each."""

    def each(request: Request) -> dict[str, Tensor]:
        parts = {
            n: request[n].split(request[f"{n}.lengths"].tolist() if f"{n}.lengths" in request else 1) for n in names
        }
        parts |= {n: request[n].split(1) for n in request if n not in parts}
        given = [serve(dict(zip(parts, values, strict=True))) for values in zip(*parts.values(), strict=True)]
        return {task: torch.cat([g[task] for g in given]) for task in given[0]}

    return each
