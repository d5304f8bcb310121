"""New ids get rows of growing and managed tables: at the step that first reads them, the same on every rank.

A batch is encoded ahead, with the rows of that moment; what had none, or may have lost it, or lies with another rank,
waits in `Batch.unknown`. The training thread settles those in the order of its steps, so that the maps depend on the
batches trained on alone, not on how far reading is ahead.

A rank holds all ids, or its share (`mixing.Share`). Then the ids of a batch go to the ranks that hold them, and their
rows come back; which are new goes to all ranks, for a new id's row follows from how many ids came before it, and every
rank renews the rows of managed tables that it has.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from tqdm import tqdm

from coldrank.models.batch import Batch, Unknown
from coldrank.models.encode import FeatureEncoder
from coldrank.models.ids.evicting import EvictingMap
from coldrank.models.ids.growing import GrowingMap
from coldrank.models.ids.mixing import Share
from coldrank.train.distributed.ranks import Ranks
from coldrank.train.distributed.tables import local_parts
from coldrank.train.ids.eviction import admit
from coldrank.train.ids.exchange import Exchange, Route
from coldrank.train.ids.stored import by_columns, pairs_of, parts_of, sized

State = dict[str, Any]


class Counted(NamedTuple):
    """What a batch has changed in the part of a table that is held here. size: of a managed table, ids with a row.
    missed: values that found the table full. evicted: ids that lost their row."""

    size: int = 0
    missed: int = 0
    evicted: int = 0


class NewRows(NamedTuple):
    """A growing or managed table once a batch has its rows. size: ids with a row. missed: values so far that found the
    table full. rows: int64 [N], those of ids that are new with the batch; nothing has read them before, or they were
    renewed."""

    size: int
    missed: int
    rows: Tensor


class DynamicIds:
    """Gives rows to the ids of batches. Every call is made by all ranks, in the order of the steps.

    step_by_step: whether rows may pass from one id to another, or ids that wait are counted; no batch may then be taken
    before the step of the last is done.
    """

    def __init__(self, encoder: FeatureEncoder, ranks: Ranks, renew: Callable[[str, Tensor, int], None]) -> None:
        """renew: called with a table, rows that have come to other ids, and how many batches that table has taken."""
        self.maps = {name: m for name, m in encoder.maps.items() if isinstance(m, GrowingMap | EvictingMap)}
        self.step_by_step = any(isinstance(m, EvictingMap) or m.waiting is not None for m in self.maps.values())
        self.encoder, self.ranks, self.renew, self.shared = encoder, ranks, renew, bool(encoder.shared)
        several = bool(self.maps) and ranks.world_size > 1
        self.exchange = Exchange(Share(ranks.rank, ranks.world_size)) if several else None
        self.sizes = dict.fromkeys(self.maps, 0)
        self.said_full: set[str] = set()

    def __call__(self, batch: Batch) -> dict[str, NewRows]:
        """Writes the rows of its ids into the batch; adds those that no batch has had before."""
        if not self.maps:
            return {}
        asked = [self._asked(name, batch.unknown[name]) for name in self.maps]
        route = None
        if self.exchange and self.shared:
            asked, route = self.exchange.to_owners(asked, self._owners(asked))
        elif self.exchange:
            asked, _ = self.exchange.to_all(asked)
        brought = [self._new(name, lines) for name, lines in zip(self.maps, asked, strict=True)]
        new, counts = [lines for lines, _ in brought], torch.tensor([counted for _, counted in brought])
        if self.exchange and self.shared:
            new, counts = self.exchange.to_all(new, counts)
        tables = zip(self.maps, new, counts.tolist(), strict=True)
        given = {name: self._add(name, lines, Counted(*of_table)) for name, lines, of_table in tables}
        self._write_rows(batch, asked, route)
        return given

    def look_up(self, batch: Batch) -> None:
        """Writes the rows of its ids into a batch that is not trained on, where they lie with several ranks; 0 for an
        id that training has not read."""
        if self.exchange and self.shared:
            asked = [self._asked(name, batch.unknown[name]) for name in self.maps]
            self._write_rows(batch, *self.exchange.to_owners(asked, self._owners(asked)))

    def _asked(self, name: str, unknown: Unknown) -> Tensor:
        """Ids of a batch, their counts and events, [N, 3]; of a growing table that is whole here, ids without a row."""
        lines = torch.stack([unknown.ids, unknown.counts, unknown.events], 1)
        table = self.maps[name]
        return lines if self.shared or isinstance(table, EvictingMap) else lines[table(unknown.ids) == 0]

    def _owners(self, asked: list[Tensor]) -> list[Tensor]:
        assert self.exchange
        share = self.exchange.share
        return [share.owners(lines[:, 0], t.blocks) for t, lines in zip(self.maps.values(), asked, strict=True)]

    def _new(self, name: str, lines: Tensor) -> tuple[Tensor, Counted]:
        """What a batch brings a table of the ids that are held here: [N, 2], ids that are to get rows and their counts,
        or rows of a table that evicts which have come to other ids, and zeros."""
        table = self.maps[name]
        ids, counts, events = _summed(lines) if self.exchange else lines.T.contiguous()
        if isinstance(table, GrowingMap):
            new = table(ids) == 0
            if table.is_full():
                return lines[:0, :2], Counted(missed=int(counts[new].sum()))
            ids, counts = ids[new], counts[new]
            ripe = table.ripe(ids, events[new])
            return torch.stack([ids[ripe], counts[ripe]], 1), Counted()
        before = table.size()
        rows, missed = admit(table, ids, counts, events)
        size = table.size()
        return torch.stack([rows, torch.zeros_like(rows)], 1), Counted(size, missed, len(rows) - (size - before))

    def _add(self, name: str, lines: Tensor, counted: Counted) -> NewRows:
        table = self.maps[name]
        table.missed += counted.missed
        if isinstance(table, GrowingMap):
            # In ascending order, whichever rank has read an id: the map does not depend on how a batch is shared out.
            ids, counts = lines[lines[:, 0].argsort()].T
            rows = table.add(ids)
            table.missed += counts[rows == 0].sum()
            self._tell(name, bool(table.missed), f"all {table.places:,} rows for ids are taken; further ids read row 0")
            return NewRows(int(table.size), int(table.missed), rows[rows > 0])
        self.sizes[name] = counted.size
        table.evicted += counted.evicted
        self.renew(name, lines[:, 0], int(table.steps))
        self._tell(name, bool(table.evicted), "from here on new ids take the rows of others")
        return NewRows(counted.size, int(table.missed), lines[:, 0])

    def _write_rows(self, batch: Batch, asked: list[Tensor], route: Route | None) -> None:
        """asked: what has come by `route`; without one, the maps are whole here."""
        unknown = [batch.unknown[name] for name in self.maps]
        maps = list(self.maps.values())
        if self.exchange and route:
            answers = [m(lines[:, 0].contiguous()).unsqueeze(1) for m, lines in zip(maps, asked, strict=True)]
            rows = [answer.squeeze(1) for answer in self.exchange.back(answers, route)]
        else:
            rows = [m(of_table.ids) for m, of_table in zip(maps, unknown, strict=True)]
        values = batch.sparse.values()
        for of_table, of_ids in zip(unknown, rows, strict=True):
            values[of_table.places] = of_ids[of_table.which]
        batch.unknown = {}

    def _tell(self, name: str, full: bool, then: str) -> None:
        if full and name not in self.said_full and self.ranks.is_first:
            self.said_full.add(name)
            tqdm.write(f"table {name!r} is full: {then}")

    def state(self, given: Mapping[str, NewRows] = MappingProxyType({})) -> State:
        """The encoder's state for a checkpoint. given: as it was once a batch had its rows, for a pipeline reads ahead
        of the steps that it has done; empty: as it is now."""
        state: State = self.encoder.state_dict()
        for name, table in self.maps.items():
            if isinstance(table, GrowingMap) and name in given:
                state[f"maps.{name}.known"] = table.first(given[name].size)
                state[f"maps.{name}.size"] = torch.tensor(given[name].size)
                state[f"maps.{name}.missed"] = torch.tensor(given[name].missed)
        if self.exchange and self.shared:
            parts = [f"{name}.{part}" for name, of in parts_of(self.encoder) for part in of.held]
            widths = self.exchange.all(torch.tensor([state[part].shape[-1] for part in parts]))
            for part, of_part in zip(parts, widths.T.tolist(), strict=True):
                state[part] = by_columns(state[part], of_part, self.ranks)
        return state

    def sized(self, shapes: Mapping[str, list[int]]) -> State:
        """Tensors to load the ids of a checkpoint into, however many it has. shapes: those of its encoder, by name."""
        return dict(sized(self.encoder, shapes, self.ranks if self.shared else None))

    def take(self, state: State) -> None:
        """Takes what was loaded into the tensors of `sized`."""
        loaded = [(part, state[f"{name}.known"]) for name, part in pairs_of(self.encoder) if f"{name}.known" in state]
        pairs = [_columns(value).T for _, value in loaded]
        if self.exchange and self.shared and loaded:
            share = self.exchange.share
            pairs = [lines[lines[:, 1] > 0] for lines in pairs]
            owners = [share.owners(lines[:, 0], part.blocks) for (part, _), lines in zip(loaded, pairs, strict=True)]
            pairs, _ = self.exchange.to_owners(pairs, owners)
        for (part, _), lines in zip(loaded, pairs, strict=True):
            part.take(lines.T)
        sizes = torch.tensor([[t.size() if isinstance(t, EvictingMap) else 0] for t in self.maps.values()])
        if self.exchange and self.shared:
            _, sizes = self.exchange.to_all([sizes[:0]] * len(self.maps), sizes)
        self.sizes = dict(zip(self.maps, sizes.flatten().tolist(), strict=True))

    def facts(self) -> dict[str, dict[str, int]]:
        """What run.json says of each growing or managed table."""
        return {
            name: {"ids": int(t.size), "rows": t.places + 1, "values_without_a_row": int(t.missed)}
            if isinstance(t, GrowingMap)
            else {
                "ids": self.sizes[name],
                "rows": t.rows,
                "values_without_a_row": int(t.missed),
                "evicted": int(t.evicted),
            }
            for name, t in self.maps.items()
        }


def _summed(lines: Tensor) -> Tensor:
    """Ids, counts and events of several ranks, [N, 3] -> [3, M]: the distinct ids, ascending, and the sums of each."""
    ids, which = np.unique(lines[:, 0].numpy(), return_inverse=True)
    sums = torch.zeros(2, len(ids), dtype=torch.int64).index_add_(1, torch.from_numpy(which), lines[:, 1:].T)
    return torch.cat([torch.from_numpy(ids).unsqueeze(0), sums])


def _columns(value: Tensor | ShardedTensor) -> Tensor:
    """This rank's columns of pairs [2, M]."""
    parts = [part for part, _ in local_parts(value)]
    return torch.cat(parts, 1) if parts else torch.empty(2, 0, dtype=torch.int64)
