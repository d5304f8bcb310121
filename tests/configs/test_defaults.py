"""What a user gets who sets nothing: the defaults, as the pages of docs/ and the papers give them. A default that
changes changes the runs of everyone who did not set it: it is written down here once more."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

import pytest

from coldrank import modules
from coldrank.analysis.compare.compare import compare
from coldrank.data.cohorts import CohortConfig
from coldrank.data.log import Group
from coldrank.metrics.retrieval import RetrievalConfig
from coldrank.models.afn import AFN
from coldrank.models.dcn import DCN
from coldrank.models.deepfm import DeepFM
from coldrank.models.din import DIN
from coldrank.models.features import Feature, Table
from coldrank.models.gru4rec import GRU4Rec
from coldrank.models.pnn import PNN
from coldrank.models.ranker import Ranker
from coldrank.models.two_tower import TwoTower
from coldrank.models.wide_deep import WideDeep
from coldrank.modules.metacf import logistic_steps
from coldrank.modules.posterior import fit_prior
from coldrank.train.hooks.asmg import ASMG
from coldrank.train.hooks.incctr import IncCTR
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.pam import Pam
from coldrank.train.hooks.posterior import Posterior
from coldrank.train.hooks.sml import SML
from coldrank.train.sections import DataConfig, DenseConfig, OptimConfig, TablesConfig, TrainConfig

NOTHING: tuple[()] = ()
OF_BOTH = {"eps": 1e-8, "betas": (0.9, 0.999), "weight_decay": 0.0, "warmup_steps": None, "decay": None}
OF_CONFIGS: list[tuple[type, dict[str, Any]]] = [
    (
        Table,
        {"mapping": "hash", "min_count": 1, "hashes": 2, "eviction": "lru", "init": 0.0, "blocks": 1}
        | {"admission": "exact", "counters": 1 << 22},
    ),
    (
        Feature,
        {"column": "", "columns": NOTHING, "table": "", "dim": 0, "init": 0.0, "edges": NOTHING, "buckets": 0}
        | {"transform": "none", "default": 0, "salted": False, "many": False, "sequence": "", "length": 0},
    ),
    (
        Ranker,
        {"heads": 4, "head_dim": 16, "positions": False, "experts": 4, "expert_hidden": (256, 128)}
        | {"tower_hidden": (64,), "dropout": 0.0, "pc": "feature", "gate_hidden": 32, "gate_scale": 2.0}
        | {"poso_mha": False, "poso_mmoe": False, "poso_mlp": False, "mha_folds": 4, "mha_fold": "v"},
    ),
    (WideDeep, {"tower_hidden": (64,), "dropout": 0.0}),
    (DeepFM, {"tower_hidden": (64,), "dropout": 0.0}),
    (DCN, {"tower_hidden": (64,), "dropout": 0.0, "crosses": 3}),
    (AFN, {"neurons": 32, "floor": 1e-4, "tower_hidden": (64,), "dropout": 0.0}),
    (GRU4Rec, {"state_dim": 32, "tower_hidden": (64,), "dropout": 0.0}),
    (DIN, {"unit_hidden": (36,), "softmax": False, "tower_hidden": (64,), "dropout": 0.0}),
    (PNN, {"products": "inner", "tower_hidden": (64,), "dropout": 0.0}),
    (TwoTower, {"widths": (16, 8), "temperature": 0.07, "same_user": True}),
    (CohortConfig, {"new_user_max_views": 10, "new_item_max_views": 50}),
    (RetrievalConfig, {"ks": (5, 10, 20), "batch": 1024, "users": 100, "cold": (5, 50), "most": 2000}),
    (
        DataConfig,
        {"fit": ("train", "valid"), "evaluate": "test", "batch_size": 1024, "eval_batch_size": 4096}
        | {"global_batch_size": 0, "shuffle_rows": 131_072, "order": "random", "prefetch": 4},
    ),
    (
        TablesConfig,
        OF_BOTH | {"kind": "rowwise_adagrad", "lr": 0.05, "lr_scale": {}, "clip_value": 0.0, "init": 0.01},
    ),
    (DenseConfig, OF_BOTH | {"lr": 1e-3, "gate_lr_scale": 1.0, "clip_norm": 0.0}),
    (OptimConfig, {"tables": TablesConfig(), "dense": DenseConfig(), "warmup_steps": 0, "decay": "constant"}),
    (
        TrainConfig,
        {"mode": "passes", "first_period": "", "look_back": (1, 7), "look_back_rows": 10_000, "follow_s": 0.0}
        | {"epochs": 1, "cold_passes": 0, "cold_trains": "all", "steps": 0, "log_every": 50, "checkpoint_every": 1000}
        | {"keep_checkpoints": 2, "threads": 0, "accumulate": 1, "precision": "float32", "pipeline": "auto"}
        | {"warm_start": "", "warm_rename": {}},
    ),
    (
        IncCTR,
        {"weight": 1.0, "temperature": 1.0},
    ),
    (SML, {"channels": (10, 5), "hidden": 20, "added": False, "after": 10, "lr_scale": 1.0}),
    (ASMG, {"length": 3, "hidden": 4, "after": 10, "lr_scale": 1.0}),
    (
        Mwuf,
        {"mode": "joint", "item": "item_id", "user": ("user_id",), "max_views": 50, "users": 20, "hidden": 16}
        | {"lr_scale": 1.0, "warm_every": 3, "common_init": True, "refresh": 100},
    ),
    (
        Posterior,
        {"item": "item_id", "user": "", "item_max_views": 50, "user_max_views": 10, "tasks": (), "prior": "features"}
        | {"strength": 1.0, "refresh": 100, "memory": 1000},
    ),
    (
        MetaCF,
        {"user": "user_id", "items": "hist_item_id", "signal": "", "negatives": 3, "max_views": 10, "learner": "neural"}
        | {"hidden": 32, "steps": 5, "rate": 0.1, "learn_rates": True, "first_order": False, "fraction": 1.0},
    ),
    (
        Pam,
        {"cuts": (5, 50, 200, 1000, 5000), "quantiles": 0, "cold": 1, "cold_weight": 2.0, "other_weight": 0.5}
        | {"steps": 2, "rate": 1e-3, "second_order": True, "support": 0.25, "support_of": "batch", "query": "rest"}
        | {"support_average": "group", "query_average": "batch", "candidates": "batch", "step_weights": NOTHING}
        | {"adapt": ("towers",), "across": "rank", "serve_decay": 0.0, "own": False, "gamma": (1.0, 0.0, 0.0)}
        | {"behaviour": ("item_id", "item_hist_user_id"), "store": "last", "dress": "all", "enhancer_trains": "all"}
        | {"adapt_on_test_labels": False},
    ),
    (Group, {"parent": None, "smoothing": 10.0}),
]


@pytest.mark.parametrize(("config", "wanted"), OF_CONFIGS, ids=lambda v: getattr(v, "__name__", ""))
def test_configs(config: type, wanted: dict[str, Any]) -> None:
    made = {f.name: f.default_factory() if f.default is MISSING else f.default for f in fields(config) if _optional(f)}
    assert {name: made[name] for name in wanted} == wanted


def _optional(field: Any) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


GATE = {"gate_hidden": 32, "scale": 2.0}
OF_CALLS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (modules.PersonalizedGate, {"hidden": 32, "scale": 2.0}),
    (modules.PosoLinear, GATE),
    (modules.MLP, {"dropout": 0.0}),
    (modules.PosoMLP, GATE | {"dropout": 0.0}),
    (modules.MMoE, {"dropout": 0.0}),
    (modules.PosoMMoE, GATE | {"dropout": 0.0}),
    (modules.Towers, {"dropout": 0.0}),
    (modules.PosoTowers, GATE | {"dropout": 0.0}),
    (modules.PosoMultiheadAttention, GATE | {"folds": 4, "fold": "v"}),
    (modules.Mwuf, {"hidden": 16}),
    (
        modules.MetaCF,
        {"learner": "neural", "hidden": 0, "steps": 5, "rate": 2e-3, "learn_rates": False, "first_order": True},
    ),
    (logistic_steps, {"first_order": True}),
    (fit_prior, {"ridge": 1.0}),
    (compare, {"resamples": 300, "seed": 0, "allowed": (), "notes": ()}),
]


@pytest.mark.parametrize(("call", "wanted"), OF_CALLS, ids=lambda v: getattr(v, "__name__", ""))
def test_calls(call: Callable[..., Any], wanted: dict[str, Any]) -> None:
    parameters = inspect.signature(call).parameters.values()
    assert {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}.items() >= wanted.items()
