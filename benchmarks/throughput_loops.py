"""Training loops by hand for benchmarks/throughput.py: tables by FBGEMM (the floor), or one nn.EmbeddingBag each.

B batch, L sequence length, D width of a row, F ids, T tasks.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Protocol

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from throughput_cost import Cost, SideJob, cost_of
from throughput_data import (
    DENSE_RATE,
    DIM,
    EXPERT,
    EXPERTS,
    IDS,
    LENGTH,
    ROWS,
    TABLE_EPS,
    TABLE_RATE,
    TASKS,
    TOWER,
    SampleBatch,
    read,
)
from torch import Tensor, nn

_ITEM = IDS.index("item_id")
_REPORT_EVERY = 50


class LoopTables(Protocol):
    """The embedding tables of a loop and their optimizer."""

    def ready(self, samples: SampleBatch) -> tuple[Tensor, ...]:
        """What `look_up` takes, made before a step."""
        ...

    def look_up(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of the ids, [B, F, D], and of the history, [B, L, D]."""
        ...

    def step(self) -> None:
        """Applies the gradients, if the backward pass has not."""
        ...


class Fbgemm:
    """One table-batched operator for all ids; with a history, one more, un-pooled, for items and history.

    Exact Adagrad inside the backward pass: FBGEMM has no Adam on the CPU.
    """

    def __init__(self, work: str) -> None:
        self.with_history = work == "B"
        self.pooled = _operator(len(IDS) - self.with_history, PoolingMode.SUM)
        self.unpooled = _operator(1, PoolingMode.NONE) if self.with_history else None
        self.others = [i for i in range(len(IDS)) if i != _ITEM] if self.with_history else list(range(len(IDS)))

    def ready(self, samples: SampleBatch) -> tuple[Tensor, ...]:
        ids = samples.ids[self.others].flatten()
        bags = torch.arange(len(ids) + 1)
        if not self.with_history:
            return ids, bags
        items = torch.cat([samples.ids[_ITEM], samples.history])
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), samples.lengths.cumsum(0)])
        return ids, bags, items, torch.tensor([0, len(items)]), ends

    def look_up(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ids, bags, *of_items = inputs
        others = self.pooled(ids, bags).unflatten(1, (-1, DIM))
        if self.unpooled is None:
            return others, others[:, :0]
        items, bag, ends = of_items
        rows = self.unpooled(items, bag)
        candidates, past = rows.split([others.shape[0], len(items) - others.shape[0]])
        history = torch.ops.fbgemm.jagged_to_padded_dense(past, [ends], [LENGTH], 0.0)
        return torch.cat([others[:, :_ITEM], candidates.unsqueeze(1), others[:, _ITEM:]], 1), history

    def step(self) -> None:
        pass


def _operator(tables: int, mode: PoolingMode) -> nn.Module:
    operator = SplitTableBatchedEmbeddingBagsCodegen(
        [(ROWS, DIM, EmbeddingLocation.HOST, ComputeDevice.CPU)] * tables,
        optimizer=EmbOptimType.EXACT_ADAGRAD,
        learning_rate=TABLE_RATE,
        eps=TABLE_EPS,
        pooling_mode=mode,
    )
    for weights in operator.split_embedding_weights():
        nn.init.normal_(weights, std=0.01)
    return operator


class Plain:
    """nn.EmbeddingBag per id with sparse gradients, torch.optim.Adagrad over them; the history is padded with row 0."""

    def __init__(self, work: str) -> None:
        self.with_history = work == "B"
        self.bags = nn.ModuleList(nn.EmbeddingBag(ROWS, DIM, mode="sum", sparse=True) for _ in IDS)
        for bag in self.bags:
            nn.init.normal_(bag.weight, std=0.01)
        self.optimizer = torch.optim.Adagrad(self.bags.parameters(), lr=TABLE_RATE, eps=TABLE_EPS)

    def ready(self, samples: SampleBatch) -> tuple[Tensor, ...]:
        if not self.with_history:
            return samples.ids, samples.history
        past = torch.zeros(samples.ids.shape[1], LENGTH, dtype=torch.int64)
        past[_seen(samples.lengths)] = samples.history
        return samples.ids, past

    def look_up(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ids, past = inputs
        embedded = torch.stack([bag(i.unsqueeze(1)) for bag, i in zip(self.bags, ids, strict=True)], 1)
        if not self.with_history:
            return embedded, embedded[:, :0]
        return embedded, nn.functional.embedding(past, self.bags[_ITEM].weight, padding_idx=0, sparse=True)

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


class BareMMoE(nn.Module):
    """The mixture and its towers: x, [B, D], to logits, [B, T]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(mlp(width, *EXPERT) for _ in range(EXPERTS))
        self.gates = nn.ModuleList(nn.Linear(width, EXPERTS, bias=False) for _ in TASKS)
        self.towers = nn.ModuleList(nn.Sequential(mlp(EXPERT[-1], *TOWER), nn.Linear(TOWER[-1], 1)) for _ in TASKS)

    def forward(self, x: Tensor) -> Tensor:
        experts = torch.stack([expert(x) for expert in self.experts], 1)
        mixed = [(torch.softmax(gate(x), 1).unsqueeze(1) @ experts).squeeze(1) for gate in self.gates]
        return torch.cat([tower(m) for tower, m in zip(self.towers, mixed, strict=True)], 1)


class DIN(nn.Module):
    """The sum of the past items k by their scores, MLP([q, k, q - k, q k]) of the candidate q."""

    width = DIM

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Sequential(mlp(4 * DIM, 36), nn.Linear(36, 1))

    def forward(self, ids: Tensor, history: Tensor, lengths: Tensor) -> Tensor:
        """What is read of the history, [B, D]. ids: [B, F, D]. history: [B, L, D]. lengths: int64 [B]."""
        q = ids[:, _ITEM : _ITEM + 1].expand_as(history)
        scores = self.score(torch.cat([q, history, q - history, q * history], 2)).squeeze(2)
        return ((scores * _seen(lengths)).unsqueeze(1) @ history).squeeze(1)


class MHA(nn.Module):
    """torch's multi-head attention, 4 heads of 16, asked by all ids; zeros for an empty history."""

    width = 64

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(len(IDS) * DIM, self.width, bias=False)
        self.attention = nn.MultiheadAttention(self.width, 4, bias=False, kdim=DIM, vdim=DIM, batch_first=True)

    def forward(self, ids: Tensor, history: Tensor, lengths: Tensor) -> Tensor:
        """What is read of the history, [B, 64]. Arguments as of DIN."""
        query = self.query(ids.flatten(1)).unsqueeze(1)
        hidden = ~_seen(lengths.clamp(min=1))
        read, _ = self.attention(query, history, history, key_padding_mask=hidden, need_weights=False)
        return read.squeeze(1) * (lengths > 0).unsqueeze(1)


class BareLoop:
    """A training loop: tables, attention if there is a history, MMoE; Adam for what is dense."""

    def __init__(self, job: SideJob, tables: LoopTables, attention: DIN | MHA | None) -> None:
        self.job, self.tables, self.attention = job, tables, attention
        self.mmoe = BareMMoE(len(IDS) * DIM + (attention.width if attention else 0))
        dense = [*self.mmoe.parameters(), *(attention.parameters() if attention else ())]
        self.optimizer = torch.optim.Adam(dense, lr=DENSE_RATE)

    def step(self, steps: int) -> Cost:
        """Steps over batches that are ready."""
        ready = [(s, self.tables.ready(s)) for s in self._read(min(steps, 16))]
        self._train(ready[:2])
        return cost_of(lambda: self._train(ready[n % len(ready)] for n in range(steps)))

    def whole(self, steps: int) -> Cost:
        """From Parquet, with the mean loss reported every 50 steps."""
        return cost_of(lambda: self._train((s, self.tables.ready(s)) for s in self._read(steps)))

    def _read(self, steps: int) -> Iterator[SampleBatch]:
        return read(self.job.data, self.job.work, self.job.batch, steps)

    def _train(self, batches: Iterable[tuple[SampleBatch, tuple[Tensor, ...]]]) -> None:
        total = torch.zeros(())
        for n, (samples, inputs) in enumerate(batches, 1):
            ids, history = self.tables.look_up(*inputs)
            x = ids.flatten(1)
            if self.attention:
                x = torch.cat([x, self.attention(ids, history, samples.lengths)], 1)
            loss = nn.functional.binary_cross_entropy_with_logits(self.mmoe(x), samples.labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.tables.step()
            total += loss.detach()
            if n % _REPORT_EVERY == 0:
                float(total)


def mlp(*widths: int) -> nn.Sequential:
    """Linear maps, a ReLU after each."""
    return nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())))


def _seen(lengths: Tensor) -> Tensor:
    return torch.arange(LENGTH) < lengths.unsqueeze(1)


LOOPS: dict[str, tuple[Callable[[str], LoopTables], type[DIN | MHA]]] = {
    "bare": (Fbgemm, DIN),
    "bare_mha": (Fbgemm, MHA),
    "plain": (Plain, DIN),
}


@contextmanager
def make(job: SideJob) -> Iterator[BareLoop]:
    """The loop of a name in LOOPS."""
    tables, attention = LOOPS[job.side]
    torch.manual_seed(1)
    yield BareLoop(job, tables(job.work), attention() if job.work == "B" else None)
