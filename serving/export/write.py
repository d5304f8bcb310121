"""Writes an export folder."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.data.location import location
from coldrank.data.output import check_new, new_folder
from coldrank.data.read import Raw
from coldrank.serving.export import parity
from coldrank.serving.export.aoti import by_user, load_package, write_package
from coldrank.serving.export.digests import write_digests
from coldrank.serving.export.lead import check_base, write_delta
from coldrank.serving.export.signature import signature
from coldrank.serving.export.structure import load_script, structure
from coldrank.serving.export.trained import Trained, load_trained
from coldrank.serving.export.triton import write_repository
from coldrank.serving.tables import Precision
from coldrank.serving.twin import Twin
from coldrank.serving.update import version_of
from coldrank.train.config import to_dict


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest:
    """What is to be exported. data: prepared samples (None: where the run read them). split: compared (empty: the run's
    evaluation split). candidate: changes of `candidate_columns`. allow_loss: of GAUC or XAUC, by smaller tables.
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


def export(request: ExportRequest) -> dict[str, Any]:
    """Writes the folder, whole or not at all; returns what parity.json holds. Raises UserError for what cannot be
    exported."""
    if request.aoti and request.delta is not None:
        raise UserError("--format aoti: a compiled package takes no delta; export it whole, without --delta")
    check_new("--out", request.out)
    if request.delta is not None:
        check_base(request.delta)
    trained = load_trained(request.run)
    data = DataFolder.open(request.data or _data_of(request.run))
    twin = trained.twin(trained.columns(request.candidate), request.tables)
    if request.aoti and twin.core.traced:
        raise UserError(
            "--format aoti: the model or one of its hooks is served by tracing; --format torchscript takes it"
        )
    with new_folder(request.out) as folder:
        save_script(twin, folder / "model.pt")
        if request.aoti:
            write_package(twin, folder)
            (folder / "model.pt").unlink()  # written for its version alone
        else:
            write_repository(twin, folder / "triton")
        meanings = {c["name"]: c["meaning"] for c in data.manifest["columns"]}
        described = signature(twin.inputs, trained.config.tasks, meanings, trained.temperature)
        _json(folder / "signature.json", described | {"step": trained.step, "version": int(twin.version)})
        _json(folder / "config.json", to_dict(trained.config))
        raw = recorded(trained, data, request)
        if request.delta is not None:
            names = trained.reads
            write_delta(request.delta, folder, (parity.request_of(part, names) for part in parity.in_batches(raw)))
        held = hold(trained, folder, raw, request) | {"data": str(data.path), "split": _split(trained, request)}
        _json(folder / "parity.json", held)
        write_digests(folder)
    return held


def save_script(twin: Twin, path: Path) -> None:
    """Writes the model as TorchScript, and gives it the version of all that its answers depend on."""
    with warnings.catch_warnings():
        # Of torch 2.13; a served file that needs torch alone, in C++ too, is what TorchScript is for.
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        script = torch.jit.script(twin)
        torch.jit.save(script, str(path))
        twin.version.copy_(version_of(twin.state, structure(path)))  # which is the script's as well
        torch.jit.save(script, str(path))


def recorded(trained: Trained, data: DataFolder, request: ExportRequest) -> Raw:
    """The samples that an export is compared on."""
    rows = parity.ROWS if request.tables == "float32" else parity.METRIC_ROWS
    return parity.sample(trained, data, _split(trained, request), rows)


def hold(trained: Trained, folder: Path, raw: Raw, request: ExportRequest) -> dict[str, Any]:
    """Compares the exported file with the trained model; raises UserError where it falls short, else returns what was
    found."""
    path = folder / ("model.pt2" if request.aoti else "model.pt")
    model = by_user(load_package(folder), trained.reads) if request.aoti else load_script(path)
    exact = request.tables == "float32"
    with torch.inference_mode():
        both = parity.score_both(trained, model, raw)
    parity.check_finite(both, f"{request.run}")
    changes = parity.changes(both, trained)
    if exact:
        parity.check_difference(both, f"{request.run}")
    elif not request.allow_loss:
        parity.check_loss(changes, f"--tables {request.tables}")
    return {
        "format": "aoti" if request.aoti else "torchscript",
        "tables": request.tables,
        "bytes": path.stat().st_size,
        "rows": both.trained.height,
        "largest_difference": both.worst,
        "largest_difference_by_task": both.difference,
        "metrics": changes,
    }


def _split(trained: Trained, request: ExportRequest) -> str:
    return request.split or trained.config.data.evaluate


def _data_of(run: Path) -> Path:
    try:
        path = location(json.loads((run / "run.json").read_text())["data_path"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{run}: run.json does not tell the run's data ({error}); name it with --data") from None
    if not path.exists():
        raise UserError(f"{path}: the data that {run} was trained on is not there; name its folder with --data")
    return path


def _json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
