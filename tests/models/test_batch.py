"""Moving a batch: every field of it comes along."""

from dataclasses import fields

import pytest
import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from coldrank.models.batch import Batch
from coldrank.models.unpooled import Unpooled

NAMES = [f.name for f in fields(Batch) if f.init]
# Of the device's computation; the others are dictionaries and numbers of the loop.
ON_DEVICE = {"sparse", "dense", "sequence_lengths", "labels", "weights", "floats"}


@pytest.fixture
def batch() -> Batch:
    sparse = KeyedJaggedTensor(keys=["item_id"], values=torch.tensor([4, 0]), lengths=torch.tensor([1, 1]))
    lengths, labels = torch.tensor([[2, 3]]), torch.tensor([[1.0], [0.0]])
    unknown = {"item": (torch.tensor([1]), torch.tensor([77]))}
    dense, keys, weights = torch.tensor([[0.5], [0.25]]), {"user_id": torch.tensor([8, 9])}, torch.tensor([2.0, 0.5])
    unpooled = Unpooled((), {"2": {"item": (0,)}})
    return Batch(sparse, dense, lengths, labels, keys, unknown, (2, 1), weights, unpooled, torch.rand(2, 5))


def tensors(part: object) -> list[Tensor]:
    if isinstance(part, KeyedJaggedTensor):
        return [part.values(), part.lengths()]
    return [part] if isinstance(part, Tensor) else []


@pytest.mark.tried(
    "ranks", "a batch with ids that have no row yet, moved to a device", "keeps them, and every other field"
)
@pytest.mark.parametrize("name", NAMES)
def test_a_moved_batch_keeps_every_field(batch, name):
    moved = getattr(batch.to(torch.device("meta")), name)
    if name in ON_DEVICE:
        assert tensors(moved) and all(t.is_meta for t in tensors(moved))
        assert [t.shape for t in tensors(moved)] == [t.shape for t in tensors(getattr(batch, name))]
    else:
        assert moved is getattr(batch, name) and moved


@pytest.mark.parametrize("name", NAMES)
def test_a_pinned_batch_keeps_every_field(batch, name, monkeypatch):
    pinned: list[int] = []

    def pin(tensor: Tensor) -> Tensor:
        copy = tensor.clone()
        pinned.append(copy.data_ptr())
        return copy

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    there = getattr(batch.pin_memory(), name)
    if name in ON_DEVICE:
        assert tensors(there) and all(t.data_ptr() in pinned for t in tensors(there))
        for ours, theirs in zip(tensors(there), tensors(getattr(batch, name)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    else:
        assert there is getattr(batch, name)


def test_a_stream_is_recorded_for_all_that_a_device_reads(batch, monkeypatch):
    recorded: list[int] = []
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: recorded.append(tensor.data_ptr()))
    batch.record_stream("a stream")
    wanted = {t.data_ptr() for name in ON_DEVICE for t in tensors(getattr(batch, name))}
    assert wanted <= set(recorded)
    looked_up = batch.unpooled_lookup
    batch.record_stream("a stream")
    assert {t.data_ptr() for t in (*tensors(looked_up.rows["2"]), *looked_up.bags["item"])} <= set(recorded)


def test_a_moved_batch_finds_its_lookup_there(batch):
    assert batch.unpooled_lookup is batch.unpooled_lookup
    moved = batch.to(torch.device("cpu"))
    assert moved.unpooled_lookup is not batch.unpooled_lookup
    assert moved.unpooled_lookup.rows["2"].values().tolist() == [0, 4]
