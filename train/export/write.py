"""Writes an export folder."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coldrank.models.serving.tables import Precision
from coldrank.models.serving.twin import Twin
from coldrank.models.serving.update import State, delta
from coldrank.train.config import to_dict
from coldrank.train.data.batches import DataFolder
from coldrank.train.errors import UserError
from coldrank.train.export import parity
from coldrank.train.export.aoti import by_user, load_package, write_package
from coldrank.train.export.signature import signature
from coldrank.train.export.trained import Trained, load_trained
from coldrank.train.export.triton import write_repository
from coldrank.train.output import check_new, new_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is to be exported. data: prepared samples (None: where the run read them). split: compared (empty: the run's
    evaluation split). candidate: changes of `candidate_columns`. allow_loss: of GAUC, by smaller tables.
    delta: export folder that is in service, from which delta.pt is to lead to this one. aoti: an
    AOTInductor package in the place of TorchScript."""

    run: Path
    out: Path
    data: Path | None = None
    split: str = ""
    tables: Precision = "float32"
    candidate: tuple[str, ...] = ()
    allow_loss: bool = False
    delta: Path | None = None
    aoti: bool = False


def export(request: Request) -> dict[str, Any]:
    """Writes the folder, whole or not at all; returns what parity.json holds. Raises UserError for what cannot be exported."""
    if request.aoti and request.delta is not None:
        raise UserError("--format aoti: a compiled package takes no delta; export it whole, without --delta")
    check_new("--out", request.out)
    trained = load_trained(request.run)
    data = DataFolder.open(request.data or _data_of(request.run))
    twin = trained.twin(trained.columns(request.candidate), request.tables)
    with new_folder(request.out) as folder:
        if request.aoti:
            write_package(twin, folder)
        else:
            save_script(twin, folder / "model.pt")
            write_repository(twin, folder / "triton")
        meanings = {c["name"]: c["meaning"] for c in data.manifest["columns"]}
        told = signature(twin.inputs, trained.tasks, meanings, trained.temperature)
        _json(folder / "signature.json", told | {"step": trained.step, "version": int(twin.version)})
        _json(folder / "config.json", to_dict(trained.config))
        if request.delta is not None:
            torch.save(lead(request.delta, folder), folder / "delta.pt")
        found = hold(trained, folder, data, request)
        _json(folder / "parity.json", found)
    return found


def save_script(twin: Twin, path: Path) -> None:
    """Writes the model as TorchScript."""
    with warnings.catch_warnings():
        # Of torch 2.13; a served file that needs torch alone, in C++ too, is what TorchScript is for.
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        torch.jit.save(torch.jit.script(twin), str(path))


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Reads a model that `save_script` wrote."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        return torch.jit.load(str(path))


def hold(trained: Trained, folder: Path, data: DataFolder, request: Request) -> dict[str, Any]:
    """Compares the exported file with the trained model; raises UserError where it falls short, else returns what was found."""
    path = folder / ("model.pt2" if request.aoti else "model.pt")
    model = by_user(load_package(folder), trained.reads) if request.aoti else load_script(path)
    exact = request.tables == "float32"
    split = request.split or trained.config.data.evaluate
    raw = parity.sample(trained, data, split, parity.ROWS if exact else parity.METRIC_ROWS)
    with torch.inference_mode():
        both = parity.score_both(trained, model, raw)
    changes = parity.changes(both, trained)
    if exact:
        parity.check_difference(both, f"{request.run}")
    elif not request.allow_loss:
        parity.check_loss(changes, f"--tables {request.tables}")
    return {
        "format": "aoti" if request.aoti else "torchscript",
        "tables": request.tables,
        "bytes": path.stat().st_size,
        "data": str(data.path),
        "split": split,
        "rows": both.trained.height,
        "largest_difference": both.worst,
        "largest_difference_by_task": both.difference,
        "metrics": changes,
    }


def lead(base: Path, folder: Path) -> State:
    """The delta between two export folders; applied to the base it gives the very state of the other. Raises UserError if they
    differ in more than their state."""
    for name, parts in (
        ("signature.json", ("inputs", "outputs")),
        ("config.json", ("features", "tables", "model", "two_tower", "tasks", "hooks")),
    ):
        before, after = (_read(f / name) for f in (base, folder))
        for part in parts:
            if before.get(part) != after.get(part):
                raise UserError(
                    f"--delta {base}: {name} has other {part} than this run; export it whole, without --delta"
                )
    old, new = (load_script(f / "model.pt") for f in (base, folder))
    for name, value in new.state.items():
        if name not in old.state or old.state[name].shape != value.shape or old.state[name].dtype != value.dtype:
            raise UserError(
                f"--delta {base}: tensor {name} has another shape or type there; were its --tables the same?"
            )
    changes = delta(old.state, new.state)
    old.update(changes)
    assert all(torch.equal(old.state[name], value) for name, value in new.state.items())
    return changes


def _data_of(run: Path) -> Path:
    try:
        path = Path(json.loads((run / "run.json").read_text())["data_path"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{run}: run.json does not tell the run's data ({error}); name it with --data") from None
    if not path.exists():
        raise UserError(f"{path}: the data that {run} was trained on is not there; name its folder with --data")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    except (OSError, ValueError) as error:
        raise UserError(f"{path.parent}: no export folder ({error})") from None


def _json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
