"""PAM: groups of rows by the popularity of the item, weights adapted to each, and losses that strengthen the cold one.

B rows of a batch, N popularity groups (the paper's tasks), T tasks, P adapted tensors.
"""

from typing import ClassVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from coldrank.data import parquet
from coldrank.data.errors import UserError
from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded
from coldrank.models.features import FeatureSet
from coldrank.models.model import Outputs
from coldrank.models.two_tower import TwoTowerModule
from coldrank.modules.inner_loop import InnerLoop, Weights
from coldrank.modules.pam import RowsByGroup, route, support
from coldrank.train.distributed.ranks import per_rank, sum_over_ranks, world_size
from coldrank.train.hooks.hook import HookModule, Rest, RunView, Settings
from coldrank.train.hooks.pam.before import Before
from coldrank.train.hooks.pam.config import PamConfig
from coldrank.train.hooks.pam.enhancer import Enhancer
from coldrank.train.hooks.pam.rows import GroupRows, SupportQuery, TowerRows, group_rows
from coldrank.train.progress import Progress, Stage
from coldrank.train.stepping import Taken


class Pam(PamConfig):
    """The settings, and what they build."""

    def build(self, config: Settings, features: FeatureSet) -> "PamModule":
        return PamModule(self, config, features)


class PamModule(HookModule):
    """Trains the query losses of weights adapted to support sets, and scores with the weights that were adapted before.

    What is adapted lies in the model; `shift.<name>`, [N, ...], is what to add to it for each group, Omega_n - Theta,
    as the batches so far have left it: checkpoints hold both. No label of a period changes what scores it.
    """

    micro_batches: ClassVar[bool] = False
    cuts: Tensor
    weights: Tensor
    loss_weights: Tensor

    def __init__(self, c: PamConfig, config: Settings, features: FeatureSet) -> None:
        super().__init__()
        self.config = c
        shapes = adapted(c, config, features)
        self.names = tuple(shapes)
        # Of the tasks.
        self.register_buffer(
            "loss_weights", torch.tensor([head.weight for head in config.tasks.values()]), persistent=False
        )
        self.loop = InnerLoop(self.names, c.steps, c.rate, c.second_order)
        self.register_buffer("cuts", torch.tensor(c.cuts if not c.quantiles else [0] * (c.quantiles - 1)))
        self.register_buffer("weights", torch.tensor(c.lambdas), persistent=False)
        for name, shape in shapes.items():
            self.register_buffer(_key("shift", name), torch.zeros(c.groups, *shape))
        zeros = {_key("own", name): torch.zeros(c.groups, *shape) for name, shape in shapes.items() if c.own}
        self.own = nn.ParameterDict(zeros)
        self.enhancer = Enhancer(c, config, features) if any(c.gamma[1:]) else None
        self.before = Before(c, config, features) if c.support_of == "previous" else None
        self._adapted: tuple[Weights, Tensor] | None = None

    def dense(self, rest: Rest, batch: Batch, embedded: Embedded) -> Outputs:
        """The hooks inside have PAM's loss in the place of the model's; a side pass of theirs is judged by the weights
        that the batch's own pass has adapted, as it will be served."""
        if not (self.training and torch.is_grad_enabled()):
            return rest.around(lambda batch, embedded, side: self._scored(rest, batch, embedded))(batch, embedded)
        paths: list[list[Weights]] = []

        def learn(batch: Batch, embedded: Embedded, side: bool) -> Outputs:
            out, path = self._learnt(rest, batch, embedded, paths[0] if paths else None, keep=not side)
            paths.append([{name: w.detach() for name, w in weights.items()} for weights in path])
            return out

        return rest.around(learn)(batch, embedded)

    def _learnt(
        self, rest: Rest, batch: Batch, embedded: Embedded, path: list[Weights] | None, *, keep: bool
    ) -> tuple[Outputs, list[Weights]]:
        """Query losses after the inner loop, and no logits; the weights after each of its steps. path: these, if they
        are known. keep: notes what is left of the batch after the step."""
        rows, split, start = self._parts(rest, batch, embedded)
        if path is None:
            given, adapt_to = (
                (rows, split.support) if self.before is None else self.before.rows(cast(TwoTowerModule, rest.model))
            )
            path = self.adapt(given, adapt_to, start, self.among(adapt_to))
            if keep:
                added = {k: (w - start[k]).detach() for k, w in path[-1].items()}
                self._adapted = added, adapt_to.count_tensor > 0
        loss, losses = self._query(rows, split.query, path, batch.mean_size)
        if keep and self.before is not None:
            self.before.note(cast(TowerRows, rows), batch, split.group)
        loss = self.config.gamma[0] * loss
        if self.enhancer is not None:
            assert isinstance(rows, TowerRows)
            loss = loss + self.enhancer(self, rows, batch, split, start, path[-1])
            if keep:
                self.enhancer.note(batch, split.group, rows.sides.item, self.cuts)
        return Outputs(loss, torch.zeros_like(batch.labels), self._sums(losses, batch, split.query)), path

    def _parts(self, rest: Rest, batch: Batch, embedded: Embedded) -> tuple[GroupRows, SupportQuery, Weights]:
        rows = group_rows(rest.model, batch, embedded, rest.heads)
        return rows, self.split(batch), self.start(rest.model)

    def _scored(self, rest: Rest, batch: Batch, embedded: Embedded) -> Outputs:
        """By the weights that each group was left with."""
        rows, split, start = self._parts(rest, batch, embedded)
        seen = RowsByGroup.of(split.group, self.config.groups, torch.ones_like(split.group, dtype=torch.bool))
        leaks = self.config.adapt_on_test_labels
        weights = self._leaking(rows, seen, start) if leaks else self.served(start)
        losses = rows.losses(seen)(weights)
        loss = self.of_groups(losses, seen).sum() / batch.mean_size
        logits, vectors = rows.outputs(weights, split.group)
        return Outputs(loss, logits, self._sums(losses, batch, seen), vectors)

    def _sums(self, losses: Tensor, batch: Batch, seen: RowsByGroup) -> tuple[Tensor, Tensor]:
        """Losses of rows [R, T] -> their sums and how many are known, [T]."""
        known = (~torch.isnan(batch.labels[seen.index])).sum(0).to(losses.dtype)
        return losses.detach().sum(0), known

    def of_groups(self, losses: Tensor, rows: RowsByGroup) -> Tensor:
        """Losses of rows, [R, T] -> their sums over each group, [N], with the weights of the tasks."""
        return rows.sums(losses @ self.loss_weights.to(losses.dtype))

    def split(self, batch: Batch) -> SupportQuery:
        """Groups, support and query of a batch, in its order."""
        n = self.config.groups
        group = route(batch.keys["item_views"], self.cuts)
        first = support(group, n, self.config.support)
        query = ~first if self.config.query == "rest" and self.before is None else torch.ones_like(first)
        device = batch.labels.device
        return SupportQuery(
            group.to(device), RowsByGroup.of(group, n, first).to(device), RowsByGroup.of(group, n, query).to(device)
        )

    def start(self, model: nn.Module) -> Weights:
        """Theta, and with `own` what each group adds to it: [N, ...]."""
        params = dict(model.named_parameters())
        n = self.config.groups
        start = {name: params[name].expand(n, *params[name].shape) for name in self.names}
        return {k: w + self.own[_key("own", k)] for k, w in start.items()} if self.config.own else start

    def among(self, rows: RowsByGroup) -> Tensor | None:
        """Whose users are the candidates of a support or query set: the set's own rows, or (None) all of the batch."""
        return rows.index if self.config.candidates == "set" else None

    def adapt(self, rows: GroupRows, support: RowsByGroup, start: Weights, among: Tensor | None) -> list[Weights]:
        """The weights after 0, 1, ... inner steps on the support rows (Eq. 9)."""
        together = self.config.across == "ranks" and world_size() > 1
        scale = self.scale(support, len(rows.labels), self.config.support_average, over_ranks=together)

        losses = rows.losses(support, among)

        def loss(weights: Weights) -> Tensor:
            return self.of_groups(losses(weights), support) * scale

        return self.loop(start, loss, sum_over_ranks if together else None)

    def scale(self, rows: RowsByGroup, batch: int, average: str, *, over_ranks: bool = False) -> Tensor:
        """What the sum over a group's rows is multiplied by, [N]. over_ranks: the rows of all ranks are meant."""
        counts = torch.tensor(
            rows.counts if average == "group" else [batch] * len(rows.counts), device=rows.index.device
        )
        if over_ranks:
            dist.all_reduce(counts)
        return 1 / counts.clamp(min=1).to(self.loop.rates.dtype)

    def query_scale(self, query: RowsByGroup, size: float) -> Tensor:
        """What the sum over a group's query rows on this rank is multiplied by, [N]: the mean over the ranks is then
        over the rows of all. size: `Batch.mean_size`."""
        if self.config.query_average == "batch":
            return 1 / torch.full((len(query.counts),), size, dtype=self.loop.rates.dtype, device=query.index.device)
        return 1 / per_rank(query.count_tensor, self.loop.rates.dtype)

    def _query(
        self, rows: GroupRows, query: RowsByGroup, path: list[Weights], size: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Eq. 11: sum over the groups of lambda * query loss; and the losses of the rows after the last step. size: as
        of `query_scale`; None: those of this rank."""
        shares = self.config.step_weights or (1.0,)
        scale = self.weights * self.query_scale(query, len(rows.labels) if size is None else size)
        losses = rows.losses(query, self.among(query))
        last = losses(path[-1])
        terms = [shares[-1] * (self.of_groups(last, query) * scale).sum()]
        for share, weights in zip(shares[:-1], path, strict=False):
            if share:
                terms.append(share * (self.of_groups(losses(weights), query) * scale).sum())
        return torch.stack(terms).sum(), last

    def served(self, start: Weights) -> Weights:
        """What scores: Theta and what the inner loops have left of each group."""
        return {name: w + self.get_buffer(_key("shift", name)) for name, w in start.items()}

    def _leaking(self, rows: GroupRows, whole: RowsByGroup, start: Weights) -> Weights:
        return self.adapt(rows, whole, {name: w.detach() for name, w in start.items()}, None)[-1]

    def before_step(self, run: RunView, taken: Taken) -> None:
        """What is stored of an item goes with its row, where the row passes to another."""
        if self.enhancer is not None and (given := taken.new_rows.get(self.enhancer.table)) is not None:
            self.enhancer.kept[given.rows.to(self.enhancer.kept.device)] = False

    def after_step(self, run: RunView) -> None:
        """Takes up what the step's inner loop added; groups without support keep what they had."""
        if self._adapted is None:
            return
        (added, changed), self._adapted = self._adapted, None
        ranks, decay = run.ranks.world_size, self.config.serve_decay
        weight = changed.to(self.loop.rates.dtype)
        if ranks > 1:
            dist.all_reduce(weight)
        share = torch.where(weight > 0, 1 - decay, 0.0).to(weight.dtype)
        for name, values in added.items():
            if ranks > 1:
                values = values * _wide(changed, values)
                dist.all_reduce(values)
                values = values / _wide(weight.clamp(min=1), values)
            self.get_buffer(_key("shift", name)).lerp_(values, _wide(share, values))
        for part in (self.enhancer, self.before):
            if part is not None:
                part.keep()

    def begins(self, run: RunView, stage: Stage, progress: Progress) -> None:
        """Sets the cuts before the first step, whatever a warm start has brought: the config's, or the quantiles of the
        item's views in the rows of the first period or of the passes. Raises UserError where two of these are one."""
        if progress.step:
            return
        n = self.config.quantiles
        if not n:
            self.cuts.copy_(torch.tensor(self.config.cuts))
            return
        files = run.data.paths(stage.partitions)
        views = np.concatenate([parquet.read(f, ["item_views"])["item_views"].to_numpy() for f in files])
        cuts = np.quantile(views, np.arange(1, n) / n).astype(np.int64)
        if len(np.unique(cuts)) < len(cuts):
            raise UserError(
                f"{run.config.name}: pam.quantiles={n}: item_views of {len(views)} rows part at {cuts.tolist()}, and "
                "two of these are one; set fewer quantiles, or pam.cuts"
            )
        self.cuts.copy_(torch.from_numpy(cuts))


def adapted(c: PamConfig, config: Settings, features: FeatureSet) -> dict[str, torch.Size]:
    """Parameters of the model that are adapted: name -> shape. Raises UserError for a model without any."""
    with torch.device("meta"):
        model = config.model.build(features, len(config.tasks))
    if group_rows.dispatch(type(model)) is group_rows.dispatch(object):
        raise UserError(
            f"{config.name}: 'pam' does not know which part of model={config.model.kind()!r} it is to adapt"
        )
    of_towers = {n: p.shape for n, p in model.named_parameters() if n.startswith("towers.")}
    shapes = {n: shape for n, shape in of_towers.items() if n.startswith(c.adapt)}
    if not shapes:
        raise UserError(
            f"{config.name}: pam.adapt={list(c.adapt)}: no parameter of the towers begins so; "
            f"there is {next(iter(of_towers))}"
        )
    return shapes


def _key(kind: str, name: str) -> str:
    return f"{kind}_{name.replace('.', '_')}"


def _wide(per_group: Tensor, like: Tensor) -> Tensor:
    return per_group.view(-1, *[1] * (like.dim() - 1))
