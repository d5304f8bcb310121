"""A served model goes on to a later state in place, or refuses a delta and stays as it was."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from served import CONFIGS, random_model, request_of, rows_of
from torch import Tensor

from coldrank.data.batches import DataFolder
from coldrank.serving.export.write import load_script, save_script
from coldrank.serving.tables import Precision
from coldrank.serving.twin import Twin
from coldrank.serving.update import State, apply, check, delta, digest, version_of


def twins(
    data: DataFolder, name: str = "growing", precision: Precision = "float32"
) -> tuple[Twin, Twin, dict[str, Tensor]]:
    """A model, the same after some training on a few rows and the dense part, and a request."""
    trained = random_model(CONFIGS[name](), data)
    chosen = trained.columns()
    request = request_of(trained, rows_of(trained, data), 3, [5, 0, 17])
    before = trained.twin(chosen, precision)
    with torch.no_grad():
        bags = trained.task.embeddings.ebc.embedding_bags
        bags["user"].weight[7:9] += 1
        bags["item"].weight[:40:3] -= 1
        for parameter in trained.task.ranker.parameters():
            parameter += 0.1
    trained.encoder.maps["user"].add(torch.tensor([1000, 1001]))
    return before, trained.twin(chosen, precision), request


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_an_updated_model_is_the_later_one(precision: Precision, data: DataFolder, tmp_path: Path):
    before, after, request = twins(data, precision=precision)
    save_script(before, tmp_path / "model.pt")
    served = load_script(tmp_path / "model.pt")
    changes = delta(before.state, before.version, after.state, after.version)
    assert served(request)["like"].tolist() == before(request)["like"].tolist()
    torch.save(changes, tmp_path / "delta.pt")
    served.update(torch.load(tmp_path / "delta.pt"))
    assert served(request)["like"].tolist() == after(request)["like"].tolist() != before(request)["like"].tolist()
    assert int(served.version) == int(after.version) == int(digest(served.state, ""))
    part = "steps" if precision == "int8" else "weight"
    # 16 rows, of which 14 are two pieces wide.
    assert len(changes[f"rows:core.stage.stores.0.rows.{part}"]) == (16 if precision == "int8" else 30)
    served.save(str(tmp_path / "later.pt"))
    assert load_script(tmp_path / "later.pt")(request)["like"].tolist() == after(request)["like"].tolist()


def test_equal_states_have_an_empty_delta(data: DataFolder):
    before, _, _ = twins(data)
    changes = delta(before.state, before.version, before.state, before.version)
    assert set(changes) == {"from", "to", "sum"} and int(changes["from"]) == int(changes["to"])


def flip(changes: State) -> State:
    """One bit of one value differs."""
    name = next(n for n in changes if n.startswith("values:"))
    values = changes[name].clone()
    values.view(-1).view(torch.uint8)[0] ^= 1
    return changes | {name: values}


def signed(changes: State) -> State:
    """A delta that was written whole, whatever it holds."""
    return changes | {"sum": digest(changes, "sum")}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda d: {n: t for n, t in d.items() if n != next(m for m in d if m.startswith("rows:"))}, "contents differ"),
        (lambda d: {n: t for n, t in d.items() if n != "to"}, "'to' is missing"),
        (lambda d: {n: t for n, t in d.items() if n != "from"}, "'from' is missing"),
        (lambda d: {n: t for n, t in d.items() if n != "sum"}, "'sum' is missing"),
        (lambda d: d | {"sum": d["sum"].int()}, "'sum' is missing"),
        (lambda d: d | {"sum": d["sum"].view(1)}, "'sum' is missing"),
        (flip, "contents differ"),
        (lambda d: signed(d | {"from": torch.tensor(5)}), "is for the model of version 5"),
        (
            lambda d: signed(d | {"rows:x": torch.tensor([0]), "values:x": torch.tensor([0])}),
            "'x' is not of this model",
        ),
        (lambda d: signed({n: t + 10**6 if n.startswith("rows:") else t for n, t in d.items()}), "this model's has"),
        (
            lambda d: signed({n: t.double() if n.startswith("values:") else t for n, t in d.items()}),
            "another shape or type",
        ),
    ],
)
def test_a_delta_that_does_not_fit_is_refused_and_changes_nothing(
    data: DataFolder, harm: Callable[[State], State], message: str
):
    before, after, _ = twins(data)
    state = {name: value.clone() for name, value in before.state.items()}
    with pytest.raises(ValueError, match=message):
        before.update(harm(delta(before.state, before.version, after.state, after.version)))
    assert all(torch.equal(state[name], value) for name, value in before.state.items())


def test_a_delta_is_applied_once(data: DataFolder):
    before, after, _ = twins(data)
    changes = delta(before.state, before.version, after.state, after.version)
    before.update(changes)
    with pytest.raises(ValueError, match="is for the model of version"):
        before.update(changes)


def test_half_a_file_is_refused(data: DataFolder):
    before, after, _ = twins(data)
    file = io.BytesIO()
    torch.save(delta(before.state, before.version, after.state, after.version), file)
    whole = file.getvalue()
    for size in (len(whole) // 2, len(whole) - 1):
        with pytest.raises((RuntimeError, ValueError)):
            torch.load(io.BytesIO(whole[:size]))


def test_a_digest_tells_the_place_of_every_element():
    tensors = {"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([[4, 5], [6, 7]])}
    others = {
        "two elements exchanged": tensors | {"a": torch.tensor([2.0, 1.0, 3.0])},
        "two rows exchanged": tensors | {"b": torch.tensor([[6, 7], [4, 5]])},
        "two tensors exchanged": {"a": tensors["b"], "b": tensors["a"]},
        "an element of 0 more": tensors | {"a": torch.tensor([1.0, 2.0, 3.0, 0.0])},
        "an element in the other tensor": {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3, 4, 5, 6, 7])},
    }
    digests = {what: int(digest(state, "")) for what, state in {"as it is": tensors, **others}.items()}
    assert len(set(digests.values())) == len(digests), digests
    assert int(digest({"b": tensors["b"], "a": tensors["a"]}, "")) == digests["as it is"], "in whatever order they come"


def int8(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int8)


@pytest.mark.tried("exports", "a state with two elements, or two tensors, exchanged", "another version")
def test_a_digest_tells_values_and_places_apart():
    told = lambda **tensors: int(digest(tensors, ""))
    assert told(a=int8(1, 2)) != told(a=int8(2, 1))
    assert told(a=int8(0, 1)) != told(a=int8(1, 0))
    assert told(a=int8(1), b=int8(2)) != told(a=int8(2), b=int8(1))
    assert told(a=int8(1, 2), b=int8(3)) != told(a=int8(1), b=int8(2, 3))
    assert told(a=int8(1)) != told(a=int8(1, 0)) and told(a=int8(1)) == told(b=int8(1))
    assert told(a=torch.tensor([0.1])) != told(a=torch.nextafter(torch.tensor([0.1]), torch.tensor(1.0)))
    large = torch.zeros((1 << 22) + 1, dtype=torch.int8)  # one more than are taken at a time
    first, last = large.clone(), large.clone()
    first[0], last[-1] = 1, 1
    assert told(a=first) != told(a=last)
    assert told(a=first, sum=int8(5)) != told(a=first) == int(digest({"a": first, "sum": int8(5)}, "sum"))


@pytest.mark.tried("exports", "a delta to -0.0, or from NaN to NaN", "bits that differ are carried, others are not")
def test_a_delta_goes_by_bits():
    version = torch.tensor(1)
    for kind in (torch.float32, torch.float16, torch.float64):
        before = {"x": torch.tensor([[0.0, 1.0], [float("nan"), 2.0], [3.0, 4.0]], dtype=kind)}
        after = {"x": before["x"].clone()}
        after["x"][0, 0] = -0.0
        changes = delta(before, version, after, version)
        assert changes["rows:x"].tolist() == [0] and changes["values:x"].tolist() == [[0.0, 1.0]]
        assert torch.signbit(changes["values:x"][0, 0])


@pytest.mark.tried("exports", "another structure of the same state", "another version")
def test_a_version_covers_the_structure_and_the_state():
    state, rest = {"x": torch.tensor([1.0])}, "0123456789abcdef" * 4
    versions = {
        int(version_of(state, rest)),
        int(version_of(state, rest[:-1] + "e")),
        int(version_of(state, "1" + rest[1:])),
        int(version_of({"x": torch.tensor([2.0])}, rest)),
    }
    assert len(versions) == 4


def test_a_number_is_one_row():
    """Tensors of no dimension, one and two, each with a change; what is left out of the delta stays."""
    before = {"seen": torch.tensor(3), "bias": torch.tensor([0.5, 1.5]), "table": torch.zeros(3, 2)}
    after = {
        "seen": torch.tensor(7),
        "bias": torch.tensor([0.5, 2.5]),
        "table": torch.tensor([[0, 0], [0, 9.0], [0, 0]]),
    }
    changes = delta(before, torch.tensor(1), after, torch.tensor(2))
    assert changes["rows:seen"].tolist() == [0] and changes["values:seen"].tolist() == [7]
    assert changes["rows:bias"].tolist() == [1] and changes["values:bias"].tolist() == [2.5]
    assert changes["rows:table"].tolist() == [1] and changes["values:table"].tolist() == [[0, 9]]
    check(before, torch.tensor(1), changes)
    apply(before, changes)
    assert all(torch.equal(before[name], value) for name, value in after.items())
