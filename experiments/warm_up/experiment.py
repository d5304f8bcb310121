"""All methods on all models, phases, passes and seeds. Every result is a line of `results.jsonl`, computed once.

The rate of the new ID embeddings, or of `Posterior` the strength of the prior, is chosen per model, method and number
of passes, from as many values for each. It is chosen on old items that are held out (`Protocol.held_out`); the AUCs of
the three warm phases decide.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from coldrank.analysis.compare.interval import effective_users
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.experiments.warm_up import methods as m
from coldrank.experiments.warm_up.base import Base, EmbeddedEvents, SplitRows, pretrain
from coldrank.experiments.warm_up.gated import GatedWarm
from coldrank.experiments.warm_up.protocol import SPLITS, Protocol, write_splits
from coldrank.metrics.mann_whitney import SortedRows
from coldrank.train.config import RunConfig

Json = dict[str, Any]
PHASES = ("cold", *SPLITS[1:4])
PASSES = (1, 5, 20)
DROPOUT = 0.1
DRAWS = 60
# Name -> method, and the share of dropped ID embeddings in the training of its base.
METHODS: dict[str, tuple[type[m.Method], float]] = {
    "base, random": (m.Method, 0.0),
    "base, mean": (m.Mean, 0.0),
    "DropoutNet": (m.Mean, DROPOUT),
    "MetaEmb": (m.MetaEmb, 0.0),
    "MWUF": (m.Warm, 0.0),
    "MWUF, gated by views": (GatedWarm, 0.0),
    "CVAR": (m.CvarWarm, 0.0),
    "posterior": (m.Posterior, 0.0),
    "posterior, DropoutNet": (m.Posterior, DROPOUT),
    "without side features": (m.PosteriorWithoutSide, DROPOUT),
    "isotropic prior": (m.PosteriorIsotropic, DROPOUT),
    "prior's mean, then Adam": (m.PriorMean, DROPOUT),
}
RATES = (1e-3, 5e-3, 2e-2)
STRENGTHS = (0.02, 0.14, 1.0)


@dataclass(slots=True)
class SeedSetup:
    """A seed's data and bases."""

    config: RunConfig
    """The model."""
    data: DataFolder
    """The splits of the protocol."""
    seed: int
    """The seed."""
    old: SplitRows
    """Events of the old items."""
    new: dict[str, SplitRows]
    """Split -> events of the new items."""
    bases: dict[float, tuple[Base, dict[str, EmbeddedEvents], float]]
    """Share of dropped ID embeddings -> what `base` returns, once it was needed."""

    @classmethod
    def from_data(cls, config: RunConfig, data: DataFolder, seed: int) -> "SeedSetup":
        """Reads the splits."""
        make = Base(config, data, seed).make
        first = SplitRows(data, "warm_a", make)
        rest = {split: SplitRows(data, split, make, first.items) for split in SPLITS[2:]}
        column = f"label_{next(iter(config.tasks))}"
        for split, rows in {"warm_a": first, **rest}.items():
            labels = np.unique(np.asarray(rows.raw[column])[~np.isnan(rows.raw[column])])
            if len(labels) < 2:
                raise UserError(
                    f"{data.path}: {column} is {labels.tolist()} in all of {split}: no AUC without both classes"
                )
        return cls(config, data, seed, SplitRows(data, "old", make), {"warm_a": first, **rest}, {})

    def base(self, dropout: float) -> tuple[Base, dict[str, EmbeddedEvents], float]:
        """A trained base, the new items' events as it embeds them, and the seconds of its training."""
        if dropout not in self.bases:
            begun, base = time.process_time(), Base(self.config, self.data, self.seed)
            pretrain(base, self.old, self.seed, dropout)
            seconds = time.process_time() - begun
            events = {split: base.all_events(rows) for split, rows in self.new.items()}
            known = {split: e.rows(~torch.isnan(e.labels)) for split, e in events.items()}
            self.bases[dropout] = base, known, seconds
        return self.bases[dropout]


class Judge:
    """AUCs of a set of events, on the events and on draws of users, which are the same in every run."""

    def __init__(self, events: EmbeddedEvents, draws: int) -> None:
        _, self.users = np.unique(events.users.numpy(), return_inverse=True)
        self.labels = events.labels.numpy().astype(np.int8)
        rng, count = np.random.default_rng(0), int(self.users.max()) + 1
        drawn = [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(draws)]
        self.draws = np.array([np.ones(count), *drawn]).astype(np.uint8)
        self.effective_users = effective_users(self.labels, self.users)

    def __call__(self, base: Base, method: m.Method, events: EmbeddedEvents) -> list[float]:
        """AUCs of a method's scores, [1 + draws]; the first is of the events themselves."""
        with torch.no_grad():
            scores = base.logits(events, method.ids(events)).numpy()
        units = SortedRows.from_scores(self.labels, scores, self.labels >= 0).pairs().of_units(self.users)
        return [float(units.auc(draw).mean()) for draw in self.draws]


def measure(
    base: Base,
    events: dict[str, EmbeddedEvents],
    method: m.Method,
    settings: m.MethodSettings,
    judges: dict[str, Judge],
) -> Json:
    """A method's way through the phases: AUC of each on the test set (`fixed`) and on the next set (`slides`).

    judges: split -> its judge. Seconds are of the CPU.
    """
    begun = time.process_time()
    method.start(settings)
    seconds = time.process_time() - begun
    users = min(judge.effective_users for judge in judges.values())
    result: Json = {"fixed": [], "slides": [], "users": users}
    for phase, following in zip(PHASES, SPLITS[1:], strict=True):
        if phase != "cold":
            begun = time.process_time()
            method.warm(events[phase])
            seconds += time.process_time() - begun
        for name, split in (("fixed", "test"), ("slides", following)):
            result[name].append(judges[split](base, method, events[split]))
    return result | {"seconds": seconds}


def runs(
    setup: SeedSetup, names: list[str], settings_of: dict[tuple[str, int], list[m.MethodSettings]], draws: int
) -> Iterator[Json]:
    """The results of a seed. settings_of: (method, passes) -> what is run."""
    for name in names:
        kind, dropout = METHODS[name]
        base, events, base_seconds = setup.base(dropout)
        side = base.side_of(setup.new["warm_a"])
        begun = time.process_time()
        method = kind(base, setup.old, side, setup.seed)
        prepared = time.process_time() - begun
        judges = {split: Judge(e, draws) for split, e in events.items()}
        for passes in PASSES:
            for settings in settings_of[name, passes]:
                figures = measure(base, events, method, settings, judges)
                key = {"model": setup.config.name, "method": name, "seed": setup.seed, **asdict(settings)}
                yield key | figures | {"base_seconds": base_seconds, "prepare_seconds": prepared}


def candidates(name: str, passes: int) -> list[m.MethodSettings]:
    """What is tried for a method."""
    one = m.MethodSettings(passes=passes)
    if issubclass(METHODS[name][0], m.Posterior) and METHODS[name][0] is not m.PriorMean:
        return [replace(one, strength=s) for s in STRENGTHS]
    return [replace(one, id_lr=rate) for rate in RATES]


def experiment(
    config: RunConfig, data: DataFolder, out: Path, protocol: Protocol, seeds: int, names: list[str]
) -> None:
    """Tunes and runs one model; appends to `out/results.jsonl` and `out/tuned.jsonl` what is not there yet."""
    folders = {}
    for folder, held_out in (("data", 0), ("data-tuning", 4)):
        wanted = replace(protocol, held_out=held_out)
        path = out / folder
        folders[folder] = DataFolder.open(path) if path.exists() else write_splits(data, path, wanted)
    tuned = _tune(config, folders["data-tuning"], out, names)
    done = {(r["method"], r["seed"], r["passes"]) for r in read(out / "results.jsonl") if r["model"] == config.name}
    for seed in tqdm(range(1, seeds + 1), desc=config.name, unit="seed"):
        left = [n for n in names if any((n, seed, p) not in done for p in PASSES)]
        if not left:
            continue
        chosen = {(n, p): [tuned[n, p]] if (n, seed, p) not in done else [] for n in left for p in PASSES}
        for result in runs(SeedSetup.from_data(config, folders["data"], seed), left, chosen, DRAWS):
            _append(out / "results.jsonl", result)


def _tune(config: RunConfig, data: DataFolder, out: Path, names: list[str]) -> dict[tuple[str, int], m.MethodSettings]:
    """The best settings on the held-out old items, by method and passes."""
    wanted = {(name, passes): candidates(name, passes) for name in names for passes in PASSES}
    scores = _tuned(config, out)
    left = {key: [s for s in tries if (key[0], s) not in scores] for key, tries in wanted.items()}
    setup = None
    for name in names:
        if any(left[name, passes] for passes in PASSES):
            setup = setup or SeedSetup.from_data(config, data, 1)
            _append(out / "tuned.jsonl", *runs(setup, [name], left, 0))  # a method's tries are written together
    scores = _tuned(config, out)
    return {(name, p): max(tries, key=lambda s: scores[name, s]) for (name, p), tries in wanted.items()}


def _tuned(config: RunConfig, out: Path) -> dict[tuple[str, m.MethodSettings], float]:
    """What is known of a model's methods: the sum of the AUCs of the warm phases, on the test set."""
    rows = [r for r in read(out / "tuned.jsonl") if r["model"] == config.name]
    fields = m.MethodSettings.__slots__
    return {
        (r["method"], m.MethodSettings(**{f: r[f] for f in fields})): sum(auc[0] for auc in r["fixed"][1:])
        for r in rows
    }


def read(path: Path) -> list[Json]:
    """Lines of JSON; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _append(path: Path, *results: Json) -> None:
    with path.open("a") as file:
        file.write("".join(json.dumps(result) + "\n" for result in results))
