"""Tensors of which every rank holds some columns, as a checkpoint holds them."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed._shard.sharded_tensor.metadata import ShardedTensorMetadata, TensorProperties
from torch.distributed._shard.sharded_tensor.shard import Shard

from coldrank.models.encode import FeatureEncoder
from coldrank.models.ids.admission import Sketch
from coldrank.models.ids.evicting import EvictingMap
from coldrank.models.ids.pairs import Pairs
from coldrank.train.distributed.ranks import Ranks


def by_columns(mine: Tensor, widths: list[int], ranks: Ranks) -> ShardedTensor:
    """This rank's columns [.., w], side by side with those of the others. widths: w of every rank; 0 is none."""
    starts = [sum(widths[:rank]) for rank in range(len(widths))]
    above = list(mine.shape[:-1])
    shards = [
        ShardMetadata([0] * len(above) + [start], [*above, width], f"rank:{rank}/cpu")
        for rank, (start, width) in enumerate(zip(starts, widths, strict=True))
    ]
    metadata = ShardedTensorMetadata(
        [shard for shard in shards if shard.shard_sizes[-1]],
        torch.Size([*above, sum(widths)]),
        TensorProperties(dtype=mine.dtype),
    )
    local = [Shard(mine.contiguous(), shards[ranks.rank])] if widths[ranks.rank] else []
    return ShardedTensor._init_from_local_shards_and_global_metadata(local, metadata)


def even(width: int, ranks: int) -> list[int]:
    """A width in equal parts, one for each rank."""
    return [width * (rank + 1) // ranks - width * rank // ranks for rank in range(ranks)]


def parts_of(encoder: FeatureEncoder) -> list[tuple[str, Pairs | Sketch | EvictingMap]]:
    """By the names of its state, what an encoder knows of dynamic ids, of which every rank may have its share."""
    parts = [(f"maps.{name}", part) for name, part in encoder.maps.named_modules()]
    return [(name, part) for name, part in parts if isinstance(part, Pairs | Sketch | EvictingMap)]


def pairs_of(encoder: FeatureEncoder) -> list[tuple[str, Pairs]]:
    """Those of them that hold as many ids as there are."""
    return [(name, part) for name, part in parts_of(encoder) if isinstance(part, Pairs)]


def sized(
    encoder: FeatureEncoder, shapes: Mapping[str, list[int]], ranks: Ranks | None = None
) -> dict[str, Tensor | ShardedTensor]:
    """Tensors for what of the encoder's state a checkpoint has in a size of its own: ids with their rows or counts.

    shapes: those of the checkpoint, by the same names. ranks: whose each is to have a part, some columns; None: whole.
    """
    tensors: dict[str, Tensor | ShardedTensor] = {}
    for name in (f"{name}.known" for name, _ in pairs_of(encoder)):
        if name not in shapes:
            continue
        width = shapes[name][1]
        widths = even(width, ranks.world_size) if ranks else []
        mine = torch.empty(2, widths[ranks.rank] if ranks else width, dtype=torch.int64)
        tensors[name] = by_columns(mine, widths, ranks) if ranks else mine
    return tensors
