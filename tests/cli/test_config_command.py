"""`coldrank config`: every field with its value, its default and its meaning."""

import json
from dataclasses import fields, is_dataclass

import pytest

from coldrank.cli.main import main
from coldrank.models.component import find
from coldrank.models.features import Feature, Table
from coldrank.models.heads.head import Head
from coldrank.models.model import Model
from coldrank.train.config import RunConfig
from coldrank.train.describe import described, meanings
from coldrank.train.hooks.hook import Hook
from coldrank.train.load import load
from coldrank.train.sections import DenseConfig, TablesConfig

ARM = "coldrank.configs.kuairand:poso"
SECTIONS = [type(getattr(load(ARM), f.name)) for f in fields(RunConfig) if is_dataclass(getattr(load(ARM), f.name))]
KINDS = ("ranker", "two_tower", "wide_deep", "deepfm", "dcn", "pnn", "afn", "gru4rec", "din")
MODELS = [find(Model, kind) for kind in KINDS]
PARTS = [find(Hook, kind) for kind in ("mwuf", "metacf", "pam", "posterior")] + [find(Head, "binary")]


@pytest.mark.parametrize(
    "cls",
    [RunConfig, Feature, Table, *SECTIONS, TablesConfig, DenseConfig, *MODELS, *PARTS],
    ids=lambda cls: cls.__name__,
)
def test_every_field_has_a_meaning(cls):
    assert fields(cls) and all(text.endswith(".") for text in meanings(cls).values()), meanings(cls)


def test_every_field_is_there_under_its_path():
    config = load(ARM, ["hooks=[mwuf]", "mwuf.max_views=30", "optim.decay=cosine"])
    entries = {entry.path: entry for entry in described(config)}
    assert (entries["mwuf.max_views"].value, entries["mwuf.max_views"].default) == (30, 50)
    assert entries["optim.decay"].value == "cosine" and entries["optim.decay"].changed
    assert not entries["mwuf.hidden"].changed and entries["tasks.like.weight"].value == 1.0
    flat = {f"{name}.{f.name}" for name in ("data", "train", "model") for f in fields(getattr(config, name))}
    flat |= {f"optim.dense.{f.name}" for f in fields(config.optim.dense)} | {"optim.tables.kind", "optim.warmup_steps"}
    assert flat <= entries.keys() and {"features.user_id", "tables.item", "hooks", "seed"} <= entries.keys()


def test_the_command(capsys):
    assert main(["config", ARM, "--set", "seed=3", "--changed"]) == 0
    text = capsys.readouterr().out
    assert "* seed = 3  (default 1)" in text and "data.prefetch" not in text
    assert "Personalizes the towers (POSO, Eq. 11)." in text
    assert text.endswith(
        "seed: 1 -> 3\nmodel.poso_mha: False -> True\nmodel.poso_mmoe: False -> True\nmodel.poso_mlp: False -> True\n"
    )
    assert main(["config", ARM, "--json"]) == 0
    entries = {entry["path"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries["data.batch_size"] == {
        "path": "data.batch_size",
        "value": 512,
        "default": 1024,
        "meaning": "Samples per step and rank.",
    }
    assert main(["config", ARM, "--set", "data.batch=3"]) == 2
    assert "no field 'data.batch'; did you mean 'batch_size'?" in capsys.readouterr().err
