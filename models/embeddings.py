"""The embedding stage: one EmbeddingBagCollection for user, item and sequence features.

B batch, L sequence length, D width.
"""

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedTensor, PoolingType

from coldrank.models.batch import Batch
from coldrank.models.features import Feature, FeatureSet


class Embedded(NamedTuple):
    """What the tables give for a batch.

    static: [B, D] concatenated embeddings of user, item and context features. sequences: name -> [B, L, D], positions past a
    sample's length are zero. pc: [B, D] embedding of the personalization code (D = 0 without one).
    """

    static: Tensor
    sequences: dict[str, Tensor]
    pc: Tensor

    def rows(self, rows: Tensor) -> "Embedded":
        """Some samples, without their gradients. rows: int64 [R]."""
        sequences = {name: sequence.detach()[rows] for name, sequence in self.sequences.items()}
        return Embedded(self.static.detach()[rows], sequences, self.pc.detach()[rows])


class EmbeddingStage(nn.Module):
    """Looks a batch up. All tables pool by SUM; the mean of a many-valued feature is its sum divided by its number of ids here,
    because MEAN pooling is wrong in a collection that mixes row-wise with other shardings.

    places: feature outside sequences -> its columns of `Embedded.static`."""

    def __init__(self, features: FeatureSet, device: torch.device | None = None) -> None:
        super().__init__()
        self.tables = features.tables
        self.ebc = EmbeddingBagCollection(
            tables=[
                EmbeddingBagConfig(
                    name=t.name,
                    num_embeddings=t.rows,
                    embedding_dim=t.dim,
                    feature_names=[key for f in features.by_table[t.name] for key in f.keys],
                    pooling=PoolingType.SUM,
                )
                for t in features.tables
            ],
            device=device,
        )
        fixed = [f for f in features.sparse if f.role not in ("sequence", "pc")]
        self.fixed = {f.name: f.many for f in fixed}
        self.reads = {f.name: features.table(f.table_name).reads for f in fixed}
        self.pc = [f.name for f in features.sparse if f.role == "pc"]
        self.sequences = {name: [f.name for f in _aligned(fs)] for name, fs in features.sequences.items()}
        self.sequence_keys = {f.name: f.keys for fs in features.sequences.values() for f in fs}
        self.key_index = {key: i for i, key in enumerate(k for f in features.sparse for k in f.keys)}
        ends = list(accumulate(features.dim(f) for f in fixed))
        self.places = {f.name: slice(end - features.dim(f), end) for f, end in zip(fixed, ends, strict=True)}
        self.static_dim = ends[-1]
        self.pc_dim = sum(features.dim(f) for f in features.sparse if f.role == "pc")
        self.sequence_lengths = {name: fs[0].length for name, fs in features.sequences.items()}
        self.sequence_dims = {name: sum(features.dim(f) for f in fs) for name, fs in features.sequences.items()}

    def forward(self, batch: Batch) -> Embedded:
        parts = self._split(self.ebc(batch.lookup), len(batch))
        lengths = batch.sparse.lengths().view(len(self.key_index), len(batch))
        static = [
            parts[name] / (lengths[self.key_index[name]] // self.reads[name]).clamp(min=1).unsqueeze(1)
            if many
            else parts[name]
            for name, many in self.fixed.items()
        ]
        sequences = {name: torch.cat([parts[f] for f in fs], 2) for name, fs in self.sequences.items()}
        pc = torch.cat([parts[name] for name in self.pc] or [parts[next(iter(self.fixed))][:, :0]], 1)
        return Embedded(torch.cat(static, 1), sequences, pc)

    def _split(self, pooled: KeyedTensor, rows: int) -> dict[str, Tensor]:
        """Feature -> [B, D], or [B, L, D] for a sequence, of the first `rows` bags; those after them are padding. One split of the values, whose backward is one concatenation; the
        order of the keys is the sharding plan's, and positions that it has left side by side are taken as one piece."""
        keys, widths, values = pooled.keys(), pooled.length_per_key(), pooled.values()
        if len(values) > rows:
            values = values[:rows]
        runs: list[tuple[str, int, int]] = []
        for key, width in zip(keys, widths, strict=True):
            name, _, position = key.partition(".")
            if runs and runs[-1][0] == name and int(position) == runs[-1][1]:
                runs[-1] = (name, runs[-1][1] + 1, runs[-1][2] + width)
            else:
                runs.append((name if position in ("", "0") else key, 1, width))
        pieces = dict(zip([r[0] for r in runs], values.split([r[2] for r in runs], 1), strict=True))
        if len(runs) != len(self.fixed) + len(self.pc) + sum(len(fs) for fs in self.sequences.values()):
            by_key = dict(zip(keys, values.split(widths, 1), strict=True))
            pieces |= {f: torch.cat([by_key[k] for k in ks], 1) for f, ks in self.sequence_keys.items()}
        return pieces | {f: pieces[f].unflatten(1, (len(ks), -1)) for f, ks in self.sequence_keys.items()}


def _aligned(features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    lengths = {f.length for f in features}
    if len(lengths) > 1:
        raise ValueError(f"features of sequence {features[0].sequence!r} differ in length: {sorted(lengths)}")
    return features
