"""Models with random weights, and requests made of random samples, for the tests of serving."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tiny import changed, growing, sample_base, tiny
from torch import Tensor, nn

from coldrank.configs import base as parts
from coldrank.configs.base import history
from coldrank.data.batches import DataFolder, as_tensors
from coldrank.data.fit import fit_encoder
from coldrank.data.read import Raw
from coldrank.models.component import find
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import Feature, Table
from coldrank.models.heads import Binary
from coldrank.models.ids.evicting import EvictingMap
from coldrank.models.ids.growing import GrowingMap
from coldrank.models.model import Model
from coldrank.models.two_tower import TwoTower
from coldrank.serving.export import parity
from coldrank.serving.export.digests import write_digests
from coldrank.serving.export.signature import signature
from coldrank.serving.export.trained import Trained, made_task
from coldrank.serving.export.write import save_script
from coldrank.serving.tables import Precision
from coldrank.serving.twin import Twin
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.pam import Pam
from coldrank.train.hooks.posterior import Posterior
from coldrank.train.ids.eviction import admit


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


def backbone(kind: str, **fields: object) -> RunConfig:
    """`sample_base` with another model; all fields of one width."""
    config = sample_base()
    tables = tuple(replace(t, dim=4) for t in config.tables)
    features = tuple(replace(f, dim=min(f.dim, 4)) for f in config.features)
    sizes = {} if kind == "fm" else {"tower_hidden": config.model.tower_hidden}
    return replace(config, features=features, tables=tables, model=find(Model, kind)(**sizes, **fields))


def two_tower() -> RunConfig:
    """Towers in the place of the ranker; the history is an id with many values."""
    config = sample_base()
    features = [f for f in config.features if f.role not in ("sequence", "pc")]
    past = Feature(name="hist_item_id", role="user", kind="id", table="item", many=True)
    return replace(
        config,
        features=(*features, past),
        tasks={"like": Binary()},
        model=TwoTower(widths=(12, 10, 8)),
    )


def hooked(base: RunConfig, *hooks: str) -> RunConfig:
    """An arm with hooks; users are as wide as items, and half of the samples' counts are below the limits."""
    tables = tuple(replace(t, dim=8) if t.name in ("user", "item") else t for t in base.tables)
    settings = {
        "mwuf": Mwuf(max_views=99, users=4),
        "metacf": MetaCF(max_views=99, steps=2, rate=0.5, signal="hist_like"),
        "pam": Pam(cuts=(20, 60, 120)),
        "posterior": Posterior(item_max_views=99, user="user_id", user_max_views=99, refresh=7),
    }
    return replace(base, tables=tables, hooks=tuple(settings[hook] for hook in hooks))


def two_tower_metacf() -> RunConfig:
    """Towers, and a sequence beside them that MetaCF reads."""
    config = two_tower()
    past, *signals = history(6, {"hist_item_id": "item"}, ("like",), dim=4)
    past = replace(past, name="past_item_id", column="hist_item_id")
    config = hooked(replace(config, features=(*config.features, past, *signals)), "metacf")
    return changed(config, "metacf", items=past.name)


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
        Feature(name="pc_item_id", column="item_id", role="pc", kind="id", table="item"),
        replace(parts.personalization_code("user_gap_h", dim=4, edges=(0.1, 0.5)), name="pc_gap"),
    ),
    "positions": lambda: replace(sample_base(), model=replace(sample_base().model, positions=True)),
    "growing": growing,
    "managed": lambda: growing(33, "managed"),
    "wide_deep": lambda: backbone("wide_deep"),
    "deepfm": lambda: backbone("deepfm"),
    "fm": lambda: backbone("fm"),
    "pnn": lambda: backbone("pnn", products="both"),
    "dcn": lambda: backbone("dcn"),
    "afn": lambda: backbone("afn", neurons=5, floor=0.1),
    "gru4rec": lambda: backbone("gru4rec", state_dim=5),
    "din": lambda: backbone("din", unit_hidden=(7,)),
    "din_softmax": lambda: backbone("din", unit_hidden=(7,), softmax=True),
    "two_tower": two_tower,
    "multi_hash": multi_hash,
    "base_mwuf": lambda: hooked(sample_base(), "mwuf"),
    "poso_mwuf_growing": lambda: hooked(parts.all_features(parts.poso(growing())), "mwuf"),
    "base_metacf": lambda: hooked(sample_base(), "metacf"),
    "base_pam": lambda: hooked(sample_base(), "pam"),
    "poso_pam": lambda: hooked(parts.poso(sample_base()), "pam"),
    "poso_pam_mwuf_metacf": lambda: hooked(parts.poso(sample_base()), "pam", "mwuf", "metacf"),
    "base_posterior": lambda: hooked(sample_base(), "posterior"),
    "poso_posterior_growing": lambda: hooked(parts.all_features(parts.poso(growing())), "posterior"),
    "poso_metacf_mwuf": lambda: hooked(parts.poso(sample_base()), "metacf", "mwuf"),
    "dcn_metacf_mwuf": lambda: hooked(backbone("dcn"), "metacf", "mwuf"),
    "two_tower_metacf": two_tower_metacf,
    "two_tower_pam": lambda: hooked(two_tower(), "pam"),
    "two_tower_mwuf_pam": lambda: hooked(two_tower(), "mwuf", "pam"),
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
        if isinstance(module, EvictingMap):
            admit(module, torch.arange(1, 30, 2), *torch.ones(2, 15, dtype=torch.int64))
    task = made_task(config, encoder.features).eval()
    for name, parameter in task.named_parameters():
        # Wider, three methods stacked multiply rounding to more than what an export may differ by.
        nn.init.normal_(parameter, mean=0.5 * name.endswith("bias"), std=0.6)
    for name, buffer in task.named_buffers():
        if ".shift_" in name or name.endswith("mwuf.users"):
            buffer.normal_()
        if name.endswith(("mwuf.present", ".begun", ".trained")):
            buffer.copy_(torch.rand(buffer.shape) < 0.5)
        if ".posterior.ids." in f".{name}" and name.endswith((".weight", ".precision")):
            buffer.normal_(std=0.1).abs_()
    return Trained(config, encoder, task, 1)


def rows_of(trained: Trained, data: DataFolder, rows: int = 200) -> Raw:
    """Rows of the test split."""
    return parity.sample(trained, data, "test", rows)


def request_of(trained: Trained, raw: Raw, user: int, candidates: list[int], *, once: bool = True) -> dict[str, Tensor]:
    """The inputs of a user (of row `user`) and candidates (of rows), the user's given once or for every candidate."""
    chosen = trained.columns()
    request: dict[str, Tensor] = {}
    for name in trained.reads:
        rows = candidates if name in chosen else [user] * (1 if once else len(candidates))
        request |= as_tensors({name: parity.take_rows({name: raw[name]}, np.array(rows, dtype=np.int64))[name]})
    return request


def exported(trained: Trained, folder: Path, precision: Precision = "float32") -> Twin:
    """Writes an export folder without the parts that only Triton and people read."""
    folder.mkdir()
    twin = trained.twin(trained.columns(), precision)
    save_script(twin, folder / "model.pt")
    told = signature(twin.inputs, trained.config.tasks, {}, trained.temperature) | {"version": int(twin.version)}
    (folder / "signature.json").write_text(json.dumps(told))
    (folder / "config.json").write_text(json.dumps(to_dict(trained.config)))
    write_digests(folder)
    return twin
