"""Models with random weights, and requests made of random samples, for the tests of serving."""

from dataclasses import replace

import numpy as np
import torch
from tiny import growing, sample_base, tiny
from torch import Tensor, nn

from coldrank.configs import base as parts
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import Feature, Table
from coldrank.models.maps import GrowingMap, ManagedMap
from coldrank.models.two_tower import TwoTowerConfig
from coldrank.train.config import RunConfig, validate
from coldrank.train.data.batches import DataFolder, as_tensors
from coldrank.train.data.fit import fit_encoder
from coldrank.train.data.read import Raw
from coldrank.train.export import parity
from coldrank.train.export.signature import candidate_columns
from coldrank.train.export.trained import Trained
from coldrank.train.managed import admit
from coldrank.train.task import RankingTask


def multi_hash() -> RunConfig:
    """`sample_base` with hashed tables: of two hashes, and shared by salted features."""
    config = sample_base()
    tables = tuple(
        Table(name=t.name, rows=t.rows, dim=8, mapping="multi_hash", hashes=2 + (t.name == "tag"))
        for t in config.tables
    )
    salted = Feature(name="tab", column="user_views", role="context", kind="id", table="small", salted=True)
    also = Feature(name="tab2", column="user_views", role="context", kind="id", table="small", salted=True)
    features = tuple(f for f in config.features if f.raw_columns != ("user_views",))
    return replace(config, features=(*features, salted, also), tables=(*tables, Table(name="small", rows=7, dim=4)))


def backbone(kind: str) -> RunConfig:
    """`sample_base` with another model; all fields of one width."""
    config = sample_base()
    tables = tuple(replace(t, dim=4) for t in config.tables)
    return replace(config, tables=tables, model=replace(config.model, kind=kind))


def two_tower() -> RunConfig:
    """Towers in the place of the ranker; the history is an id with many values."""
    config = sample_base()
    features = [f for f in config.features if f.role not in ("sequence", "pc")]
    past = Feature(name="hist_item_id", role="user", kind="id", table="item", many=True)
    return replace(config, features=(*features, past), tasks={"like": 1.0}, two_tower=TwoTowerConfig())


CONFIGS = {
    "base": sample_base,
    "poso": lambda: parts.poso(sample_base()),
    "poso_mha": lambda: parts.poso_mha(sample_base()),
    "poso_qkv": lambda: parts.mha_fold(parts.poso(sample_base()), "qkv"),
    "poso_all_features": lambda: parts.all_features(parts.poso(sample_base())),
    "poso_constant": lambda: parts.constant_pc(parts.poso(sample_base())),
    "poso_two_codes": lambda: parts.with_code(
        parts.poso(sample_base()),
        "two",
        parts.id_code("item_id", "item"),
        replace(parts.personalization_code("user_gap_h", dim=4, edges=(0.1, 0.5)), name="pc_gap"),
    ),
    "positions": lambda: replace(sample_base(), model=replace(sample_base().model, positions=True)),
    "growing": growing,
    "managed": lambda: growing(33, "managed"),
    "wide_deep": lambda: backbone("wide_deep"),
    "deepfm": lambda: backbone("deepfm"),
    "dcn": lambda: backbone("dcn"),
    "two_tower": two_tower,
    "multi_hash": multi_hash,
}


def random_model(config: RunConfig, data: DataFolder, seed: int = 0) -> Trained:
    """A model with random weights, gates as well, and an encoder that is fitted to the data."""
    torch.manual_seed(seed)
    config = tiny(config)
    encoder = FeatureEncoder(validate(config))
    fit_encoder(encoder, data.files(("train",)))
    for module in encoder.maps.values():
        if isinstance(module, GrowingMap):
            module.add(torch.arange(1, 30, 2))
        if isinstance(module, ManagedMap):
            admit(module, torch.arange(1, 30, 2), torch.ones(15, dtype=torch.int64))
    task = RankingTask(encoder.features, config.model, config.tasks, two_tower=config.two_tower).eval()
    for name, parameter in task.named_parameters():
        nn.init.normal_(parameter, mean=0.5 * name.endswith("bias"), std=0.8)
    return Trained(config, encoder, task, 1)


def rows_of(trained: Trained, data: DataFolder, rows: int = 200) -> Raw:
    """Rows of the test split."""
    return parity.sample(trained, data, "test", rows)


def request_of(trained: Trained, raw: Raw, user: int, candidates: list[int], *, once: bool = True) -> dict[str, Tensor]:
    """The inputs of a user (of row `user`) and candidates (of rows), the user's given once or for every candidate."""
    chosen = candidate_columns(trained.encoder.features)
    request: dict[str, Tensor] = {}
    for i in trained.encoder.features.inputs:
        rows = candidates if i.name in chosen else [user] * (1 if once else len(candidates))
        request |= as_tensors({i.name: parity.take_rows({i.name: raw[i.name]}, np.array(rows, dtype=np.int64))[i.name]})
    return request
