"""At how many views something counts as new: training, evaluation, cohorts and the served model agree below, at and
above it."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from served import CONFIGS, random_model, rows_of
from tiny import changed

from coldrank.configs import base as parts
from coldrank.data.batches import BatchMaker
from coldrank.data.cohorts import CohortConfig, cohort_masks
from coldrank.data.read import AtMost
from coldrank.metrics.retrieval import RetrievalConfig
from coldrank.models.encode import bucket_of
from coldrank.modules.pam import route
from coldrank.serving.export import parity
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.pam import Pam

# Below, at and above the defaults, in turn.
ITEM, USER = np.array([49, 50, 51]), np.array([9, 10, 11])
NEW = [True, True, False]


@pytest.mark.tried("hooks", "an item with as many views as cohorts.new_item_max_views", "is new, warmed, cold for PAM")
def test_defaults_part_the_new_from_the_others_at_the_same_views():
    masks = cohort_masks(USER, ITEM, CohortConfig())
    assert masks["new_item"].tolist() == masks["new_user"].tolist() == NEW
    assert (torch.from_numpy(ITEM) <= Mwuf().max_views).tolist() == NEW
    assert (torch.from_numpy(USER) <= MetaCF().max_views).tolist() == NEW
    cuts = torch.tensor(Pam().cuts)
    assert (route(torch.from_numpy(ITEM), cuts) <= Pam().cold).tolist() == NEW
    assert RetrievalConfig().cohorts(ITEM)["cold_item"].tolist() == NEW
    code = next(f for f in parts.is_new_user(parts.poso(CONFIGS["base"]())).features if f.role == "pc")
    assert bucket_of(torch.from_numpy(USER), torch.tensor(code.edges).double()).tolist() == [1, 1, 2]


def test_what_is_read_and_weighed_as_new_is_the_cohort(tmp_path, data):
    pq.write_table(pa.table({"user_views": USER}), tmp_path / "rows.parquet")
    with pq.ParquetFile(tmp_path / "rows.parquet") as file:
        assert AtMost("user_views", CohortConfig().new_user_max_views).rows(file, 0).tolist() == [0, 1]
    trained = random_model(CONFIGS["base"](), data)
    task, batch = trained.task, batch_of(trained, data, "user_views", USER)
    task.cold_weight = 3.0
    assert task._row_weights(batch).tolist() == [3.0, 3.0, 1.0]


def batch_of(trained, data, column, values):
    raw = {**rows_of(trained, data, 3), column: values}
    labels = {f"label_{t}": np.zeros(3, np.float32) for t in trained.config.tasks}
    keys = {k: np.arange(3) for k in ("user_id", "item_id", "time", "user_views", "item_views") if k not in raw}
    return BatchMaker(trained.encoder, trained.config.tasks)({**labels, **keys, **raw})


@pytest.mark.tried(
    "requests", "item_views or user_views at the hook's max_views", "the hook's embedding, as in training"
)
@pytest.mark.parametrize(
    ("arm", "column", "views"), [("base_mwuf", "item_views", ITEM), ("base_metacf", "user_views", USER)]
)
def test_the_served_model_parts_them_where_training_does(arm, column, views, data):
    config = CONFIGS[arm]()
    (hook,) = config.hook_names
    config = changed(config, hook, max_views={"mwuf": 50, "metacf": 10}[hook])
    trained = random_model(config, data)
    raw = {**rows_of(trained, data, 60), column: np.tile(views, 20)}
    twin = trained.twin(trained.columns())
    served = torch.stack(list(twin(parity.request_of(raw, [i.name for i in twin.inputs])).values()), 1)
    wanted = trained.scores(raw)
    torch.testing.assert_close(served, wanted, rtol=0, atol=1e-5)
    (hook,) = trained.task.hooks
    del trained.task.hooks[hook]
    moved = (trained.scores(raw) - wanted).abs().amax(1).view(20, 3).amax(0)
    assert (moved > 0.01).tolist() == NEW and moved[2] == 0
