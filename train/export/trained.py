"""A run's model as it was trained, whole, in one process, from a checkpoint of any number of ranks."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from coldrank.models.encode import FeatureEncoder
from coldrank.models.serving.tables import Precision
from coldrank.models.serving.twin import Twin
from coldrank.train import checkpoint
from coldrank.train.config import RunConfig, load, validate
from coldrank.train.data.batches import BatchMaker
from coldrank.train.data.read import Raw
from coldrank.train.distributed import process_group
from coldrank.train.errors import UserError
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
        return BatchMaker(self.encoder, self.tasks)

    @torch.no_grad()
    def probabilities(self, raw: Raw) -> Tensor:
        """What training's own code makes of B samples: float32 [B, T]."""
        return torch.sigmoid(self.task(self.make(raw)).logits)

    def twin(self, candidate: set[str], precision: Precision = "float32") -> Twin:
        """The model to serve. candidate: raw columns that differ between the candidates of a request."""
        bags = self.task.embeddings.ebc.embedding_bags
        tables = {t.name: bags[t.name].weight.detach() for t in self.encoder.features.tables}
        return Twin(self.encoder, tables, self.task.ranker, self.tasks, candidate, precision)


def load_trained(run: Path) -> Trained:
    """Loads the last checkpoint of a run that can be used. Raises UserError if there is no run or no checkpoint."""
    if not (run / "config.json").exists():
        raise UserError(f"{run}: holds no run (no config.json)")
    config = load(str(run / "config.json"))
    encoder = FeatureEncoder(validate(config))
    if config.hooks:
        raise UserError(f"{run}: hooks={list(config.hooks)}: what they add to the model is not exported yet")
    task = RankingTask(encoder.features, config.model, config.tasks, two_tower=config.two_tower)
    state = {"model": task.state_dict(), "encoder": encoder.state_dict()}
    with process_group() as ranks:
        if ranks.world_size > 1:
            raise UserError(f"WORLD_SIZE={ranks.world_size}: export runs in one process; call it without torchrun")
        path, shapes = checkpoint.newest(run / "checkpoints", ranks)
        _check(path, shapes, state)
        checkpoint.load_into(path, state)
    task.load_state_dict(state["model"])
    encoder.load_state_dict(state["encoder"])
    return Trained(config, encoder, task.eval(), int(path.name.removeprefix("step-")))


def _check(path: Path, shapes: dict[str, list[int]], state: dict[str, dict[str, Tensor]]) -> None:
    for part, tensors in state.items():
        for name, value in tensors.items():
            there = shapes.get(f"{part}.{name}")
            if there != list(value.shape):
                raise UserError(
                    f"{path}: {part}.{name} has shape {there} there, {list(value.shape)} by the run's config.json"
                )
