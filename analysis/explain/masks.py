"""Inputs that are masked: the values of a row's partner take the place of its own."""

from dataclasses import dataclass

import torch
from torchrec import KeyedJaggedTensor

from coldrank.data.errors import UserError, meant
from coldrank.models.batch import Batch
from coldrank.models.features import FeatureSet
from coldrank.train.config import RunConfig


@dataclass(frozen=True, slots=True)
class Mask:
    """Inputs that lose their meaning together."""

    name: str
    """The mask's name in explain.json."""
    title: str
    """What a reader calls it."""
    features: tuple[str, ...]
    """Masked features outside sequences."""
    sequences: tuple[str, ...] = ()
    """Masked sequences, whole."""


def masked(batch: Batch, other: Batch, mask: Mask, features: FeatureSet) -> Batch:
    """The batch with the masked inputs of its partners in place of its own."""
    sequences = features.sequences
    taken = {f.name for name in mask.sequences for f in sequences[name]} | set(mask.features)
    keys = {key for f in features.sparse if f.name in taken for key in f.keys}
    ours, theirs = batch.sparse.to_dict(), other.sparse.to_dict()
    order = batch.sparse.keys()
    parts = [theirs[key] if key in keys else ours[key] for key in order]
    sparse = KeyedJaggedTensor(
        keys=order,
        values=torch.cat([part.values() for part in parts]),
        lengths=torch.cat([part.lengths() for part in parts]),
        weights=None if batch.sparse.weights_or_none() is None else torch.cat([part.weights() for part in parts]),
    )
    slots = [i for i, f in enumerate(features.numbers) if f.name in taken]
    rows = [i for i, name in enumerate(sequences) if name in mask.sequences]
    dense, lengths = batch.dense.clone(), batch.sequence_lengths.clone()
    dense[:, slots], lengths[rows] = other.dense[:, slots], other.sequence_lengths[rows]
    floats = batch.floats
    if floats is not None and other.floats is not None:
        floats = floats.clone()
        for span in (span for name, span in features.float_spans.items() if name in taken):
            floats[:, span] = other.floats[:, span]
    return Batch(sparse, dense, lengths, batch.labels, batch.keys, floats=floats)


def masks_of(config: RunConfig, features: FeatureSet, named: list[str]) -> list[Mask]:
    """What is masked in a run: the columns of the personalization code, and named inputs.

    The columns are those of the features of role `pc`, which a base declares too, though it has no gate that takes
    them. They are masked wherever they are read, among the ordinary inputs alone, and in the code alone.
    named: columns (each masks all ordinary features that read it), features or sequences; empty: the first id of user,
        item and context, and every sequence.
    """
    columns = dict.fromkeys(c for f in config.features if f.role == "pc" for c in f.raw_columns)
    plain = [f for f in features.features if f.role not in ("pc", "sequence")]
    inputs = tuple(f.name for f in plain if columns.keys() & set(features.columns(f)))
    code = tuple(f.name for f in features.features if f.role == "pc")
    label, masks = " and ".join(columns), []
    if inputs or code:
        masks.append(Mask("pc_columns", f"{label}, wherever read", (*inputs, *code)))
    if inputs:
        masks.append(Mask("pc_columns_in_inputs", f"{label}, in the inputs", inputs))
    if code:
        masks.append(Mask("pc_columns_in_code", f"{label}, in the code", code))
    return masks + [_named(name, features, config.name) for name in named or _first_names(features)]


def _first_names(features: FeatureSet) -> list[str]:
    ids = [f for f in features.features if f.kind == "id"]
    first = [next((f.name for f in ids if f.role == role), None) for role in ("user", "item", "context")]
    return [name for name in first if name] + list(features.sequences)


def _named(name: str, features: FeatureSet, arm: str) -> Mask:
    if name in features.sequences:
        return Mask(name, name, (), (name,))
    readers = [f for f in features.features if name == f.name or name in features.columns(f)]
    inputs = tuple(f.name for f in readers if f.role not in ("pc", "sequence"))
    if inputs:
        return Mask(name, name, inputs)
    if any(f.role == "sequence" for f in readers):
        raise UserError(f"--mask {name}: part of sequence {readers[0].sequence!r}, which is masked as a whole")
    names = [f.name for f in features.features if f.role not in ("pc", "sequence")]
    raise UserError(f"--mask {name}: no input of {arm}; {meant(name, [*features.sequences, *names])}")
