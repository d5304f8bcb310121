"""The embedding stage: one EmbeddingBagCollection for user, item and sequence features, or EmbeddingCollections beside
it for the tables that sequences read.

B batch, L sequence length, D width.
"""

from collections.abc import Collection, Mapping
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchrec import (
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    EmbeddingCollection,
    EmbeddingConfig,
    JaggedTensor,
    KeyedTensor,
    PoolingType,
)

from coldrank.models.batch import Batch
from coldrank.models.features import Feature, FeatureSet
from coldrank.models.unpooled import Unpooled

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
        self.codes = [f.name for f in features.codes]
        self.sequences = {name: [f.name for f in fs] for name, fs in features.sequences.items()}
        self.numbers = len(features.numbers)
        self.static_dim = sum(features.dim(f) for f in fixed_features(features)) + self.numbers
        self.pc_dim = sum(map(features.dim, features.codes))
        self.sequence_lengths = {name: fs[0].length for name, fs in features.sequences.items()}
        self.sequence_dims = {name: sum(features.dim(f) for f in fs) for name, fs in features.sequences.items()}

    def static(self, embedded: Embedded, dense: Tensor) -> Tensor:
        """dense: [B, F] -> [B, static_dim]."""
        return torch.cat([*(embedded[name] for name in self.fixed), dense], 1)

    def of_sequence(self, embedded: Embedded, name: str) -> list[Tensor]:
        """What lies side by side at the positions of a sequence: of each of its features [B, L, D]."""
        return [embedded[feature] for feature in self.sequences[name]]

    def sequence(self, embedded: Embedded, name: str) -> Tensor:
        """The same as one: [B, L, D]."""
        return torch.cat(self.of_sequence(embedded, name), 2)

    def pc(self, embedded: Embedded) -> Tensor:
        """[B, pc_dim]."""
        return torch.cat([embedded[name] for name in self.codes], 1)


def fixed_features(features: FeatureSet) -> list[Feature]:
    """Embedded features outside sequences, but for personalization codes."""
    return [f for f in features.embedded if f.role not in ("sequence", "pc")]


def places(features: FeatureSet) -> dict[str, slice]:
    """Feature outside sequences -> its columns where they lie side by side."""
    ends = list(accumulate(features.dim(f) for f in fixed_features(features)))
    fixed = zip(fixed_features(features), ends, strict=True)
    return {f.name: slice(end - features.dim(f), end) for f, end in fixed}


class EmbeddingStage(nn.Module):
    """Looks a batch up. All tables pool by SUM; the mean of a many-valued feature is its sum divided by its number of
    ids here, because MEAN pooling is wrong in a collection that mixes row-wise with other shardings.

    Pooled tables lie in `ebc`; un-pooled ones in `ecs`, a collection for each width (TorchRec wants equal ones). A
    table lies in one alone: tables of one name in two collections are two tables.
    """

    def __init__(
        self,
        features: FeatureSet,
        device: torch.device | None = None,
        unpooled: Collection[str] = (),
        *,
        distinct: bool = True,
    ) -> None:
        """unpooled: tables. distinct: whether a row of these is looked up once for a batch."""
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
                if t.name not in unpooled
            ],
            # A collection is weighted as a whole: what has no weights has ones.
            is_weighted=bool(features.weighted),
            device=device,
        )
        self.unpooled = Unpooled.of(features, unpooled, distinct=distinct) if unpooled else None
        self.ecs = nn.ModuleDict()
        for collection, names in self.unpooled.collections.items() if self.unpooled else ():
            tables = [
                EmbeddingConfig(name=t.name, num_embeddings=t.rows, embedding_dim=t.dim, feature_names=[t.name])
                for t in map(features.table, names)
            ]
            self.ecs[collection] = EmbeddingCollection(tables=tables, device=device)
        self.of_table = {t: features.by_table[t] for t in unpooled}
        self.many = [f.name for f in fixed_features(features) if f.many and not f.weights]
        self.reads = {f.name: features.table(f.table_name).reads for f in features.sparse}
        self.features = [f.name for f in features.features if f.has_table]
        self.pooled_features = sum(f.table_name not in unpooled for f in features.sparse)
        self.sequence_keys = {
            f.name: f.keys for f in features.sparse if f.role == "sequence" and f.table_name not in unpooled
        }
        self.key_index = {key: i for i, key in enumerate(k for f in features.sparse for k in f.keys)}

    def forward(self, batch: Batch) -> Embedded:
        return self.parted(batch, *self.read(batch))

    def parted(
        self, batch: Batch, unpooled: Mapping[str, Mapping[str, JaggedTensor]], pooled: KeyedTensor | None
    ) -> Embedded:
        """What `read` has given, or was read elsewhere, by feature."""
        parts = self._split(pooled, len(batch)) if pooled is not None else {}
        for collection, rows in unpooled.items():
            parts |= self._bags(rows, collection, batch)
        lengths = batch.sparse.lengths().view(len(self.key_index), len(batch))
        for name in self.many:
            ids = lengths[self.key_index[name]] // self.reads[name]
            parts[name] = parts[name] / ids.clamp(min=1).unsqueeze(1)
        return {name: parts[name] for name in self.features}

    def read(self, batch: Batch) -> tuple[dict[str, dict[str, JaggedTensor]], KeyedTensor | None]:
        """What the collections give for a batch: by collection and table, and of the pooled tables, if there are any.
        Apart from the rest because TorchRec's pipeline traces it."""
        unpooled = {name: ec(batch.unpooled_lookup.rows[name]) for name, ec in self.ecs.items()}
        return unpooled, self.ebc(batch.lookup) if self.pools else None

    @property
    def pools(self) -> bool:
        """Whether there are pooled tables."""
        return self.unpooled is None or bool(self.unpooled.pooled)

    @property
    def table_modules(self) -> dict[str, nn.Module]:
        """Table -> the module that holds its weight, before sharding."""
        held = [self.ebc.embedding_bags, *(ec.get_submodule("embeddings") for ec in self.ecs.values())]
        return {table: module for modules in held for table, module in modules.named_children()}

    def _bags(self, rows: Mapping[str, JaggedTensor], collection: str, batch: Batch) -> dict[str, Tensor]:
        """Feature -> [B, D] or [B, L, D], from the rows that were looked up: the sum of each bag."""
        parts: dict[str, Tensor] = {}
        assert self.unpooled is not None
        for table in self.unpooled.collections[collection]:
            places, starts, *weights = batch.unpooled_lookup.bags[table]
            weight, features = rows[table].values(), self.of_table[table]
            of_places = next(iter(weights), None)
            read = F.embedding_bag(places, weight, starts, mode="sum", per_sample_weights=of_places)
            counts = [len(f.keys) for f in features]
            by_key = read.view(sum(counts), len(batch), weight.shape[1]).split(counts)
            for f, of_keys in zip(features, by_key, strict=True):
                parts[f.name] = of_keys.transpose(0, 1) if f.role == "sequence" else of_keys[0]
        return parts

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
        if len(runs) != self.pooled_features:
            by_key = dict(zip(keys, values.split(widths, 1), strict=True))
            pieces |= {f: torch.cat([by_key[k] for k in ks], 1) for f, ks in self.sequence_keys.items()}
        return pieces | {f: pieces[f].unflatten(1, (len(ks), -1)) for f, ks in self.sequence_keys.items()}
