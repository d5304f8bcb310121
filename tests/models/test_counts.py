"""How often ids that wait were seen: exactly, and by a sketch that never says less."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coldrank.models.ids.admission import Counts, Sketch
from coldrank.models.ids.mixing import Share, block_of, mix64

LARGEST = torch.iinfo(torch.int64).max
IDS = st.lists(st.sampled_from([*range(-6, 6), LARGEST, -LARGEST - 1]), max_size=9)


def summed(ids: list[int]) -> tuple[Tensor, Tensor]:
    """Distinct ids, ascending, and how often each is there; of odd ones none counts."""
    distinct, events = torch.unique(torch.tensor(ids, dtype=torch.int64), return_counts=True)
    return distinct, torch.where(distinct % 2 == 0, events, 0)


@settings(deadline=None)
@given(st.lists(st.tuples(IDS, IDS, st.booleans()), max_size=9))
def test_counts_are_those_of_a_dictionary(steps):
    """Ids are added, some let go of, and what is left is merged and comes back from the state."""
    counts, truth = Counts(), Counter()
    for added, let_go, is_saved in steps:
        ids, events = summed(added)
        truth.update(dict(zip(ids.tolist(), events.tolist(), strict=True)))
        assert counts.add(ids, events).tolist() == [truth[x] for x in ids.tolist()]
        gone = torch.tensor(sorted(set(let_go)), dtype=torch.int64)
        counts.forget(gone)
        for x in gone.tolist():
            del truth[x]
        if is_saved:
            state, counts = counts.state_dict(), Counts()
            counts.load_state_dict(state)
            assert state["known"].shape == (2, 1 + sum(n > 0 for n in truth.values())), "what is let go takes no memory"
        ids = torch.tensor([*range(-6, 6), LARGEST, -LARGEST - 1])
        assert counts(ids).tolist() == [truth[x] for x in ids.tolist()]
    counts.clear()
    assert not counts(ids).any() if steps else True


def drawn(steps: int, size: int) -> list[Tensor]:
    """Batches of ids, few of which are frequent."""
    generator = torch.Generator().manual_seed(3)
    return [mix64((torch.rand(size, generator=generator) ** 4 * 20_000).long()) for _ in range(steps)]


@pytest.mark.parametrize(("counters", "least", "most"), [(16_384, 0.2, 0.9), (131_072, 0.0, 0.01)])
def test_a_sketch_never_says_less_and_with_room_hardly_ever_more(counters, least, most):
    """About 8 ids in a block, on 4 or 32 counters in each of four rows."""
    sketch, truth, answers, above = Sketch(counters), Counter(), 0, 0
    for batch in drawn(40, 500):
        ids, events = torch.unique(batch, return_counts=True)
        truth.update(dict(zip(ids.tolist(), events.tolist(), strict=True)))
        wanted = torch.tensor([truth[x] for x in ids.tolist()])
        counted = sketch.add(ids, events)
        assert (counted >= wanted.clamp(max=255)).all()
        answers, above = answers + len(ids), above + int((counted > wanted).sum())
    assert 8_000 < len(truth) < 9_000 and max(truth.values()) > 255
    assert least <= above / answers <= most, above / answers


def test_a_sketch_counts_no_event_of_ids_without_any():
    sketch, ids = Sketch(4096), torch.arange(50)
    assert not sketch.add(ids, torch.zeros(50, dtype=torch.int64)).any() and not sketch.counters.any()
    sketch.add(ids, torch.full((50,), 300))
    assert sketch.counters.max() == 255
    sketch.clear()
    assert not sketch.counters.any()


@pytest.mark.parametrize("blocks", [1, 5, 1024])
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_sketch_that_is_shared_out_is_the_whole_one(ranks, blocks):
    shares = [Share(rank, ranks) for rank in range(ranks)]
    whole, parts = Sketch(16_384, blocks), [Sketch(16_384, blocks, share) for share in shares]
    for batch in drawn(6, 400):
        ids, events = torch.unique(batch, return_counts=True)
        owners = shares[0].owners(ids, blocks)
        wanted = whole.add(ids, events)
        for rank, part in enumerate(parts):
            mine = owners == rank
            assert torch.equal(part.add(ids[mine], events[mine]), wanted[mine])
    assert torch.equal(torch.cat([part.counters for part in parts], 1), whole.counters) and whole.counters.any()


def test_blocks_and_ranks_share_out_ids_evenly():
    ids = torch.arange(-50_000, 50_000)
    for blocks in (1, 3, 64, 1024):
        numbers = block_of(ids, blocks)
        assert numbers.min() == 0 and numbers.max() == blocks - 1
        counts = torch.bincount(numbers)
        assert counts.min() > 0.5 * len(ids) / blocks and counts.max() < 1.6 * len(ids) / blocks
        for ranks in (1, 2, 5, 7):
            shares = [Share(rank, ranks) for rank in range(ranks)]
            assert [b for share in shares for b in share.blocks(blocks)] == list(range(blocks))
            for share in shares:
                mine = share.blocks(blocks)
                held = (numbers >= mine.start) & (numbers < mine.stop)
                assert torch.equal(held, share.owners(ids, blocks) == share.rank)
