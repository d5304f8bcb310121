"""The embedding stage: one EmbeddingBagCollection for user, item and sequence features.

B batch, L sequence length, D width.
"""

from itertools import accumulate

import torch
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedTensor, PoolingType

from coldrank.models.batch import Batch
from coldrank.models.features import Feature, FeatureSet

# What the tables give for a batch, by the feature's name: [B, D], and of a feature of a sequence [B, L, D], where
# positions past a sample's end are zero.
Embedded = dict[str, Tensor]


def rows_of_embedded(embedded: Embedded, rows: Tensor) -> Embedded:
    """Some samples, without their gradients. rows: int64 [R]."""
    chosen: Embedded = {}
    # Those of one length are read side by side: a read for each feature would be many small ones.
    for length in {values.shape[1:-1] for values in embedded.values()}:
        alike = {name: values.detach() for name, values in embedded.items() if values.shape[1:-1] == length}
        read = torch.cat(list(alike.values()), -1)[rows]
        chosen |= dict(zip(alike, read.split([values.shape[-1] for values in alike.values()], -1), strict=True))
    return {name: chosen[name] for name in embedded}


class Inputs:
    """How a model lays out what it reads: what is outside sequences side by side, in the order of the features, numbers
    last; the features of a sequence side by side; the personalization codes side by side.

    static_dim, pc_dim: widths. sequence_lengths, sequence_dims: L and D by sequence.
    """

    def __init__(self, features: FeatureSet) -> None:
        self.fixed = [f.name for f in fixed_features(features)]
        self.codes = [f.name for f in features.sparse if f.role == "pc"]
        self.sequences = {name: [f.name for f in fs] for name, fs in features.sequences.items()}
        self.numbers = len(features.numbers)
        self.static_dim = sum(features.dim(f) for f in fixed_features(features)) + self.numbers
        self.pc_dim = sum(features.dim(f) for f in features.sparse if f.role == "pc")
        self.sequence_lengths = {name: fs[0].length for name, fs in features.sequences.items()}
        self.sequence_dims = {name: sum(features.dim(f) for f in fs) for name, fs in features.sequences.items()}

    def static(self, embedded: Embedded, dense: Tensor) -> Tensor:
        """dense: [B, F] -> [B, static_dim]."""
        return torch.cat([*(embedded[name] for name in self.fixed), dense], 1)

    def sequence(self, embedded: Embedded, name: str) -> Tensor:
        """[B, L, D]."""
        return torch.cat([embedded[feature] for feature in self.sequences[name]], 2)

    def pc(self, embedded: Embedded) -> Tensor:
        """[B, pc_dim]."""
        return torch.cat([embedded[name] for name in self.codes], 1)


def fixed_features(features: FeatureSet) -> list[Feature]:
    """Embedded features outside sequences, but for personalization codes."""
    return [f for f in features.sparse if f.role not in ("sequence", "pc")]


def places(features: FeatureSet) -> dict[str, slice]:
    """Feature outside sequences -> its columns where they lie side by side."""
    ends = list(accumulate(features.dim(f) for f in fixed_features(features)))
    fixed = zip(fixed_features(features), ends, strict=True)
    return {f.name: slice(end - features.dim(f), end) for f, end in fixed}


class EmbeddingStage(nn.Module):
    """Looks a batch up. All tables pool by SUM; the mean of a many-valued feature is its sum divided by its number of
    ids here, because MEAN pooling is wrong in a collection that mixes row-wise with other shardings."""

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
        self.many = [f.name for f in fixed_features(features) if f.many]
        self.reads = {f.name: features.table(f.table_name).reads for f in features.sparse}
        self.features = [f.name for f in features.sparse]
        self.sequence_keys = {f.name: f.keys for fs in features.sequences.values() for f in fs}
        self.key_index = {key: i for i, key in enumerate(k for f in features.sparse for k in f.keys)}

    def forward(self, batch: Batch) -> Embedded:
        parts = self._split(self.ebc(batch.lookup), len(batch))
        lengths = batch.sparse.lengths().view(len(self.key_index), len(batch))
        for name in self.many:
            ids = lengths[self.key_index[name]] // self.reads[name]
            parts[name] = parts[name] / ids.clamp(min=1).unsqueeze(1)
        return {name: parts[name] for name in self.features}

    def _split(self, pooled: KeyedTensor, rows: int) -> dict[str, Tensor]:
        """Feature -> [B, D], or [B, L, D] for a sequence, of the first `rows` bags; those after them are padding. One
        split of the values, whose backward is one concatenation; the order of the keys is the sharding plan's, and
        positions that it has left side by side are taken as one piece."""
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
        if len(runs) != len(self.features):
            by_key = dict(zip(keys, values.split(widths, 1), strict=True))
            pieces |= {f: torch.cat([by_key[k] for k in ks], 1) for f, ks in self.sequence_keys.items()}
        return pieces | {f: pieces[f].unflatten(1, (len(ks), -1)) for f, ks in self.sequence_keys.items()}
