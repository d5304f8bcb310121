"""A run's model as it was trained, whole, in one process, from a checkpoint of any number of ranks."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from coldrank.data.batches import BatchMaker
from coldrank.data.errors import UserError
from coldrank.data.read import Raw
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import FeatureSet
from coldrank.serving.export.hooks import counts, served_hooks
from coldrank.serving.export.signature import candidate_columns
from coldrank.serving.tables import Precision
from coldrank.serving.twin import Twin
from coldrank.train import checkpoint
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import process_group
from coldrank.train.hooks.make import make_hooks
from coldrank.train.ids.stored import sized
from coldrank.train.load import load
from coldrank.train.task import RankingTask


@dataclass(frozen=True, slots=True)
class Trained:
    """config, encoder and task of a run, on the CPU; step: of the checkpoint."""

    config: RunConfig
    encoder: FeatureEncoder
    task: RankingTask
    step: int

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(self.config.tasks)

    @property
    def make(self) -> BatchMaker:
        """Raw columns -> Batch."""
        return BatchMaker(self.encoder, self.config.tasks)

    @property
    def reads(self) -> list[str]:
        """Names of the raw columns that the served model reads; a list's lengths go with it."""
        return list(dict.fromkeys([*(i.name for i in self.encoder.features.inputs), *counts(self.config)]))

    @property
    def temperature(self) -> float | None:
        """Of the two-tower model, which gives inner products: the sigmoid of one over this is its probability."""
        return self.task.ranker.temperature

    def columns(self, change: Iterable[str] = ()) -> set[str]:
        """The raw columns that differ between the candidates of a request; change: as for `candidate_columns`."""
        return candidate_columns(self.encoder.features, change, counts(self.config))

    @torch.no_grad()
    def scores(self, raw: Raw) -> Tensor:
        """What training's own code makes of B samples, as it is served: float32 [B, T]."""
        logits = self.task(self.make(raw)).logits
        served: Tensor = logits * self.temperature if self.temperature else self.task.heads(logits)
        return served

    def twin(self, candidate: set[str], precision: Precision = "float32", *, traced: bool = False) -> Twin:
        """The model to serve. candidate: raw columns that differ between the candidates of a request. traced: without
        the parts that are written by hand. Raises UserError for a column that a hook needs on the other side."""
        bags = self.task.embeddings.ebc.embedding_bags
        tables = {t.name: bags[t.name].weight.detach() for t in self.encoder.features.tables}
        hooked = served_hooks(self.config, self.task, self.encoder.features, traced=traced)
        parts = (self.encoder, tables, self.task.ranker, self.task.heads, self.tasks, candidate, precision, hooked)
        try:
            return Twin(*parts, projected=self.task.projected)
        except ValueError as error:
            raise UserError(f"--candidate: {error}") from None


def load_trained(run: Path) -> Trained:
    """Loads the last checkpoint of a run that can be used. Raises UserError if there is no run or no checkpoint."""
    if not (run / "config.json").exists():
        raise UserError(f"{run}: holds no run (no config.json)")
    config = load(str(run / "config.json"))
    encoder = FeatureEncoder(validate(config))
    task = made_task(config, encoder.features)
    state = {"model": task.state_dict(), "encoder": encoder.state_dict()}
    with process_group() as ranks:
        if ranks.world_size > 1:
            raise UserError(f"WORLD_SIZE={ranks.world_size}: export runs in one process; call it without torchrun")
        path, shapes = checkpoint.newest(run / "checkpoints", ranks)
        state["encoder"] |= sized(encoder, checkpoint.encoder_shapes(shapes))
        _check(path, shapes, state)
        checkpoint.load_into(path, state)
    task.load_state_dict(state["model"])
    encoder.load_state_dict(state["encoder"])
    return Trained(config, encoder, task.eval(), int(path.name.removeprefix("step-")))


def made_task(config: RunConfig, features: FeatureSet) -> RankingTask:
    """A run's task with its hooks and new weights."""
    hooks = make_hooks(config, features)
    return RankingTask(features, config.model, config.tasks, hooks=hooks)


def _check(path: Path, shapes: dict[str, list[int]], state: dict[str, dict[str, Tensor]]) -> None:
    for part, tensors in state.items():
        for name, value in tensors.items():
            there = shapes.get(f"{part}.{name}")
            if there != list(value.shape):
                raise UserError(
                    f"{path}: {part}.{name} has shape {there} there, {list(value.shape)} by the run's config.json"
                )
