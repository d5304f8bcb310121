"""Dynamic ids: new ones get rows at the step that first reads them, the same on every rank.

A batch is encoded ahead, with the rows of that moment; what had none, or may have lost it, waits in `Batch.unknown`.
The training thread settles those in the order of its steps, so that the maps depend on the batches trained on alone,
not on how far reading is ahead.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from coldrank.models.batch import Batch
from coldrank.models.encode import FeatureEncoder
from coldrank.models.maps import DynamicMap, EvictingMap
from coldrank.train.distributed.ranks import Ranks, objects_of_all_ranks
from coldrank.train.ids.eviction import admit

# Table -> ids int64 [N], ascending, and how many values of a batch each stands for.
_New = dict[str, tuple[np.ndarray, np.ndarray]]


class NewRows(NamedTuple):
    """A table with dynamic ids once a batch has its rows. size: ids with a row. missed: values so far that found the
    table full. rows: int64 [N], those of ids that are new with the batch; nothing has read them before, or they were
    renewed."""

    size: int
    missed: int
    rows: Tensor


class DynamicIds:
    """Gives rows to the ids of batches. Every call is made by all ranks, in the order of the steps.

    evicts: whether rows may pass from one id to another; no batch may then be taken before the step of the last is
    done.
    """

    def __init__(self, encoder: FeatureEncoder, ranks: Ranks, renew: Callable[[str, Tensor, int], None]) -> None:
        """renew: called with a table, rows that have come to other ids, and how many batches that table has taken."""
        self.maps = {name: m for name, m in encoder.maps.items() if isinstance(m, DynamicMap | EvictingMap)}
        self.evicts = any(isinstance(m, EvictingMap) for m in self.maps.values())
        self.ranks, self.renew = ranks, renew
        self.group = dist.new_group(backend="gloo") if self.maps and ranks.world_size > 1 else None
        self.said_full: set[str] = set()

    def __call__(self, batch: Batch) -> dict[str, NewRows]:
        """Writes the rows of its ids into the batch; adds those that no batch has had before."""
        if not self.maps:
            return {}
        mine: _New = {}
        for name, table in self.maps.items():
            ids = batch.unknown[name][1]
            if isinstance(table, DynamicMap):
                ids = ids[table(ids) == 0]
            new, counts = torch.unique(ids, return_counts=True)
            mine[name] = new.numpy(), counts.numpy()
        everyone = [mine] if self.group is None else objects_of_all_ranks(mine, self.group)
        given = {name: self._add(name, [new[name] for new in everyone]) for name in self.maps}
        values = batch.sparse.values()
        for name, (places, ids) in batch.unknown.items():
            values[places] = self.maps[name](ids)
        batch.unknown = {}
        return given

    def _add(self, name: str, by_rank: list[tuple[np.ndarray, np.ndarray]]) -> NewRows:
        # In ascending order, whichever rank has read an id: the map does not depend on how a batch is shared out.
        unique, which = np.unique(np.concatenate([ids for ids, _ in by_rank]), return_inverse=True)
        ids, counts = torch.from_numpy(unique), torch.zeros(len(unique), dtype=torch.int64)
        counts.index_add_(
            0, torch.from_numpy(which), torch.from_numpy(np.concatenate([counts for _, counts in by_rank]))
        )
        table = self.maps[name]
        if isinstance(table, DynamicMap):
            rows = table.add(ids)
            table.missed += counts[rows == 0].sum()
            self._tell(name, bool(table.missed), f"all {table.places:,} rows for ids are taken; further ids read row 0")
            return NewRows(int(table.size), int(table.missed), rows[rows > 0])
        rows = admit(table, ids, counts)
        table.missed += counts[table(ids) == 0].sum()
        self.renew(name, rows, int(table.steps))
        self._tell(name, bool(table.evicted), "from here on new ids take the rows of others")
        return NewRows(table.size(), int(table.missed), rows)

    def _tell(self, name: str, full: bool, then: str) -> None:
        if full and name not in self.said_full and self.ranks.is_first:
            self.said_full.add(name)
            tqdm.write(f"table {name!r} is full: {then}")

    def state_after(self, state: dict[str, Any], given: Mapping[str, NewRows]) -> dict[str, Any]:
        """The encoder's state as it was once a batch had its rows: a pipeline reads ahead of the steps that it has
        done."""
        of_maps: dict[str, Tensor] = {}
        for name, now in given.items():
            table = self.maps[name]
            if isinstance(table, EvictingMap):
                continue  # nothing is read ahead of it
            of_maps[f"maps.{name}.known"] = table.first(now.size)
            of_maps[f"maps.{name}.size"] = torch.tensor(now.size)
            of_maps[f"maps.{name}.missed"] = torch.tensor(now.missed)
        return state | of_maps

    def facts(self) -> dict[str, dict[str, int]]:
        """What run.json says of each table with dynamic ids."""
        return {
            name: {"ids": int(t.size), "rows": t.places + 1, "values_without_a_row": int(t.missed)}
            if isinstance(t, DynamicMap)
            else {"ids": t.size(), "rows": t.rows, "values_without_a_row": int(t.missed), "evicted": int(t.evicted)}
            for name, t in self.maps.items()
        }
