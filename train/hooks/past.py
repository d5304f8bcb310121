"""A model as it was: rows of its tables beside the tables, where these lie, and its dense weights, on every rank.

It costs as much memory as the tables have weights, parted over the ranks as they are, and as much of a checkpoint.

B batch, D width, N rows, U rows of a table that a rank's batch reads, T tasks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchrec import JaggedTensor

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded, EmbeddingStage
from coldrank.models.features import FeatureSet, Table
from coldrank.models.model import Outputs
from coldrank.models.projected import Projected
from coldrank.train.distributed.ranks import of_all_ranks
from coldrank.train.hooks.hook import RunView, Settings
from coldrank.train.hooks.mwuf import rows_with_an_id
from coldrank.train.hooks.rows import RowsBeside, TableRows
from coldrank.train.ids.dynamic import NewRows
from coldrank.train.task import RankingTask

# Weights by their names in the task.
Dense = dict[str, Tensor]


def task_of(run: RunView) -> RankingTask:
    """What a run's model shards."""
    return cast(RankingTask, run.model.module)


def dense_shapes(config: Settings, features: FeatureSet) -> dict[str, torch.Size]:
    """Dense parameters that a model is made of, the maps of vectors among them: name in the task -> shape."""
    with torch.device("meta"):
        model = config.model.build(features, len(config.tasks))
        parts: dict[str, nn.Module] = {"projected": Projected(features), "ranker": model}
    return {f"{part}.{n}": p.shape for part, module in parts.items() for n, p in module.named_parameters()}


def dense_of(task: RankingTask, names: tuple[str, ...]) -> Dense:
    """The dense weights as they are."""
    params = dict(task.named_parameters())
    return {name: params[name] for name in names}


def stream_problem(name: str, config: Settings) -> str:
    """What a method that keeps models of earlier periods leaves no room for, in words; '' if nothing."""
    if config.train.mode != "periods":
        return f"hook {name!r} learns from one period for the next; set train.mode=periods"
    if others := [hook.short_name() for hook in config.hooks if hook.short_name() != name]:
        return f"hook {name!r} keeps the model's own weights, and knows none of hook {others[0]!r}; leave one out"
    return ""


def tables_of(run: RunView, features: FeatureSet) -> dict[str, TableRows]:
    """The run's tables, where they lie."""
    return {table.name: TableRows(run.model, table.name) for table in features.tables}


def all_tables(config: Settings) -> frozenset[str]:
    """All tables of a run, those of one feature alone among them."""
    return frozenset(table.name for table in FeatureSet(config.features, config.tables).tables)


class BatchRows:
    """How the rows of a batch become the embeddings of its features, outside the sharded lookup."""

    def __init__(self, features: FeatureSet) -> None:
        self.tables = [table.name for table in features.tables]
        self._stage = EmbeddingStage(features, torch.device("meta"), self.tables)

    def of(self, batch: Batch) -> Batch:
        """The batch, its tables read un-pooled."""
        return replace(batch, unpooled=self._stage.unpooled)

    def read(self, batch: Batch, tables: Mapping[str, TableRows]) -> Dense:
        """Table -> the rows that a batch of `of` reads, [U, D]. Called by all ranks, each for its own."""
        found = {}
        for of_collection in batch.unpooled_lookup.rows.values():
            for table, lookup in of_collection.to_dict().items():
                mine = lookup.values()
                every = of_all_ranks(mine).unique()
                found[table] = tables[table].read(every)[torch.searchsorted(every, mine)]
        return found

    def embed(self, batch: Batch, rows: Dense) -> Embedded:
        """Feature -> its embeddings, [B, D] or [B, L, D], of what `read` has given; gradients reach the rows."""
        lookups = batch.unpooled_lookup.rows
        none = batch.sparse.lengths()[:0]
        read = {
            name: {table: JaggedTensor(values=rows[table], lengths=none) for table in lookup.keys()}  # noqa: SIM118
            for name, lookup in lookups.items()
        }
        return self._stage.parted(batch, read, None)


class PastTables(nn.Module):
    """Rows of all tables, zeros until they are taken; in the checkpoint as the run's are."""

    def __init__(self, features: FeatureSet) -> None:
        super().__init__()
        self.tables: dict[str, RowsBeside] = {}
        self._names = [table.name for table in features.tables]

    def placed(self, run: RunView) -> None:
        """The tables lie where they will."""
        self.tables = {name: RowsBeside(run.model, name) for name in self._names}

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, rows in self.tables.items():
            destination[f"{prefix}tables.{name}"] = rows.value

    @torch.no_grad()
    def take_tables(self, tables: Mapping[str, TableRows]) -> None:
        """Becomes what these are."""
        for name, rows in self.tables.items():
            for (mine, _), (theirs, _) in zip(rows.parts, tables[name].parts, strict=True):
                mine.copy_(theirs)

    @torch.no_grad()
    def renew(self, new_rows: Mapping[str, NewRows], tables: Mapping[str, TableRows]) -> None:
        """Rows that have come to new ids become what the tables have there, so that nothing another id learnt is
        left."""
        for name in new_rows.keys() & self.tables.keys():
            for (mine, (row, _)), (theirs, _) in zip(self.tables[name].parts, tables[name].parts, strict=True):
                new = new_rows[name].rows.to(mine.device) - row
                new = new[(new >= 0) & (new < len(mine))]
                mine[new] = theirs[new].to(mine.dtype)

    @torch.no_grad()
    def clear(self, new_rows: Mapping[str, NewRows]) -> None:
        """Rows that have come to new ids become zeros."""
        for name in new_rows.keys() & self.tables.keys():
            rows = self.tables[name]
            device = rows.parts[0][0].device if rows.parts else torch.device("cpu")
            rows.write(new_rows[name].rows.to(device), torch.zeros(rows.dim, device=device))


class PastModel(PastTables):
    """Rows of all tables, and dense weights in buffers."""

    def __init__(self, config: Settings, features: FeatureSet) -> None:
        super().__init__(features)
        shapes = dense_shapes(config, features)
        self.names = tuple(shapes)
        for name, shape in shapes.items():
            self.register_buffer(_key(name), torch.zeros(shape))

    @property
    def dense(self) -> Dense:
        """The dense weights."""
        return {name: self.get_buffer(_key(name)) for name in self.names}

    @torch.no_grad()
    def take(self, run: RunView, tables: Mapping[str, TableRows]) -> None:
        """Becomes the run's model as it is."""
        self.take_tables(tables)
        dense = dense_of(task_of(run), self.names)
        for name, weight in self.dense.items():
            weight.copy_(dense[name])


def with_weights(task: RankingTask, dense: Dense, work: Callable[[RankingTask], Any]) -> Any:
    """What `work` makes of the task, its dense weights for the time being these; gradients reach them."""
    weights = {f"task.{name}": weight for name, weight in dense.items()}
    return functional_call(_Work(task, work), weights, (), tie_weights=False)


class _Work(nn.Module):
    """A call of any of a task's parts as a module's forward, which is what functional_call takes."""

    def __init__(self, task: RankingTask, work: Callable[[RankingTask], Any]) -> None:
        super().__init__()
        self.task, self._work = task, work

    def forward(self) -> Any:
        return self._work(self.task)


def loss_of(task: RankingTask, batch: Batch, embedded: Embedded, dense: Dense) -> Tensor:
    """The loss that a batch has by tables' embeddings and dense weights made elsewhere. Gradients reach these alone;
    dropout draws in what comes after as if there were no such pass."""
    device = batch.labels.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        loss: Tensor = with_weights(
            task, dense, lambda task: task.rank(batch, task.projected(embedded, batch.floats)).loss
        )
    return loss


def by_gradient(out: Outputs, loss: Tensor) -> Outputs:
    """Adds a loss whose gradient alone counts: what is reported, and what other weights learn, stays bit for bit."""
    return out._replace(loss=out.loss + (loss - loss.detach()))


def nothing(weights: Iterable[Tensor]) -> Tensor:
    """A loss of 0: DistributedDataParallel wants every weight to take part in every step."""
    return torch.stack([w.sum() for w in weights]).sum() * 0.0


def held_rows(run: RunView, table: Table) -> Tensor:
    """Rows of a table that belong to an id, int64 [N]; of a table of buckets, and where the map does not tell, all."""
    maps = run.encoder.maps
    held = rows_with_an_id(maps[table.name], table.rows) if table.name in maps else torch.ones(table.rows).bool()
    return held.nonzero().squeeze(1).to(run.ranks.device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model answers as it does in evaluation, without dropout."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def _key(name: str) -> str:
    return name.replace(".", "_")
