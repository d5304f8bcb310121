"""Id eviction: in a full table, a batch's new ids take the rows of those that TorchRec's managed collision evicts.

R: rows of the table, N: ids.
"""

import torch
from torch import Tensor
from torchrec import JaggedTensor
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.modules.mc_modules import LFU_EvictionPolicy, LRU_EvictionPolicy, MCHManagedCollisionModule

from coldrank.models.maps import EvictingMap
from coldrank.train.distributed.tables import drawn, local_parts, table_of, whole_shape
from coldrank.train.optim.optimizers import Optimizers

# Policy, and TorchRec's name of what it knows of an id.
_POLICIES = {"lru": (LRU_EvictionPolicy, "_mch_last_access_iter"), "lfu": (LFU_EvictionPolicy, "_mch_counts")}


def admit(table: EvictingMap, ids: Tensor, counts: Tensor) -> Tensor:
    """Takes the ids of a batch, int64 [N], ascending and distinct, and how often it holds each. Returns the rows,
    int64, that have come to other ids; who held them has lost them."""
    policy, scores = _POLICIES[table.eviction]
    mine = {
        "_mch_sorted_raw_ids": "ids",
        "_mch_remapped_ids_mapping": "places",
        scores: "scores",
        "_current_iter_tensor": "steps",
    }
    # Made anew for each batch, from the map: TorchRec's keeps more than is in its state dict (a history as long as its
    # first batch, and a count of batches).
    module = MCHManagedCollisionModule(table.rows, torch.device("cpu"), policy(), eviction_interval=1)
    for theirs, ours in mine.items():
        module.get_buffer(theirs).copy_(table.get_buffer(ours))
    some = ids < table.largest  # TorchRec's mark of a free place
    values = torch.repeat_interleave(ids[some], counts[some])
    before = table.size()
    module.profile({"": JaggedTensor(values=values, lengths=torch.tensor([len(values)]))})
    for theirs, ours in mine.items():
        setattr(table, ours, module.get_buffer(theirs))
    places = module.evict()
    assert places is not None
    table.evicted += len(places) - (table.size() - before)
    return table.rows_at(places)


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
