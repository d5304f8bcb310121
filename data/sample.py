"""The rows that a run is explained on, each with a partner whose values take the place of masked ones.

B rows of a batch, N rows of the sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torchrec import KeyedJaggedTensor
from tqdm import tqdm

from coldrank.data.batches import BatchMaker
from coldrank.data.errors import UserError
from coldrank.data.read import Column, Raw, SampleReader, take
from coldrank.models.batch import Batch
from coldrank.models.features import FeatureSet
from coldrank.train.config import RunConfig

ROWS_PER_BATCH = 2048


@dataclass(frozen=True, slots=True)
class Mask:
    """Inputs that lose their meaning together. features: names of those outside sequences; sequences: names of whole
    ones."""

    name: str
    title: str
    features: tuple[str, ...]
    sequences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """raw: columns of N rows, in order of time. partner: int64 [N], a permutation, the same for every run on the
    rows."""

    raw: Raw
    partner: np.ndarray

    def __len__(self) -> int:
        return len(self.partner)

    def batches(self, make: BatchMaker) -> Iterator[tuple[Raw, Batch, Batch]]:
        """Raw columns, batch, and the batch of the partners, `ROWS_PER_BATCH` rows at a time."""
        for at in range(0, len(self), ROWS_PER_BATCH):
            index = np.arange(at, min(at + ROWS_PER_BATCH, len(self)))
            raw, other = (_rows(self.raw, rows) for rows in (index, self.partner[index]))
            yield raw, make(raw), make(other)


def draw(reader: SampleReader, rows: int, seed: int) -> Sample:
    """`rows` rows of a split drawn without replacement (all if it has fewer); the same rows for the same split and
    seed."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(reader.total_rows, min(rows, reader.total_rows), replace=False))
    parts, at = [], 0
    for raw in tqdm(reader.epoch(0), total=reader.batches, desc="read", unit="batch"):
        end = at + _count(raw)
        low, high = np.searchsorted(chosen, (at, end))
        parts.append(_rows(raw, chosen[low:high] - at))
        at = end
    whole = {name: _concatenate([part[name] for part in parts]) for name in parts[0]}
    return Sample(whole, rng.permutation(len(chosen)))


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
    )
    slots = [i for i, f in enumerate(features.numbers) if f.name in taken]
    rows = [i for i, name in enumerate(sequences) if name in mask.sequences]
    dense, lengths = batch.dense.clone(), batch.sequence_lengths.clone()
    dense[:, slots], lengths[rows] = other.dense[:, slots], other.sequence_lengths[rows]
    return Batch(sparse, dense, lengths, batch.labels, batch.keys)


def masks_of(config: RunConfig, features: FeatureSet, named: list[str]) -> list[Mask]:
    """What is masked in a run: the columns of the personalization code, and named inputs.

    The columns are those of the features of role `pc`, which a base declares too, though it has no gate that takes
    them: masked wherever they are read, among the ordinary inputs alone, and in the code alone. `named`: a column (all
    ordinary features that read it), a feature or a sequence. By default the first id of user, item and context, and
    every sequence.
    """
    columns = dict.fromkeys(c for f in config.features if f.role == "pc" for c in f.raw_columns)
    plain = [f for f in features.features if f.role not in ("pc", "sequence")]
    inputs = tuple(f.name for f in plain if columns.keys() & set(f.raw_columns))
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
    readers = [f for f in features.features if name == f.name or name in f.raw_columns]
    found = tuple(f.name for f in readers if f.role not in ("pc", "sequence"))
    if found:
        return Mask(name, name, found)
    if any(f.role == "sequence" for f in readers):
        raise UserError(f"--mask {name}: part of sequence {readers[0].sequence!r}, which is masked as a whole")
    names = [f.name for f in features.features if f.role not in ("pc", "sequence")]
    raise UserError(f"--mask {name}: no input of {arm}; there are {', '.join([*features.sequences, *names])}")


def _count(raw: Raw) -> int:
    column = next(iter(raw.values()))
    return len(column[1]) - 1 if isinstance(column, tuple) else len(column)


def _rows(raw: Raw, index: np.ndarray) -> Raw:
    return {name: take(column, index) for name, column in raw.items()}


def _concatenate(parts: list[Column]) -> Column:
    if not isinstance(parts[0], tuple):
        return np.concatenate([part for part in parts if not isinstance(part, tuple)])
    pairs = [part for part in parts if isinstance(part, tuple)]
    lengths = np.concatenate([np.diff(offsets) for _, offsets in pairs])
    return np.concatenate([values for values, _ in pairs]), np.concatenate([[0], np.cumsum(lengths)])
