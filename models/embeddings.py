"""The embedding stage: one EmbeddingBagCollection for user, item and sequence features.

B batch, L sequence length, D width.
"""

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


class EmbeddingStage(nn.Module):
    """Looks a batch up. All tables pool by SUM; the mean of a many-valued feature is its sum divided by its length here,
    because MEAN pooling is wrong in a collection that mixes row-wise with other shardings."""

    def __init__(self, features: FeatureSet, device: torch.device | None = None) -> None:
        super().__init__()
        if not features.tables:
            raise ValueError("the features have no embedding table; the ranker needs at least one id or bucket feature")
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
        self.key_index = {key: i for i, key in enumerate(k for f in features.sparse for k in f.keys)}
        fixed = [f for f in features.sparse if f.role not in ("sequence", "pc")]
        self.single = [f.name for f in fixed if not f.many]
        self.many = [f.name for f in fixed if f.many]
        self.pc = [f.name for f in features.sparse if f.role == "pc"]
        self.sequences = {name: _by_position(fs) for name, fs in features.sequences.items()}
        self.lengths = {name: fs[0].length for name, fs in features.sequences.items()}
        self.static_dim = sum(features.dim(f) for f in fixed)
        self.pc_dim = sum(features.dim(f) for f in features.sparse if f.role == "pc")
        self.sequence_dims = {name: sum(features.dim(f) for f in fs) for name, fs in features.sequences.items()}

    def forward(self, batch: Batch) -> Embedded:
        pooled = self.ebc(batch.sparse)
        groups = [g for g in (self.single, *([m] for m in self.many), self.pc, *self.sequences.values()) if g]
        parts = iter(KeyedTensor.regroup([pooled], groups))
        lengths = batch.sparse.lengths().view(len(self.key_index), -1)
        static = [next(parts)] if self.single else []
        for name in self.many:
            static.append(next(parts) / lengths[self.key_index[name]].clamp(min=1).unsqueeze(1))
        pc = next(parts) if self.pc else lengths.new_zeros(lengths.shape[1], 0, dtype=torch.float32)
        sequences = {n: next(parts).view(lengths.shape[1], self.lengths[n], self.sequence_dims[n]) for n in self.sequences}
        return Embedded(torch.cat(static, 1), sequences, pc)


def _by_position(features: tuple[Feature, ...]) -> list[str]:
    """Keys ordered so that a row of the regrouped [B, L * D] is L vectors, each the concatenation of the features."""
    lengths = {f.length for f in features}
    if len(lengths) > 1:
        raise ValueError(f"features of sequence {features[0].sequence!r} differ in length: {sorted(lengths)}")
    return [f.keys[i] for i in range(lengths.pop()) for f in features]
