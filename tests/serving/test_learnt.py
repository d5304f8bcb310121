"""The search of all tables' ids: whose an answer is."""

import torch

from coldrank.serving.learnt import first_answer, own_rows


def test_an_answer_of_another_table_is_no_row():
    """A key that one table does not know may be another's: of the table before, the next, or one further on."""
    tables = torch.tensor([0, 1, 1, 2, 3, 4])
    rows = torch.tensor([5, 0, 7, 5, 6, 7])
    answers = torch.cat([(tables << 40) + rows, torch.tensor([-1])])
    assert own_rows(answers, torch.tensor(first_answer(1))).tolist() == [0, 0, 7, 0, 0, 0, 0]
    assert own_rows(answers, torch.tensor(first_answer(0))).tolist() == [5, 0, 0, 0, 0, 0, 0]
