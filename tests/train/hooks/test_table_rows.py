"""Rows of a table that lies in pieces: rows and columns of each are its own."""

import torch
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig

from coldrank.train.hooks.rows import TableRows


def pieces() -> tuple[torch.Tensor, TableRows]:
    """A table of five rows and four columns, and its pieces: two of columns, each of two of rows."""
    whole = torch.arange(20.0).view(5, 4)
    bags = EmbeddingBagCollection(
        tables=[EmbeddingBagConfig(name="item", num_embeddings=5, embedding_dim=4, feature_names=["item"])]
    )
    rows = TableRows(nn.ModuleDict({"ebc": bags}), "item")
    rows.parts = [(whole[a:b, c:d], [a, c]) for a, b in ((0, 3), (3, 5)) for c, d in ((0, 1), (1, 4))]
    return whole, rows


def test_the_mean_of_rows_in_pieces():
    whole, rows = pieces()
    chosen = torch.tensor([True, False, True, False, True])
    assert torch.equal(rows.mean(chosen), whole[chosen].mean(0))


def test_each_row_gets_its_own_value_in_all_pieces():
    whole, rows = pieces()
    before = whole.clone()
    rows.write(torch.tensor([4, 1]), torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]))
    assert whole[[1, 4]].tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]
    assert torch.equal(whole[[0, 2, 3]], before[[0, 2, 3]])


def test_a_value_is_written_into_all_pieces():
    whole, rows = pieces()
    before = whole.clone()
    rows.write(torch.tensor([4, 1]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert whole[[1, 4]].tolist() == [[1, 2, 3, 4]] * 2
    assert torch.equal(whole[[0, 2, 3]], before[[0, 2, 3]])
