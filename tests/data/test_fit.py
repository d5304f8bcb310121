"""What the encoder learns from the training data."""

import torch
from samples import write_samples

from coldrank.data.batches import DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import Feature, FeatureSet, Table


def test_an_id_that_is_also_the_personalization_code_counts_once(tmp_path):
    data = DataFolder.open(write_samples(tmp_path, {"train": 60, "test": 10}))
    user = Feature(name="user_id", role="user", kind="id", table="user")
    code = Feature(name="pc_user_id", column="user_id", role="pc", kind="id", table="user")
    table = Table(name="user", rows=64, dim=4, mapping="vocabulary", min_count=2)
    fitted = []
    for features in ([user], [user, code]):
        encoder = FeatureEncoder(FeatureSet(features, [table]))
        fit_encoder(encoder, data.files(("train",)))
        fitted.append(encoder.maps["user"].ids)
    assert torch.equal(*fitted)
    assert 1 < len(fitted[0].unique()) - 1 < 40, "some of the 40 users are seen only once, and stay out"
