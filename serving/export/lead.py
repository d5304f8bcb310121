"""The delta that leads a model in service on to a new export."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from coldrank.data.errors import UserError
from coldrank.serving.export.digests import verify
from coldrank.serving.export.parity import LIMIT, Request, difference_of
from coldrank.serving.export.structure import load_script, structure
from coldrank.serving.update import State, delta
from coldrank.train.difference import difference
from coldrank.train.load import load

# Fields of a config that training and evaluation alone read.
_TRAINING = ("name", "seed", "cold_weight", "metrics", "retrieval", "data", "optim", "train", "cohorts", "sharding")


def check_base(base: Path) -> None:
    """Raises UserError if a folder is no whole export that takes deltas."""
    verify(base)
    if not (base / "model.pt").exists():
        raise UserError(f"--delta {base}: holds no model.pt; a compiled package takes no delta")


def write_delta(base: Path, folder: Path, requests: Iterable[Request]) -> None:
    """Writes `delta.pt` into a new export folder. What is written is read again, applied to the model of `base`, and
    held against the new model: the state bit for bit, and the answers to the requests.

    Raises UserError if the base differs in more than its state.
    """
    _check_signature(base, folder)
    old, new = (load_script(f / "model.pt") for f in (base, folder))
    _check_structure(base, folder, old.state, new.state)
    changes = delta(old.state, old.version, new.state, new.version)
    torch.save(changes, folder / "delta.pt")
    old.update(torch.load(folder / "delta.pt", weights_only=True))
    for name, value in new.state.items():
        if not _same_bits(old.state[name], value):
            raise UserError(f"--delta {base}: leads to another {name} than the new model's; export it whole")
    with torch.inference_mode():
        for request in requests:
            check_answers(old(request), new(request), f"--delta {base}")


def check_answers(updated: State, whole: State, what: str) -> None:
    """Raises UserError if an updated model answers otherwise than the new one."""
    for task, wanted in whole.items():
        if not bool((difference_of(updated[task], wanted) <= LIMIT).all()):
            raise UserError(f"{what}: an updated model answers {task} otherwise than the new one; export it whole")


def _check_signature(base: Path, folder: Path) -> None:
    before, after = (_read(f / "signature.json") for f in (base, folder))
    for part in ("inputs", "outputs", "temperature"):
        if before.get(part) != after.get(part):
            raise UserError(
                f"--delta {base}: signature.json has other {part} than this run; export it whole, without --delta"
            )


def _check_structure(base: Path, folder: Path, before: State, after: State) -> None:
    if structure(base / "model.pt") == structure(folder / "model.pt"):
        return
    lines = difference(*(load(str(f / "config.json")) for f in (folder, base))).splitlines()
    changed = [line for line in lines if line.partition(":")[0].partition(".")[0] not in _TRAINING]
    kinds = {n: (t.shape, t.dtype) for n, t in before.items()}
    other = [n for n, t in after.items() if kinds.get(n) != (t.shape, t.dtype)]
    if changed:
        why = f"its config differs ({changed[0]})"
    elif other:
        why = f"tensor {other[0]} has another shape or type there; were its --tables the same?"
    else:
        why = "its code or constants differ"
    raise UserError(f"--delta {base}: {why}, which a delta does not change; export it whole, without --delta")


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are equal, NaN and the sign of 0 included."""
    return torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values
