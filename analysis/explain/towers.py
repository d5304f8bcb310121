"""What PAM's popularity groups take from an item's inputs, and how figures follow a setting.

The figures are PAM's Fig. 3 (section 5.4) and Fig. 4 (section 5.5).

B rows of a batch, D width of the item's vector.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from coldrank.analysis.explain.measure import draw_rows, load_config, load_run
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.data.json_files import ROW_FIELDS, read_rows
from coldrank.data.sample import ROWS_PER_BATCH, Sample
from coldrank.models.batch import Batch
from coldrank.models.two_tower import TwoTowerModule
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.difference import difference, flat
from coldrank.train.distributed.ranks import Ranks
from coldrank.train.hooks.pam.pam import Pam, PamModule
from coldrank.train.hooks.pam.rows import TowerRows
from coldrank.train.run import Run
from coldrank.train.task import RankingTask

COHORTS = ("cold_item", "popular_item")
METRICS = ("recall@5", "recall@5_of_all")


def explain_towers(
    folders: list[Path], data: DataFolder, ranks: Ranks, *, split: str, rows: int, seed: int, varied: Path | None
) -> dict[str, Any]:
    """The content of explain.json for runs of the two-tower model, on the same rows.

    varied: a folder of further run folders that differ in one field; None: none.
    """
    loaded = [load_run(folder, data, ranks) for folder in folders]
    sample = draw_rows([run for run, _ in loaded], split, rows, seed)
    figures = []
    for folder, (run, step) in zip(folders, loaded, strict=True):
        head = {"path": str(folder), "arm": run.config.name, "seed": run.config.seed, "step": step}
        figures.append(head | measure(run, sample))
    sensitivity = follow(varied) if varied else None
    return {
        "format": 1,
        "split": split,
        "rows": len(sample),
        "seed": seed,
        "runs": figures,
        "sensitivity": sensitivity,
    }


@torch.no_grad()
def measure(run: Run, sample: Sample) -> dict[str, Any]:
    """How far an item's vector moves when a part of its inputs is set to 0.

    masks: the inputs of the item's tower that are set to 0: those of `pam.behaviour`, and the others.
    errors: per mask and cohort the mean of (z' - z)^2 of each dimension of the item's vector, [D], by the weights of
        the item's group, and the sum over the dimensions (`total`; two vectors of length 1 are at most 4 apart).
    """
    task = run.task
    assert isinstance(task.ranker, TwoTowerModule)
    masks = masks_of(task.ranker, run.config)
    sums: dict[tuple[str, str], Tensor] = {}
    counts: dict[str, int] = {}
    bar = tqdm(total=-(-len(sample) // ROWS_PER_BATCH), desc=run.config.name, unit="batch")
    for _, plain, _ in sample.batches(run.make):
        batch = plain.to(run.ranks.device)
        rows = TowerRows.of(task.ranker, batch, task.ranker.sides(_embedded(task, batch), batch.dense))
        whole = _items(task, rows, batch)
        cohorts = run.config.retrieval.cohorts(batch.keys["item_views"].cpu().numpy())
        for cohort in COHORTS:
            counts[cohort] = counts.get(cohort, 0) + int(cohorts[cohort].sum())
        for mask, names in masks.items():
            item = rows.sides.item.clone()
            for name in names:
                item[:, task.ranker.item_columns[name]] = 0.0
            without = TowerRows(rows.model, rows.sides._replace(item=item), rows.labels, rows.ids)
            error = (_items(task, without, batch) - whole).double().square().cpu()
            for cohort in COHORTS:
                total = error[torch.from_numpy(cohorts[cohort])].sum(0)
                sums[mask, cohort] = sums[mask, cohort] + total if (mask, cohort) in sums else total
        bar.update()
    bar.close()
    errors = [
        {
            "mask": mask,
            "cohort": cohort,
            "rows": counts[cohort],
            "error": (total / counts[cohort]).tolist(),
            "total": float(total.sum()) / counts[cohort],
        }
        for (mask, cohort), total in sums.items()
        if counts[cohort]
    ]
    return {"masks": {name: list(names) for name, names in masks.items()}, "errors": errors}


def masks_of(model: TwoTowerModule, config: RunConfig) -> dict[str, tuple[str, ...]]:
    """`behaviour` and `content` -> features of the item. Raises UserError where one of them is empty."""
    named = next((hook.behaviour for hook in config.hooks if isinstance(hook, Pam)), Pam().behaviour)
    behaviour = tuple(name for name in model.item_columns if name in named)
    content = tuple(name for name in model.item_columns if name not in named)
    if not behaviour or not content:
        raise UserError(
            f"{config.name}: pam.behaviour={list(named)}: must name some, not all, of the item's features; "
            f"there are {', '.join(model.item_columns)}"
        )
    return {"behaviour": behaviour, "content": content}


def _embedded(task: RankingTask, batch: Batch) -> Any:
    embedded = task.embed(batch)
    for hook in task.in_order:
        embedded = hook.embed(batch, embedded)
    return embedded


def _items(task: RankingTask, rows: TowerRows, batch: Batch) -> Tensor:
    """Vectors of the items, float32 [B, D], by what scores them."""
    for hook in task.in_order:
        if isinstance(hook, PamModule):
            _, vectors = rows.outputs(hook.served(hook.start(rows.model)), hook.split(batch).group)
            assert vectors is not None
            return vectors.item
    return rows.model.vectors(rows.sides)[1]


def follow(folder: Path) -> dict[str, Any]:
    """How metrics follow the one field in which the runs of a folder differ, besides the seed.

    field: its name. points: per value, cohort and metric the `mean`, `least` and `most` of the seeds.
    Raises UserError where the runs differ in no field or in several.
    """
    runs = sorted(path.parent for path in folder.glob("*/summary.json"))
    if len(runs) < 2:
        raise UserError(f"--varied {folder}: needs at least two finished runs, has {len(runs)}")
    configs = [load_config(run) for run in runs]
    changed = sorted({line for config in configs for line in _fields(configs[0], config)})
    if len(changed) != 1:
        raise UserError(f"--varied {folder}: its runs must differ in one field; these differ in {changed}")
    by_point: dict[tuple[Any, str, str], list[float]] = {}
    for run, config in zip(runs, configs, strict=True):
        value = _value(config, changed[0])
        for row in read_rows(run / "summary.json", *ROW_FIELDS):
            if row["cohort"] in COHORTS and row["metric"] in METRICS and row["value"] is not None:
                by_point.setdefault((value, row["cohort"], row["metric"]), []).append(row["value"])
    points = [
        {
            "value": value,
            "cohort": cohort,
            "metric": metric,
            "mean": sum(seeds) / len(seeds),
            "least": min(seeds),
            "most": max(seeds),
            "n": len(seeds),
        }
        for (value, cohort, metric), seeds in sorted(by_point.items(), key=lambda item: (str(item[0][1:]), item[0][0]))
    ]
    return {"field": changed[0], "points": points}


def _value(config: RunConfig, field: str) -> Any:
    values = to_dict(config)
    value = flat(values | values["hooks"])[field]
    return tuple(value) if isinstance(value, list) else value


def _fields(base: RunConfig, other: RunConfig) -> Sequence[str]:
    changed = [line.partition(":")[0] for line in difference(other, base).splitlines()]
    return [field for field in changed if field not in ("name", "seed")]
