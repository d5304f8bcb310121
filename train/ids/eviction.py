"""Id eviction: in a full table, a batch's new ids take the rows of those that TorchRec's managed collision evicts.

R: rows of the table, N: ids.
"""

import torch
from torch import Tensor
from torchrec import JaggedTensor
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.modules.mc_modules import (
    DistanceLFU_EvictionPolicy,
    LFU_EvictionPolicy,
    LRU_EvictionPolicy,
    MCHManagedCollisionModule,
)

from coldrank.models.ids.evicting import SCORES, EvictingMap
from coldrank.models.ids.pairs import LARGEST
from coldrank.train.distributed.tables import drawn, local_parts, table_of, whole_shape
from coldrank.train.optim.optimizers import Optimizers

# Eviction -> policy, and TorchRec's names of what it knows of an id, in the order of `evicting.SCORES`.
_POLICIES = {
    "lru": (LRU_EvictionPolicy, ("_mch_last_access_iter",)),
    "lfu": (LFU_EvictionPolicy, ("_mch_counts",)),
    "distance_lfu": (DistanceLFU_EvictionPolicy, ("_mch_counts", "_mch_last_access_iter")),
}


def admit(table: EvictingMap, ids: Tensor, counts: Tensor, events: Tensor) -> tuple[Tensor, int]:
    """Takes the ids of a batch, int64 [N], ascending and distinct, and how often it holds each; events: of these, those
    that count for an id that waits. Returns the rows, int64, that have come to other ids, who held them has lost them;
    and how many values found the table full of better ids."""
    if table.waiting is not None:
        new = table(ids) == 0
        ripe = table.waiting.add(ids[new], events[new]) >= table.min_count
        offered = ~new
        offered[new] = ripe
        ids, counts = ids[offered], counts[offered]
    some = ids < LARGEST  # TorchRec's mark of a free place
    number = table.number(ids[some])
    values, blocks = (torch.repeat_interleave(t, counts[some]) for t in (ids[some], number))
    places = [
        _admit(table, start, end, values[blocks == block]) + table.first_places[block]
        for block, (start, end) in enumerate(table.segments)
    ]
    table.steps += 1
    has_row = table(ids) > 0
    if table.waiting is not None:
        table.waiting.forget(ids[has_row])
    return table.rows_at(torch.cat([*places, ids[:0]])), int(counts[~has_row].sum())


def _admit(table: EvictingMap, start: int, end: int, values: Tensor) -> Tensor:
    """Takes the ids of a block; its places, int64, that have come to other ids."""
    policy, scores = _POLICIES[table.eviction]
    mine = {"_mch_sorted_raw_ids": "ids", "_mch_remapped_ids_mapping": "places"}
    mine |= dict(zip(scores, SCORES[table.eviction], strict=True))
    # Made anew for each batch, from the map: TorchRec's keeps more than is in its state dict (a history as long as its
    # first batch, and a count of batches).
    module = MCHManagedCollisionModule(end - start, torch.device("cpu"), policy(), eviction_interval=1)
    module.get_buffer("_current_iter_tensor").copy_(table.steps)
    for theirs, ours in mine.items():
        module.get_buffer(theirs).copy_(table.get_buffer(ours)[start:end])
    module.profile({"": JaggedTensor(values=values, lengths=torch.tensor([len(values)]))})
    for theirs, ours in mine.items():
        table.get_buffer(ours)[start:end] = module.get_buffer(theirs)
    places = module.evict()
    assert places is not None
    return places


class Renewal:
    """Makes rows as if nothing had been learnt in them: weights as of the table's initialisation, nothing in the
    optimizer."""

    def __init__(
        self, model: DistributedModelParallel, optimizers: Optimizers, scales: dict[str, float], seed: int
    ) -> None:
        """scales: table -> standard deviation of its first weights."""
        self.model, self.optimizers, self.scales, self.seed = model, optimizers, scales, seed

    @torch.no_grad()
    def __call__(self, table: str, rows: Tensor, step: int) -> None:
        """rows: int64 [N]. The new weights are a function of seed, table, step and these rows alone, on any number of
        ranks."""
        if not len(rows):
            return
        ((name, value),) = [(n, v) for n, v in self.model.state_dict().items() if table_of(n) == table]
        height, width = whole_shape(value)
        fresh = drawn(self.seed, f"{table}, renewed", step, len(rows), width) * self.scales[table]
        for part, (row, column) in local_parts(value):
            here = (rows >= row) & (rows < row + len(part))
            part[(rows[here] - row).to(part.device)] = fresh[here, column : column + part.shape[1]].to(part.device)
        for state in self._states(name):
            for part, (row, *_) in local_parts(state):
                row %= height  # row-wise Adagrad has one sum per row and column shard, one shard after another
                here = (rows >= row) & (rows < row + len(part))
                part[(rows[here] - row).to(part.device)] = 0

    def _states(self, name: str) -> list[Tensor]:
        """What the optimizers hold for each row of a table."""
        state = self.optimizers.all.state_dict()["state"]
        return [t for key, of in state.items() if key.endswith(f".{name}") for t in of.values() if whole_shape(t)]
