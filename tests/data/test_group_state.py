"""The state of groups in sorted files against a dictionary: many small additions, keys that mix to the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coldrank.data.errors import UserError
from coldrank.data.state import groups, run
from coldrank.data.state.groups import GroupLayout, GroupState, GroupValues, Tail

LAYOUT = GroupLayout(name="user_x_tag", keys=("user", "tag"), signals=("click",), tails={"hist_": {"item_id": "int64"}})


def values(numbers: np.ndarray) -> GroupValues:
    """Of a group whose number is n: n views, and a tail of n % 4 items."""
    lengths = numbers % 4
    return GroupValues(
        views=numbers,
        positives={"click": numbers * 2},
        known={"click": numbers * 3},
        first=np.zeros_like(numbers),
        last=np.zeros_like(numbers),
        tails={"hist_": Tail(lengths, {"item_id": np.repeat(numbers, lengths)})},
    )


@pytest.mark.parametrize("mixes", ["apart", "to few"])
@pytest.mark.parametrize("on_disk", [True, False])
def test_the_newest_values_are_found(
    mixes: str, on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BATCH", 16)
    if mixes == "to few":
        monkeypatch.setattr(groups, "sort_key", lambda keys: keys[0] % 50)
    rng = np.random.default_rng(0)
    state, wanted = GroupState(LAYOUT, folder=tmp_path if on_disk else None), {}
    for number in range(60):
        keys = np.unique(rng.integers(0, 20, (int(rng.integers(1, 9)), 2)), axis=0)
        numbers = rng.integers(1, 1000, len(keys))
        state.put(list(keys.T), values(numbers))
        wanted |= dict(zip(map(tuple, keys.tolist()), numbers.tolist(), strict=True))
        if number % 20 == 19 and on_disk:  # as the next call of `prepare` opens it
            state = GroupState(LAYOUT, [r.path for r in state.runs if r.path is not None], tmp_path / str(number))
    asked = np.array([(a, b) for a in range(22) for b in range(22)])[rng.permutation(22**2)]
    numbers = np.array([wanted.get(key, 0) for key in map(tuple, asked.tolist())])
    found, expected = state.find(list(asked.T)), values(numbers)
    tail, wanted_tail = found.tails["hist_"], expected.tails["hist_"]
    assert np.array_equal(found.views, expected.views) and np.array_equal(tail.lengths, wanted_tail.lengths)
    assert np.array_equal(found.positives["click"], numbers * 2) and np.array_equal(found.known["click"], numbers * 3)
    assert np.array_equal(tail.values["item_id"], wanted_tail.values["item_id"])
    for each in state.runs:
        rows = [b.num_rows for b in each.batches]
        assert len(rows) <= 1 + sum(rows) // 8, "batches stay large however often they are merged"


@pytest.mark.tried("logs", "a group of 2^31 events", "refused: its counters do not hold them")
def test_more_events_than_counters_hold_are_refused() -> None:
    state = GroupState(LAYOUT, folder=None)
    keys = [np.zeros(1, np.int64), np.zeros(1, np.int64)]
    some = values(np.array([4]))
    state.put(keys, replace(some, views=np.array([2**31 - 1])))
    with pytest.raises(UserError, match="group 'user_x_tag': one has 2,147,483,648 events; should be fewer than 2"):
        state.put(keys, replace(some, views=np.array([2**31])))
