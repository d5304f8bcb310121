"""The arms of POSO's tables: what reaches their gates, worked out by hand from the raw columns, and that they learn
from it.

B batch.
"""

from dataclasses import replace
from functools import cache

import pytest
import torch
from tiny import tiny
from torch import Tensor
from torchrec import KeyedJaggedTensor

from coldrank.configs import kuairand, kuairand_tables, movielens, movielens_tables
from coldrank.configs.base import octave_edges
from coldrank.models.batch import Batch
from coldrank.models.embeddings import Inputs
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import FeatureSet
from coldrank.modules import PersonalizedGate
from coldrank.train.checks import validate
from coldrank.train.load import arms
from coldrank.train.task import RankingTask

MODULES = {"kuairand": kuairand_tables, "movielens": movielens_tables}
ARMS = {f"{source}:{n}": arm for source, module in MODULES.items() for n, arm in arms(module).items()}
VIEWS = torch.tensor([0, 1, 7, 10, 11, 900])
B = len(VIEWS)
USERS, ITEMS = torch.arange(100, 100 + B), torch.arange(200, 200 + B)
HALF_OCTAVES = [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 2896]
OCTAVES = [0, *(2**k for k in range(13))]


def buckets(values: Tensor, starts: list[int]) -> list[int]:
    """Row of each value: 1 + the last bucket that starts at or below it."""
    return [max(i for i, start in enumerate(starts) if start <= value) + 1 for value in values.tolist()]


# Arm without its module's prefix -> the tables that the gates see side by side, and each row's row of them.
AVC = {"pc": buckets(VIEWS, HALF_OCTAVES)}
KNOWN = [0, *range(1, B)]  # the first id is not in the vocabulary
AGE = {"pc": buckets(30.5 * VIEWS, [0, *octave_edges(4, octaves=15)])}
CODES = {
    "is_new_user": {"pc": [1, 1, 1, 1, 2, 2]},
    "avc_fine": {"pc": [1, 2, 8, 10, 11, buckets(VIEWS[-1:], [0, *octave_edges(4)])[0]]},
    "avc_coarse": {"pc": buckets(VIEWS, OCTAVES)},
    "user_id": {"pc_user_id": KNOWN},
    "user_and_item_id": {"pc_user_id": KNOWN, "pc_item_id": KNOWN},
    "video_age": AGE,
    "item_views": {"pc": buckets(2 * VIEWS, HALF_OCTAVES)},
}
FOLDS = {"qkv": (4, 4, 1), "kv": (1, 4, 1), "none": (1, 1, 1)}


def raw_columns(features: FeatureSet) -> dict[str, Tensor]:
    """Random values as the columns demand, lists of two; ids, views and ages as above."""
    raw: dict[str, Tensor] = {}
    for column in features.inputs:
        count = 2 * B if column.is_list else B
        low, high = column.low or 0, 9 if column.high is None else column.high
        raw[column.name] = torch.rand(count) if column.dtype == "float" else torch.randint(low, high + 1, (count,))
        if column.is_list:
            raw[f"{column.name}.lengths"] = torch.full((B,), 2)
    chosen = {"user_id": USERS, "item_id": ITEMS, "user_views": VIEWS, "item_views": 2 * VIEWS}
    return raw | chosen | {"item_age_h": 30.5 * VIEWS}


def batch_of(encoder: FeatureEncoder, tasks: int) -> Batch:
    values, lengths, dense, sequence_lengths = encoder(raw_columns(encoder.features))
    sparse = KeyedJaggedTensor(keys=encoder.keys, values=values, lengths=lengths)
    labels = torch.randint(0, 2, (B, tasks)).float()
    return Batch(sparse, dense, sequence_lengths, labels, {"user_views": VIEWS})


def run(name: str) -> tuple[RankingTask, list[Tensor], Tensor]:
    """The shrunken arm after one backward pass, what its gates were given, and the inputs outside the sequences."""
    torch.manual_seed(0)
    config = tiny(ARMS[name]())
    tables = tuple(replace(t, rows=min(t.rows, 64)) for t in config.tables)
    # Wide enough that no layer's units are all at rest.
    model = replace(config.model, expert_hidden=(16, 8), tower_hidden=(8,), gate_hidden=16, dropout=0.0)
    config = replace(config, tables=tables, model=model)
    encoder = FeatureEncoder(validate(config))
    for table, ids in (("user", USERS), ("item", ITEMS), ("pc_user_id", USERS), ("pc_item_id", ITEMS)):
        if table in encoder.maps:
            encoder.maps[table].set(ids[1:])
    task = RankingTask(encoder.features, config.model, config.tasks)
    given: list[Tensor] = []
    for module in task.modules():
        if isinstance(module, PersonalizedGate):
            # A fresh gate's last layer is zero and lets no gradient through.
            torch.nn.init.normal_(module.output.weight)
            module.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    batch = batch_of(encoder, len(config.tasks))
    embedded = task.embeddings(batch)
    task.dense(batch, embedded).loss.backward()
    return task, given, Inputs(encoder.features).static(embedded, batch.dense)


@cache
def after(name: str) -> tuple[RankingTask, list[Tensor], Tensor]:
    return run(name)


@pytest.mark.parametrize("name", [n for n in ARMS if ":base" not in n])
def test_the_gates_are_given_the_code(name):
    task, given, static = after(name)
    assert given, "no gate"
    suffix = name.split(":")[1].removeprefix("poso_").removeprefix("mlp_").removeprefix("mha_").removeprefix("mmoe_")
    if suffix == "all_features":
        expected = static
    else:
        weights = {n: bag.weight for n, bag in task.embeddings.ebc.embedding_bags.items()}
        expected = torch.cat([weights[table][rows] for table, rows in CODES.get(suffix, AVC).items()], 1)
    for code in given:
        torch.testing.assert_close(code, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ARMS)
def test_every_gate_and_the_table_behind_the_code_learn(name):
    task, _, _ = after(name)
    gates = [m for m in task.modules() if isinstance(m, PersonalizedGate)]
    assert bool(gates) == (":base" not in name)
    assert all(p.grad is not None and p.grad.any() for gate in gates for p in gate.parameters())
    bags = task.embeddings.ebc.embedding_bags
    assert ("pc" in bags) == (bool(gates) and not name.endswith(("all_features", "_id")))
    assert all(bag.weight.grad.any() for bag in bags.values())


@pytest.mark.parametrize("source", MODULES)
@pytest.mark.parametrize("fold", FOLDS)
def test_the_rows_of_table_7_differ_in_their_folds(source, fold):
    task, _, _ = after(f"{source}:poso_mha_{fold}")
    attention = task.ranker.attention["history"]
    assert (attention.query_folds, attention.key_folds, attention.value_folds) == FOLDS[fold]
    assert attention.gate_width == (attention.head_dim if fold == "none" else 1)
    assert (attention.key_gate is not None) == (fold == "none")


def test_a_code_of_ids_begins_with_the_spread_of_the_avc_s():
    """In tables of its own, as many rows as the ids' have."""
    given = after("kuairand:poso_user_and_item_id")[1]
    assert given[0].shape == (B, 16 + 16)
    avc = kuairand.poso()
    config = kuairand_tables.poso_user_and_item_id()
    tables = {t.name: t for t in config.tables}
    assert tables.keys() - {t.name for t in avc.tables} == {"pc_user_id", "pc_item_id"}
    (code,) = (f for f in avc.features if f.role == "pc")
    for column in ("user", "item"):
        assert tables[f"pc_{column}_id"] == replace(tables[column], name=f"pc_{column}_id", init=code.init)


def test_rows_of_table_2_are_the_arms_of_the_data_set():
    for tables, arms_of in ((kuairand_tables, kuairand), (movielens_tables, movielens)):
        for name in ("base", "poso_mlp", "poso_mha", "poso_mmoe", "poso"):
            assert arms(tables)[name]() == arms(arms_of)[name]()


def test_octave_edges():
    assert octave_edges(1, octaves=3) == (1, 2, 4, 8)
    assert octave_edges(4, octaves=4) == (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 16)
    assert octave_edges(2) == (*HALF_OCTAVES[1:], 4096)
