"""What a config must be for the warm-up experiments, which train and judge in their own way."""

import json
from pathlib import Path
from typing import NamedTuple

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.experiments.warm_up.protocol import Protocol
from coldrank.models.features import Feature, FeatureSet
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.difference import difference
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.load import from_dict
from coldrank.train.sections import DenseConfig, OptimConfig, TablesConfig, TrainConfig

# Columns that tell of events: those of the new items are not to be known before their phase.
_COUNTED = ("user_views", "item_views", "rate_", "views_", "hist_", "item_hist_", "user_hist_")
# What the protocol does not do, by the fields that ask for it.
_TRAIN = ("mode", "steps", "cold_passes", "accumulate", "precision", "warm_start")
_SCHEDULE = ("warmup_steps", "decay")
_TABLES = ("lr_scale", "weight_decay", "clip_value", *_SCHEDULE)
_DENSE = ("gate_lr_scale", "clip_norm", *_SCHEDULE)


class Roles(NamedTuple):
    """The features that the warm-up experiments need."""

    item: Feature
    """The item's id."""
    user: Feature
    """The user's id."""
    side: list[Feature]
    """The embedded features of the item beside its id."""


def roles_of(config: RunConfig, features: FeatureSet) -> Roles:
    """Which features are what, by the columns that they read.

    Raises UserError that names the field for a config that the protocol cannot follow.
    """
    wrong = [*_model_problems(config, features), *_setting_problems(config)]
    if wrong:
        raise UserError(f"{config.name}: {wrong[0]}")
    fixed = [f for f in features.sparse if f.kind == "id" and not f.many and f.role != "pc"]
    readers = {column: [f for f in fixed if f.raw_columns == (column,)] for column in ("item_id", "user_id")}
    for column, features_of_column in readers.items():
        if not features_of_column:
            raise UserError(
                f"{config.name}: features: no embedded id reads {column!r}; the warm-up experiments need one"
            )
    item, user = readers["item_id"][0], readers["user_id"][0]
    try:
        side = Mwuf(item=item.name, user=(user.name,)).side(features)
    except ValueError as error:
        raise UserError(f"{config.name}: features: {error}") from None
    return Roles(item, user, side)


def _model_problems(config: RunConfig, features: FeatureSet) -> list[str]:
    wrong = []
    if config.model.compares_rows or config.hooks:
        what = f"hooks={config.hook_names}" if config.hooks else f"model={config.model.kind()!r}"
        wrong.append(f"{what}: the warm-up experiments compare methods of their own on a ranker; leave it out")
    if len(config.tasks) != 1:
        wrong.append(f"tasks={list(config.tasks)}: the warm-up experiments have one; --set tasks='{{\"name\": 1}}'")
    wrong += [
        f"tasks.{name} is {head.kind()}: the warm-up experiments have a binary one"
        for name, head in config.tasks.items()
        if not head.is_binary
    ]
    if config.model.personalized:
        wrong.append("model.poso_*: the warm-up experiments have no personalization code; unset them")
    for f in features.features:
        counted = [c for c in f.raw_columns if c.startswith(_COUNTED)]
        if f.role == "sequence" or counted:
            wrong.append(
                f"feature {f.name!r} of {', '.join(f.raw_columns)}: tells of events that a phase of the warm-up"
                " does not know yet; leave it out"
            )
        if f.kind == "vector":
            wrong.append(f"feature {f.name!r}: kind='vector': the warm-up experiments read tables alone; leave it out")
    for t in features.tables:
        if t.mapping in ("growing", "managed"):
            wrong.append(f"table {t.name!r}: mapping={t.mapping!r}: is not grown here; take vocabulary")
    return wrong


def _setting_problems(config: RunConfig) -> list[str]:
    optim = config.optim
    parts = [
        ("train", config.train, TrainConfig(), _TRAIN),
        ("optim", optim, OptimConfig(), _SCHEDULE),
        ("optim.tables", optim.tables, TablesConfig(), _TABLES),
        ("optim.dense", optim.dense, DenseConfig(), _DENSE),
    ]
    changed = [
        f"{part}.{name}={getattr(section, name)!r}"
        for part, section, plain, names in parts
        for name in names
        if getattr(section, name) != getattr(plain, name)
    ]
    if config.cold_weight != 1:
        changed.append(f"cold_weight={config.cold_weight}")
    of_data = {name: getattr(config.data, name) for name in ("since", "weight_column")}
    changed += [f"data.{name}={value!r}" for name, value in of_data.items() if value]
    return [f"{setting}: has no effect in the warm-up experiments; leave it out" for setting in changed]


def check_folder(out: Path, config: RunConfig, data: DataFolder, protocol: Protocol) -> None:
    """Raises UserError that names what differs if the folder holds results of another config, data or protocol."""
    path = out / "experiment.json"
    about = {"config": to_dict(config), "data": data.digest, "protocol": str(protocol)}
    if not path.exists():
        path.write_text(json.dumps(about, indent=1) + "\n")
        return
    old = json.loads(path.read_text())
    changed = difference(config, from_dict(old["config"], str(path))).splitlines()
    changed += [f"{name}: {old[name]} -> {about[name]}" for name in ("data", "protocol") if old[name] != about[name]]
    if changed:
        raise UserError(f"{out}: holds results of another experiment ({changed[0]}); take another --out")
