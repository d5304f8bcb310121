"""Raw columns -> Batch, and the prepared data folder as a run sees it."""

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchrec import KeyedJaggedTensor

from coldrank.data import parquet
from coldrank.data.errors import UserError
from coldrank.data.location import named
from coldrank.data.log import SAMPLED
from coldrank.data.read import Column, Prefetcher, Raw, Reader
from coldrank.data.read_manifest import read_manifest
from coldrank.models.batch import Batch
from coldrank.models.encode import FeatureEncoder
from coldrank.models.encode_many import Encoded, ManyEncoder
from coldrank.models.features import Input
from coldrank.models.heads.head import Head
from coldrank.models.unpooled import Unpooled

# Held while a module is called here, in a background thread, and by whoever changes what such a call does.
MODULE_CALLS = threading.Lock()
# Fewer, and the encoder's time goes into small operations; more, and it goes into memory.
MANY_ROWS = 8192
KEYS = ("user_id", "item_id", "time", "user_views", "item_views")


@dataclass(slots=True)
class DataFolder:
    """A folder written by `coldrank prepare`."""

    path: Path
    """Where it lies."""
    manifest: dict[str, Any]
    """What its manifest.json says."""
    since: str = ""
    """The first period that is read (empty: all are)."""
    _checked: set[Path] = field(default_factory=set)
    """Files whose rows have been compared with the manifest's."""

    @classmethod
    def open(cls, path: Path) -> "DataFolder":
        """Reads the manifest. Raises UserError if there is none that can be read."""
        return cls(path, read_manifest(path))

    @property
    def digest(self) -> str:
        """Tells this data from other data: SHA-256 of the manifest."""
        with named(self.path):
            return hashlib.sha256((self.path / "manifest.json").read_bytes()).hexdigest()

    def read_since(self, period: str) -> "DataFolder":
        """The folder without the samples of earlier periods. Raises UserError for a period that leaves none out, or
        that the data does not have."""
        names = sorted({p["period"] for p in self.manifest["partitions"]})
        if period and period not in names[1:]:
            have = f"after the first, {names[0]} to {names[-1]}" if names else "and it has none"
            raise UserError(f"data.since={period}: must be one of the periods of {self.path} {have}")
        return DataFolder(self.path, self.manifest, period)

    @property
    def partitions(self) -> list[dict[str, Any]]:
        """Those of the manifest that are read."""
        return [p for p in self.manifest["partitions"] if p["period"] >= self.since]

    def files(self, splits: tuple[str, ...]) -> list[Path]:
        """Parquet files of the splits, in order of time. Raises UserError for a split that the data does not have."""
        have, since = {p["split"] for p in self.partitions}, f" since {self.since}" if self.since else ""
        for split in splits:
            if split not in have:
                raise UserError(f"{self.path}: no split {split!r}{since}; it has {', '.join(sorted(have))}")
        parts = [p for p in self.partitions if p["split"] in splits]
        return self.paths(sorted(parts, key=lambda p: (p["time_min"], p["path"])))

    def paths(self, partitions: Iterable[dict[str, Any]]) -> list[Path]:
        """Parquet files of some of the manifest's partitions.

        Raises UserError for a file that is missing, cannot be read, or has other rows than the manifest says.
        """
        files = []
        for partition in partitions:
            path = self.path / partition["path"]
            if path not in self._checked:
                if (rows := parquet.rows(path)) != partition["rows"]:
                    raise UserError(f"{path}: has {rows:,} rows; manifest.json says {partition['rows']:,}")
                self._checked.add(path)
            files.append(path)
        return files

    def columns(self) -> set[str]:
        """Names of the sample columns."""
        return {c["name"] for c in self.manifest["columns"]}

    def truths(self, tasks: Iterable[str]) -> list[str]:
        """`true_<task>` columns that the data has, as simulated logs know their probabilities; and `sampled`, which
        tells sampled negatives."""
        return [n for n in [*(f"true_{t}" for t in tasks), SAMPLED] if n in self.columns()]


class BatchMaker:
    """Raw columns of B samples -> Batch, by the encoder of the model. Labels are float32 [B, T], keys int64 [B].

    weight: column of the samples' weights in the loss; empty: each weighs 1. unpooled: the tables that the model reads
    so, if any is."""

    def __init__(
        self,
        encoder: FeatureEncoder,
        tasks: Mapping[str, Head],
        truths: list[str] | None = None,
        weight: str = "",
        unpooled: Unpooled | None = None,
    ) -> None:
        self.encoder = encoder
        self.tasks = tasks
        self.truths = truths or []
        self.weight = weight
        self._many = ManyEncoder(encoder) if ManyEncoder.can(encoder) else None
        self.unpooled = unpooled

    def columns(self, *, training: bool = False) -> list[Input]:
        """Every column to read: features, labels, keys and truths; for training, weights too."""
        specs = {c.name: c for c in self.encoder.features.inputs}
        labels = [Input(f"label_{t}", "float", problem=head.label_problem) for t, head in self.tasks.items()]
        for extra in [*labels, *(Input(k, "int") for k in KEYS), *(Input(t, "float") for t in self.truths)]:
            # A key may be a feature as well, as a number or as a checked id: read it as the feature wants it.
            specs.setdefault(extra.name, extra)
        if training and self.weight:
            specs.setdefault(self.weight, Input(self.weight, "float", problem=_below_0, required=True))
        return list(specs.values())

    @torch.no_grad()
    def __call__(self, raw: Raw) -> Batch:
        tensors = as_tensors(raw)
        with MODULE_CALLS:
            encoded = self.encoder(tensors)
            unknown = self.encoder.unknown(tensors, encoded[0])
            beside = self._of_lists(tensors, encoded)
        return self._batch(encoded, self._beside(tensors), unknown, *beside)

    @property
    def rows_at_once(self) -> int:
        """Rows that `many` is best given at once."""
        return MANY_ROWS if self._many else 1

    @torch.no_grad()
    def many(self, raw: Raw, sizes: list[int]) -> list[Batch]:
        """The batches that some rows make, each as by a call, bit for bit. sizes: rows of each."""
        if self._many is None or len(sizes) == 1:
            (_,) = sizes
            return [self(raw)]
        tensors = as_tensors(raw)
        with MODULE_CALLS:
            encoded = list(self._many(tensors, sizes))
            lists = zip(self._lists(tensors, sizes), encoded, strict=True)
            of_lists = [self._of_lists(part, of_batch) for part, of_batch in lists]
        parts = zip(*(x.split(sizes) for x in self._beside(tensors)), strict=True)
        return [self._batch(e, part, {}, *rows) for e, part, rows in zip(encoded, parts, of_lists, strict=True)]

    def _of_lists(self, tensors: dict[str, Tensor], encoded: Encoded) -> tuple[Tensor | None, Tensor | None]:
        """Weights of the values, and what is read of no table."""
        return self.encoder.weights(tensors, encoded[1]), self.encoder.floats(tensors)

    def _lists(self, tensors: dict[str, Tensor], sizes: list[int]) -> list[dict[str, Tensor]]:
        """The columns of features without a table and with weights, of each batch: a vectorised logarithm may depend on
        where a number stands."""
        of_batches: list[dict[str, Tensor]] = [{} for _ in sizes]
        features = self.encoder.features
        for column in dict.fromkeys(c for f in (*features.floats, *features.weighted) for c in f.raw_columns):
            lengths = tensors[f"{column}.lengths"].split(sizes)
            values = tensors[column].split([int(x.sum()) for x in lengths])
            for of_batch, counts, numbers in zip(of_batches, lengths, values, strict=True):
                of_batch |= {column: numbers, f"{column}.lengths": counts}
        return of_batches

    def _beside(self, tensors: dict[str, Tensor]) -> list[Tensor]:
        """Labels, keys, truths and, where there are any, weights."""
        labels = torch.stack([tensors[f"label_{t}"] for t in self.tasks], 1)
        keys = [*(tensors[k].to(torch.int64) for k in KEYS), *(tensors[t] for t in self.truths)]
        return [labels, *keys, *([tensors[self.weight].to(torch.float32)] if self.weight in tensors else [])]

    def _batch(
        self,
        encoded: Encoded,
        beside: Iterable[Tensor],
        unknown: dict[str, Any],
        value_weights: Tensor | None,
        floats: Tensor | None,
    ) -> Batch:
        values, lengths, dense, sequence_lengths = encoded
        labels, *others = beside
        names = [*KEYS, *self.truths]
        keys = dict(zip(names, others, strict=False))
        sparse = KeyedJaggedTensor(keys=self.encoder.keys, values=values, lengths=lengths, weights=value_weights)
        if self.unpooled:
            sparse.sync()  # where keys begin is found here, not on a device that would be waited for
        weights = others[len(names)] if len(others) > len(names) else None
        parts = (sparse, dense, sequence_lengths, labels, keys, unknown)
        return Batch(*parts, weights=weights, unpooled=self.unpooled, floats=floats)


def _below_0(weights: NDArray[np.floating[Any]]) -> tuple[NDArray[np.bool_], str]:
    return weights < 0, "is below 0, as no weight may be"


def as_tensors(raw: Raw) -> dict[str, Tensor]:
    """NumPy columns as tensors of the same dtype, without a copy.

    A scalar column `c` is a tensor [N]. A list column gives its values `c` [V] and their counts `c.lengths`, int64 [N].
    """
    tensors = {}
    for name, column in raw.items():
        if isinstance(column, tuple):
            tensors[name] = torch.from_numpy(column[0])
            tensors[f"{name}.lengths"] = torch.from_numpy(np.diff(column[1]))
        else:
            tensors[name] = torch.from_numpy(_writable(column))
    return tensors


def _writable(column: Column) -> np.ndarray:
    assert isinstance(column, np.ndarray)
    return column if column.flags.writeable else column.copy()


def made(
    reader: Reader,
    make: BatchMaker,
    epoch: int = 0,
    start: int = 0,
    groups: Iterable[tuple[Raw, list[int]]] | None = None,
) -> Iterator[Batch]:
    """Batches of an epoch from batch `start` on, read, checked and encoded where they are taken.

    groups: what the reader gives, if another reads it.
    """
    groups = groups or reader.several(epoch, start, make.rows_at_once)
    parts = (batch for raw, sizes in groups for batch in make.many(raw, sizes))
    return (replace(batch, sizes=reader.sizes(number)) for number, batch in enumerate(parts, start))


def batches(
    reader: Reader, make: BatchMaker, depth: int, epoch: int = 0, start: int = 0, *, pin: bool = False
) -> Prefetcher:
    """Batches of an epoch from batch `start` on, encoded `depth` ahead in a thread, from rows that another reads and
    checks meanwhile.

    pin: into page-locked memory, for a GPU to copy from while it computes.
    """

    def produce() -> Iterator[Batch]:
        with Prefetcher(lambda: reader.several(epoch, start, make.rows_at_once), 1) as groups:
            for batch in made(reader, make, epoch, start, groups):
                yield batch.pin_memory() if pin else batch

    return Prefetcher(produce, depth)
