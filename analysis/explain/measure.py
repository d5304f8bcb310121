"""Everything that `coldrank explain` measures of one run, as plain JSON values."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from coldrank.analysis.explain.attention import Attention
from coldrank.analysis.explain.changes import Changes, Cohorts
from coldrank.analysis.explain.experts import ExpertUse
from coldrank.analysis.explain.gates import GateOutputs, layouts
from coldrank.analysis.explain.masks import Mask, masked, masks_of
from coldrank.analysis.explain.record import Recording, ranker_of, record
from coldrank.data.batches import DataFolder
from coldrank.data.cohorts import CohortConfig, cohort_masks
from coldrank.data.errors import UserError
from coldrank.data.read import Raw
from coldrank.data.sample import ROWS_PER_BATCH, Sample, draw
from coldrank.models.batch import Batch
from coldrank.modules import MultiheadAttention, PosoMultiheadAttention
from coldrank.train import checkpoint
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import Ranks
from coldrank.train.evaluate import evaluation_reader
from coldrank.train.gates import Buckets
from coldrank.train.load import load
from coldrank.train.run import Run, build
from coldrank.train.task import RankingTask


def load_run(folder: Path, data: DataFolder, ranks: Ranks) -> tuple[Run, int]:
    """A run with the weights of its last checkpoint, ready to score, and the checkpoint's step.

    Raises UserError for a folder without config.json or checkpoint.
    """
    config = load_config(folder)
    if not checkpoint.steps(folder / "checkpoints"):
        raise UserError(f"{folder}: no checkpoint in it")
    run = build(config, data, ranks)
    step = run.load(folder / "checkpoints", {}).step
    run.model.eval()
    return run, step


def load_config(folder: Path) -> RunConfig:
    """The config of a run folder. Raises UserError where there is none."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json in it; give a run folder written by `coldrank train`")
    return load(str(folder / "config.json"))


def draw_rows(runs: list[Run], split: str, rows: int, seed: int) -> Sample:
    """Rows of a split with the columns of every run."""
    readers = [evaluation_reader(run.make, run.data, split, run.config, run.ranks) for run in runs]
    specs: dict[str, Any] = {}
    for run, reader in zip(runs, readers, strict=True):
        for column in reader.columns:
            if specs.setdefault(column.name, column) != column:
                raise UserError(
                    f"{run.config.name}: column {column.name!r} is read in another way by {runs[0].config.name}"
                )
    readers[0].columns = list(specs.values())
    return draw(readers[0], rows, seed)


def measure(run: Run, sample: Sample, masks: list[Mask], cohorts: CohortConfig) -> dict[str, Any]:
    """Layers, masks, changes, gates, attention and experts of one run on the sample."""
    task = run.task
    meter = _Meter(run, task, masks)
    bar = tqdm(total=-(-len(sample) // ROWS_PER_BATCH) * (1 + len(masks)), desc=run.config.name, unit="pass")
    with bar, torch.no_grad():
        for raw, batch, other in sample.batches(run.make):
            meter.add(raw, batch, other, _cohorts(batch, cohorts), bar)
    return meter.figures()


class _Meter:
    """All accumulators of a run."""

    def __init__(self, run: Run, task: RankingTask, masks: list[Mask]) -> None:
        config, self.features, self.device = run.config, run.encoder.features, run.ranks.device
        tasks = list(config.tasks)
        self.task, self.masks = task, masks
        self.changes, self.experts = Changes(config.tasks, deepcopy(task.heads).cpu()), ExpertUse(tasks)
        self.gates = GateOutputs(Buckets(config, run.encoder), layouts(ranker_of(task), tasks))
        positions = bool(ranker_of(task).positions)
        self.attention = {n: Attention(fs, positions) for n, fs in self.features.sequences.items()}

    def add(self, raw: Raw, batch: Batch, other: Batch, cohorts: Cohorts, bar: Any) -> None:
        plain = record(self.task, batch.to(self.device))
        bar.update()
        self.changes.add_plain(plain.layers, cohorts)
        self.gates.add(batch, plain.gates)
        self._add_weights(plain, batch.sequence_lengths, raw, cohorts)
        for mask in self.masks:
            changed = record(self.task, masked(batch, other, mask, self.features).to(self.device))
            self.changes.add_masked(mask.name, plain.layers, changed.layers, cohorts)
            bar.update()

    def _add_weights(self, plain: Recording, lengths: Tensor, raw: Raw, cohorts: Cohorts) -> None:
        ranker = ranker_of(self.task)
        for i, (name, module) in enumerate(ranker.attention.items()):
            assert isinstance(module, MultiheadAttention | PosoMultiheadAttention)
            weights = module.weights(*plain.attention[name]).cpu()
            self.attention[name].add(weights, lengths[i], raw, cohorts)
        softmax, effective = ranker.mmoe.task_weights(plain.mixture[0]), ranker.mmoe.expert_weights(*plain.mixture)
        self.experts.add(softmax.cpu(), effective.cpu(), cohorts)

    def figures(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "layers": list(self.changes.layers),
            "masks": [{"name": m.name, "title": m.title, "inputs": [*m.features, *m.sequences]} for m in self.masks],
            "changes": self.changes.rows(),
            "shifts": self.changes.shifts(),
            "gates": self.gates.figures(),
            "attention": {name: attention.figures() for name, attention in self.attention.items()},
            "experts": self.experts.figures(),
        }


def _cohorts(batch: Batch, config: CohortConfig) -> Cohorts:
    masks = cohort_masks(batch.keys["user_views"].numpy(), batch.keys["item_views"].numpy(), config)
    return {name: torch.from_numpy(mask) for name, mask in masks.items()}


def explain_runs(
    folders: list[Path], data: DataFolder, ranks: Ranks, *, split: str, rows: int, seed: int, named: list[str]
) -> dict[str, Any]:
    """Explains runs on the same rows with the same partners: the content of explain.json."""
    loaded = [load_run(folder, data, ranks) for folder in folders]
    runs = [run for run, _ in loaded]
    masks = [masks_of(run.config, run.encoder.features, named) for run in runs]
    sample = draw_rows(runs, split, rows, seed)
    cohorts = runs[0].config.cohorts
    figures = []
    for folder, (run, step), chosen in zip(folders, loaded, masks, strict=True):
        head = {"path": str(folder), "arm": run.config.name, "seed": run.config.seed, "step": step}
        head |= {"tasks": list(run.config.tasks), "trained_on": list(run.config.data.fit)}
        figures.append(head | measure(run, sample, chosen, cohorts))
    return {
        "format": 1,
        "split": split,
        "rows": len(sample),
        "seed": seed,
        "cohorts": {"new_user_max_views": cohorts.new_user_max_views, "new_item_max_views": cohorts.new_item_max_views},
        "runs": figures,
    }
