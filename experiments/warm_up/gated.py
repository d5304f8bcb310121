"""MWUF beside POSO: what leaves the scaling and shifting networks goes through a gate that knows the item's views."""

import numpy as np
import torch
from torch import Tensor, nn

from coldrank.experiments.warm_up.methods import BATCH, RATE, Warm, users_before
from coldrank.modules import PersonalizedGate

FIRST = 128  # events of each old item that the networks and the gate learn from
BUCKETS = 8  # of views: 0, 1, 2-3, 4-7, ...


class GatedWarm(Warm):
    """v = C sigmoid(MLP(PC)) * v_warm: POSO(Linear) on the warm embedding.

    The PC is the item's views in buckets of a factor two, embedded. The old items' first events are read in the order
    of the views. So an ID embedding at an event has learned from the earlier events of its item alone, as it will have
    in the phases.
    """

    def prepare(self) -> None:
        """One pass over the first events of the old items, as `Warm`'s over all."""
        base, old = self.base, self.old
        self.nets, self.gate = self.networks(), PersonalizedGate(BUCKETS, base.dim)
        self.views = nn.Embedding(BUCKETS, BUCKETS)
        table = nn.Parameter(base.ids_of(old).mean(0).repeat(len(old.items), 1))
        cold = torch.optim.Adam([table], lr=RATE)
        learned = [*self.nets.parameters(), *self.gate.parameters(), *self.views.parameters()]
        warm = torch.optim.Adam(learned, lr=RATE)
        means, seen = users_before(base, old), old.seen.numpy()
        order = np.lexsort((self.rng.random(len(seen)), seen))
        order = order[: int((seen < FIRST).sum())]
        for index in np.array_split(order, -(-len(order) // BATCH)):
            events = base.events(old, index)
            self.learn(events, means[torch.from_numpy(index)], table, cold, warm)

    def warmed(self, ids: Tensor, side: Tensor, users: Tensor, views: Tensor) -> Tensor:
        """The gated warm embeddings, float32 [n, D]. Arguments as in `Warm.warmed`."""
        bucket = torch.log2(1.0 + views).long().clamp(max=BUCKETS - 1)
        warm: Tensor = self.gate(self.views(bucket)) * self.nets(ids, side, users)
        return warm
