"""Warm start: a new run begins with the weights of another run, of the same arm or of another one.

What is loaded has one meaning there and here. A table comes with what gives its rows their meaning, the vocabulary or
the bucket edges: so an id that the other run did not know reads the row of unknown ids. Dense weights come if both runs
read the same inputs in the same order, with the moments that standardise the numbers; gates, if the personalization
code is the same too. Weights only: optimizers and schedules start anew.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coldrank.data.errors import UserError
from coldrank.models.embeddings import fixed_features
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.modules import PersonalizedGate, PosoMultiheadAttention
from coldrank.train import checkpoint
from coldrank.train.checks import validate
from coldrank.train.distributed.tables import whole_shape
from coldrank.train.load import load
from coldrank.train.run import Run

_TABLE = "embeddings.ebc.embedding_bags."
State = dict[str, Any]


@dataclass(slots=True)
class Report:
    """What became of each tensor. Names are those of the new run; moved: loaded from another name or shape, name ->
    how; left: as initialised, name -> why; unused: tensors of the other run that found no place."""

    source: str = ""
    loaded: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """The report in one line."""
        return (
            f"weights of {self.source}: {len(self.loaded)} tensors loaded, {len(self.moved)} renamed or converted, "
            f"{len(self.left)} left as initialised, {len(self.unused)} of the other run not used"
        )

    def __str__(self) -> str:
        """The whole report."""
        parts = [
            ("loaded", self.loaded),
            ("renamed or converted", [f"{name}: {how}" for name, how in self.moved.items()]),
            ("left as initialised", [f"{name}: {why}" for name, why in self.left.items()]),
            ("of the other run, not used", self.unused),
        ]
        body = "".join(f"\n{title}:\n" + "".join(f"  {line}\n" for line in lines) for title, lines in parts if lines)
        return f"{self.line}\n{body}"


def warm_start(run: Run) -> Report:
    """Loads what fits from the last checkpoint of the run `config.train.warm_start` into the model and the encoder,
    which is fitted.

    Called by all ranks. Raises UserError if the folder holds no run or no checkpoint that can be used, or if nothing
    fits.
    """
    config, model, features, state = run.config, run.model, run.encoder.features, run.state
    folder = Path(config.train.warm_start)
    if not (folder / "config.json").exists():
        raise UserError(f"train.warm_start={folder}: holds no run (no config.json)")
    theirs = validate(load(str(folder / "config.json")))
    path, shapes = checkpoint.newest(folder / "checkpoints", run.ranks)
    report = Report(source=str(path))
    here = {**_flat("model", state), **_flat("encoder", state)}
    names = {name: _there(name, config.train.warm_rename) for name in here}
    # As many ids as are there.
    ids = run.dynamic_ids.sized(
        checkpoint.encoder_shapes({n: shapes[there] for n, there in names.items() if there in shapes})
    )
    here |= _flat("encoder", {"encoder": ids})
    for old in config.train.warm_rename:
        if not any(f".{old}." in f"{name}." for name in shapes):
            raise UserError(f"train.warm_rename: {path} has no {old!r}")
    reasons = _reasons(model, features, theirs, list(here), config.train.warm_rename)
    folds = {f"model.{name}": m for name, m in _modules(model) if isinstance(m, PosoMultiheadAttention)}
    targets: dict[str, Tensor] = {}
    plain: dict[str, tuple[PosoMultiheadAttention, Tensor]] = {}
    for name, value in here.items():
        there, shape = names[name], whole_shape(value)
        attention = folds.get(name.removesuffix(".value"))
        if there not in shapes:
            report.left[name] = "not in the checkpoint"
        elif name in reasons:
            report.left[name] = reasons[name]
        elif shapes[there] == shape:
            targets[there] = value
            if there == name:
                report.loaded.append(name)
            else:
                report.moved[name] = f"was {there}"
        elif attention is not None and attention.value_folds > 1 and shapes[there] == _plain_shape(attention):
            targets[there] = torch.empty(shapes[there], device=value.device)
            plain[name] = attention, targets[there]
            report.moved[name] = f"folds that sum to {there}"
        else:
            report.left[name] = f"shape {shape} here, {shapes[there]} there"
    if not targets:
        raise UserError(
            f"train.warm_start={folder}: nothing of it fits this run; the first: {next(iter(report.left.items()))}"
        )
    report.unused = [name for name in shapes if name not in targets]
    checkpoint.load_into(path, targets)
    run.dynamic_ids.take({name: t for name, t in ids.items() if names[f"encoder.{name}"] in targets})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # the same draws on every rank
        for attention, value in plain.values():
            attention.take_value(value)
    return report


def _flat(part: str, state: State) -> State:
    return {f"{part}.{name}": value for name, value in state[part].items()}


def _modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules by the names that a state dict gives them: without the wrappers of DistributedModelParallel and DDP."""
    wrappers = ("_dmp_wrapped_module", "module")
    return [(".".join(p for p in name.split(".") if p not in wrappers), m) for name, m in model.named_modules()]


def _there(name: str, rename: dict[str, str]) -> str:
    """The name in the other run. rename: other run's name -> ours, of a table or of the start of a parameter's name."""
    for old, new in rename.items():
        if f".{new}." in f"{name}.":
            return f"{name}.".replace(f".{new}.", f".{old}.", 1)[:-1]
    return name


def _plain_shape(attention: PosoMultiheadAttention) -> list[int]:
    heads, dim, width = attention.value.shape
    return [heads, dim, width // attention.value_folds]


def _reasons(
    model: nn.Module, ours: FeatureSet, theirs: FeatureSet, names: list[str], rename: dict[str, str]
) -> dict[str, str]:
    """Name -> why it is left although its shape may fit."""
    inputs, code = _differ(_inputs(theirs), _inputs(ours)), _differ(_codes(theirs), _codes(ours))
    in_gates = {f"model.{prefix}." for prefix, m in _modules(model) if isinstance(m, PersonalizedGate)}
    others = {new: old for old, new in rename.items()}
    tables = {t.name: _rows_differ(t, ours, theirs, others.get(t.name, t.name)) for t in ours.tables}
    reasons: dict[str, str | None] = {}
    for name in names:
        part, _, rest = name.partition(".")
        table = rest.removeprefix(_TABLE) if part == "model" else rest.removeprefix("maps.").removeprefix("buckets.")
        if table != rest:
            reasons[name] = tables.get(table.split(".")[0])
        else:
            reasons[name] = inputs or (code if name.startswith(tuple(in_gates)) else None)
    return {name: why for name, why in reasons.items() if why}


def _inputs(features: FeatureSet) -> list[str]:
    """What the dense part reads, in its order: sparse inputs, numbers, sequences."""
    fixed = [f"{f.name}[{features.dim(f)}]{_vector(f)}" for f in fixed_features(features)]
    numbers = [f"{f.name}({f.transform})" for f in features.numbers]
    of_position = lambda f: f"({f.transform})" * (f.kind == "number")
    aligned = [f for fs in features.sequences.values() for f in fs]
    sequences = [f"{f.name}[{f.length}, {features.dim(f)}]{of_position(f)}" for f in aligned]
    return fixed + numbers + sequences


def _meaning(f: Feature, features: FeatureSet) -> list[object]:
    """What gives the rows of a feature's own table their meaning; of a cross its name as well, with which it hashes."""
    name = f.name if f.kind == "cross" else ""
    return [name, *((p.kind, p.raw_columns, p.edges, p.buckets, p.default) for p in features.parts(f))]


def _vector(f: Feature) -> str:
    return f" of {f.length} numbers{', of length 1' * f.unit}" * (f.kind == "vector")


def _codes(features: FeatureSet) -> list[str]:
    return [f"{f.name}[{features.dim(f)}] of {f.raw_columns[0]}" for f in features.codes]


def _differ(there: list[str], here: list[str]) -> str | None:
    if there == here:
        return None
    changes = [f"+{name}" for name in here if name not in there] + [f"-{name}" for name in there if name not in here]
    return f"the inputs differ ({', '.join(changes[:3]) or 'another order'}{', ...' if len(changes) > 3 else ''})"


def _rows_differ(table: Table, ours: FeatureSet, theirs: FeatureSet, other: str) -> str | None:
    """Why a row of this table would mean something else in the other run's."""
    match = [t for t in theirs.tables if t.name == other]
    if not match:
        return None  # not in the checkpoint: said by name
    kept = {name: getattr(match[0], name) for name in ("min_count", "admission", "counters")}
    if replace(match[0], name=table.name, init=table.init) != replace(table, **kept):
        return f"the table is declared otherwise there: {match[0]}"
    meaning = [
        [_meaning(f, features) for f in features.by_table[name] if f.kind != "id"]
        for features, name in ((ours, table.name), (theirs, other))
    ]
    return None if meaning[0] == meaning[1] else "its feature is declared otherwise there"
