"""What a served model answers to requests that are not as they should be: the same in every form it is loaded in."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from served import CONFIGS, random_model, request_of, rows_of
from torch import Tensor

from coldrank.data.batches import DataFolder
from coldrank.serving.export.write import load_script, save_script
from coldrank.serving.twin import Twin

Request = dict[str, Tensor]


@pytest.fixture(scope="module")
def model(data: DataFolder) -> Twin:
    trained = random_model(CONFIGS["poso"](), data)
    return trained.twin(trained.columns())


@pytest.fixture(scope="module")
def script(model: Twin, tmp_path_factory: pytest.TempPathFactory) -> torch.jit.ScriptModule:
    """The model as it is loaded."""
    path = tmp_path_factory.mktemp("script") / "model.pt"
    save_script(model, path)
    return load_script(path)


@pytest.fixture(scope="module")
def request_(data: DataFolder) -> Request:
    """A user with a history and four candidates."""
    trained = random_model(CONFIGS["poso"](), data)
    raw = rows_of(trained, data)
    user = int(np.argmax(np.diff(raw["hist_like"][1])))
    return request_of(trained, raw, user, [1, 2, 3, 50])


def without(name: str) -> Callable[[Request], Request]:
    return lambda r: {n: t for n, t in r.items() if n != name}


def with_(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Request], Request]:
    return lambda r: r | {name: change(r[name])}


REFUSED = {
    "missing": (without("item_id"), "input 'item_id' is missing"),
    "missing list": (without("hist_like"), "input 'hist_like' is missing"),
    "missing lengths": (without("item_tags.lengths"), "input 'item_tags.lengths' is missing"),
    "float ids": (
        with_("user_id", lambda t: t.float()),
        "input 'user_id' has values of another type; must be integers",
    ),
    "bool ids": (with_("item_id", lambda t: t > 0), "input 'item_id' has values of another type; must be integers"),
    "complex number": (
        with_("user_gap_h", lambda t: t + 0j),
        "input 'user_gap_h' has values of another type; must be real",
    ),
    "float lengths": (
        with_("hist_like.lengths", lambda t: t.float()),
        "'hist_like.lengths' has values of another type",
    ),
    "matrix": (with_("item_id", lambda t: t[:, None]), r"input 'item_id' has shape \[4, 1\]; must have one dimension"),
    "number alone": (with_("user_id", lambda t: t[0]), r"input 'user_id' has shape \[\]; must have one dimension"),
    "fewer candidates": (with_("item_views", lambda t: t[:3]), "'item_views' has 3 values; must have 4 as 'item_id'"),
    "two users": (with_("user_views", lambda t: t.repeat(2)), "'user_views' has 2 values; must have 1 as 'user_id'"),
    "an empty list too many": (
        with_("item_tags.lengths", lambda t: torch.cat([t, torch.zeros_like(t[:1])])),
        "input 'item_tags.lengths' has 5 values; must have 4 as 'item_id', one per candidate",
    ),
    "a history too many": (
        with_("hist_item_id.lengths", lambda t: torch.cat([t, torch.zeros_like(t[:1])])),
        "input 'hist_item_id.lengths' has 2 values; must have 1 as 'user_id', one per request",
    ),
    "short list": (
        with_("item_tags", lambda t: t[:-1]),
        "input 'item_tags.lengths' has|input 'item_tags' has .* values; its",
    ),
    "long list": (with_("item_tags", lambda t: t.repeat(3)), "input 'item_tags' has .* values; its lengths say"),
    "negative length": (with_("item_tags.lengths", lambda t: t - 1), "input 'item_tags.lengths' has -1 to"),
    "huge lengths": (with_("item_tags.lengths", lambda t: t + 2**62), "input 'item_tags.lengths' has 4611686018427387"),
    "unequal history": (
        with_("hist_like.lengths", lambda t: t - 1),
        "'hist_like.lengths' differs from 'hist_item_id.lengths'",
    ),
    "signal": (with_("hist_like", lambda t: t + 7), "input 'hist_like' has .* must be in -1 to 1"),
    "id beyond an identity table": (with_("item_id", lambda t: t + 72), "input 'item_id' has .* must be in 0 to 71"),
    "negative id of an identity table": (
        with_("item_id", lambda t: -t - 1),
        "input 'item_id' has -.* must be in 0 to 71",
    ),
}

# Of inputs of every sort: an id, a number, a list and its lengths.
SORTS = ("user_id", "user_gap_h", "item_tags", "item_tags.lengths")
KINDS = {
    "sparse": (lambda t: t.to_sparse(), "is sparse, nested or quantized; must be a plain tensor"),
    "compressed sparse": (lambda t: t.unsqueeze(1).to_sparse_csr(), "is sparse, nested or quantized"),
    "of oneDNN": (lambda t: t.float().to_mkldnn(), "is sparse, nested or quantized"),
    "nested": (lambda t: torch.nested.nested_tensor([x.float() for x in t]), "is sparse, nested or quantized"),
    "jagged": (lambda t: torch.nested.nested_tensor([t, t], layout=torch.jagged), "is sparse, nested or quantized"),
    "quantized": (lambda t: torch.quantize_per_tensor(t.float(), 1.0, 0, torch.quint8), "is sparse, nested or"),
    "meta": (lambda t: t.to("meta"), "is no tensor of the CPU"),
    "None": (lambda t: None, "is no tensor of the CPU"),
    "0-d": (lambda t: t.sum(), r"has shape \[\]; must have one dimension"),
    "complex": (lambda t: t + 0j, "has values of another type; must be"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), "has values of another type; must be"),
}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.tried("requests", f"a tensor: {k}", "its input is named")) for k in KINDS],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:The PyTorch API of nested", "ignore:.*quantiz")
def test_a_tensor_of_another_kind_is_refused_by_name(kind: str, script: torch.jit.ScriptModule, request_: Request):
    change, message = KINDS[kind]
    for name in SORTS:
        with pytest.raises(torch.jit.Error, match=f"builtins.ValueError: input '{name}' {message}"):
            script(request_ | {name: change(request_[name])})


@pytest.mark.tried(
    "requests", "None in the first requests that a model gets", "its input is named; later ones are answered"
)
def test_a_model_whose_first_requests_are_wrong_answers_the_next(model: Twin, request_: Request, tmp_path: Path):
    save_script(model, tmp_path / "model.pt")
    for name in SORTS:
        script = load_script(tmp_path / "model.pt")
        for _ in range(3):
            with pytest.raises(torch.jit.Error, match=f"input '{name}' is no tensor of the CPU"):
                script(request_ | {name: None})
            assert script(request_)["like"].shape == (4,)


SAME = {
    "not contiguous": lambda t: torch.stack([t, t], 1)[:, 0],
    "of 8 unsigned bits": lambda t: t if t.is_floating_point() else t.to(torch.uint8),
    "of 16 unsigned bits": lambda t: t if t.is_floating_point() else t.to(torch.uint16),
    "of 32 unsigned bits": lambda t: t if t.is_floating_point() else t.to(torch.uint32),
    "of 64 unsigned bits": lambda t: t if t.is_floating_point() else t.to(torch.uint64),
    "of 8 bits": lambda t: t if t.is_floating_point() else t.to(torch.int8),
    "that wants a gradient": lambda t: t.clone().requires_grad_() if t.is_floating_point() else t,
    "of double precision": lambda t: t.double() if t.is_floating_point() else t,
    "negated lazily": lambda t: torch.imag((t * -1j).resolve_conj().conj()) if t.is_floating_point() else t,
}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.tried("requests", f"tensors {k}", "answered alike")) for k in SAME]
)
def test_the_same_values_have_the_same_answer(kind: str, script: torch.jit.ScriptModule, request_: Request):
    positive = {n: t.clamp(min=0) for n, t in request_.items()}  # which all integer types hold
    sent = {n: SAME[kind](t) for n, t in positive.items()}
    given, wanted = script(sent)["like"], script(positive)["like"]
    assert torch.equal(given, wanted) and not given.requires_grad
    for name in positive:
        assert torch.equal(script(positive | {name: sent[name]})["like"], wanted)


@pytest.mark.tried("requests", "numbers of 16 bits", "read as the float32 that they are")
@pytest.mark.tried("requests", "a bool for a number", "read as 0 or 1")
@pytest.mark.tried("requests", "a double beyond float32", "as missing")
def test_numbers_of_other_types_are_read_as_float32(script: torch.jit.ScriptModule, request_: Request):
    score = lambda value: script(request_ | {"user_gap_h": value})["like"].tolist()
    for kind in (torch.float16, torch.bfloat16):
        assert score(torch.tensor([0.375], dtype=kind)) == score(torch.tensor([0.375]))
    assert score(torch.tensor([True])) == score(torch.tensor([1.0])) != score(torch.tensor([0.0]))
    assert score(torch.tensor([1e300], dtype=torch.float64)) == score(torch.tensor([math.nan]))


@pytest.mark.tried("requests", "unsigned values from 2 ** 63 on for integers", "refused, the input named")
def test_unsigned_values_beyond_int64_are_refused(script: torch.jit.ScriptModule, request_: Request):
    for name in ("user_id", "hist_item_id", "item_tags.lengths"):
        large = torch.full(request_[name].shape, 2**63, dtype=torch.uint64)
        with pytest.raises(torch.jit.Error, match=f"input '{name}' has values from 2 \\*\\* 63 on; must be less"):
            script(request_ | {name: large})


@pytest.mark.tried("requests", "unequal types of a sequence's lengths", "answered alike")
@pytest.mark.tried("requests", "lengths whose sum is beyond int64", "refused, the input named")
def test_lengths_of_other_types_and_beyond(script: torch.jit.ScriptModule, request_: Request):
    other = request_ | {"hist_like.lengths": request_["hist_like.lengths"].to(torch.uint16)}
    assert script(other)["like"].tolist() == script(request_)["like"].tolist()
    n = len(request_["item_tags"])
    lengths = torch.tensor([2**63 - 1, 2**63 - 1, 2 + n, 0])  # which add up to n, in int64
    with pytest.raises(torch.jit.Error, match="input 'item_tags.lengths' has 0 to 9223372036854775807; must be in 0"):
        script(request_ | {"item_tags.lengths": lengths})


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_request_is_refused_in_a_line_that_names_the_input(case: str, model: Twin, request_: Request):
    change, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as refused:
        model(change(request_))
    assert "\n" not in str(refused.value)


ANSWERED = {
    "unseen ids": with_("user_id", lambda t: t + 10**15),
    "negative ids": with_("user_id", lambda t: -t - 5),
    "largest id": with_("user_id", lambda t: torch.full_like(t, 2**63 - 1)),
    "smallest id": with_("user_id", lambda t: torch.full_like(t, -(2**63))),
    "missing numbers": with_("user_gap_h", lambda t: t * math.nan),
    "infinite numbers": with_("item_views", lambda t: torch.full(t.shape, math.inf)),
    "negative counts": with_("user_views", lambda t: t - 10**6),
    "int32 ids": with_("user_id", lambda t: t.int()),
    "double numbers": with_("user_gap_h", lambda t: t.double()),
    "integer numbers": with_("user_gap_h", lambda t: torch.full(t.shape, 3)),
    "other keys": lambda r: r | {"session": torch.zeros(3, 3)},
}


@pytest.mark.parametrize("case", ANSWERED)
def test_odd_values_have_a_finite_answer(case: str, model: Twin, request_: Request):
    for given in model(ANSWERED[case](request_)).values():
        assert given.shape == (4,) and torch.isfinite(given).all()


def test_ids_never_seen_read_the_default_row(model: Twin, request_: Request):
    a, b = (model(request_ | {"user_id": torch.tensor([i])})["like"].tolist() for i in (-7, 10**17))
    assert a == b


def test_an_infinite_number_is_a_missing_one(model: Twin, request_: Request):
    a, b = (model(request_ | {"user_gap_h": torch.tensor([x])})["like"].tolist() for x in (math.inf, math.nan))
    assert a == b


def history(request: Request, change: Callable[[Tensor], Tensor]) -> Request:
    columns = ("hist_item_id", "hist_long_view", "hist_like")
    changed = {c: change(request[c]) for c in columns}
    return request | changed | {f"{c}.lengths": torch.tensor([len(changed[c])]) for c in columns}


def test_a_history_may_be_empty_and_is_cut_at_its_length(model: Twin, request_: Request):
    empty = model(history(request_, lambda t: t[:0]))["like"]
    assert torch.isfinite(empty).all() and empty.tolist() != model(request_)["like"].tolist()
    long = history(request_, lambda t: torch.cat([t, t, t])[:6])
    assert model(long)["like"].tolist() == model(history(long, lambda t: torch.cat([t, t[:3]])))["like"].tolist()


def test_no_candidates_have_no_probabilities(model: Twin, request_: Request):
    of_items = {n: t[:0] for n, t in request_.items() if n.startswith("item_")}
    assert all(p.shape == (0,) for p in model(request_ | of_items).values())
    nothing = {n: t[:0] for n, t in request_.items()}
    assert all(p.shape == (0,) for p in model(nothing).values())


def malformed(request: Request, rng: np.random.Generator) -> Request:
    """A request with one to three faults, as a broken caller would send it."""
    made = dict(request)
    for _ in range(rng.integers(1, 4)):
        name = str(rng.choice(list(made)))
        t = made[name]
        match rng.integers(0, 11):
            case 0:
                made.pop(name)
                if not made:
                    return made
            case 1:
                made[name] = t.to([torch.float32, torch.int8, torch.float64, torch.bool, torch.int32][rng.integers(5)])
            case 2:
                made[name] = t[: rng.integers(0, len(t) + 1)] if t.dim() else t
            case 3:
                made[name] = t.repeat(int(rng.integers(2, 4))) if t.dim() == 1 else t
            case 4:
                made[name] = t.unsqueeze(int(rng.integers(0, 2))) if t.dim() == 1 else t
            case 5:
                made[name] = (
                    torch.zeros_like(t) + int(rng.integers(-(2**62), 2**62)) if not t.is_floating_point() else t
                )
            case 6:
                made[name] = torch.full(t.shape, [math.nan, math.inf, -math.inf, 1e38, -1e-40][rng.integers(5)])
            case 7:
                made[name] = t - 1 if t.dtype != torch.bool else ~t
            case 8:
                made[name] = t.sum()
            case 9:
                made[name] = torch.full_like(t, 2**63 - 1) if t.dtype == torch.int64 else t
            case _:
                made[name] = torch.zeros(0, dtype=t.dtype)
    return made


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_requests_do_no_harm(count: int, model: Twin, request_: Request, tmp_path):
    save_script(model, tmp_path / "model.pt")
    served = load_script(tmp_path / "model.pt")
    rng = np.random.default_rng(count)
    before = {name: value.clone() for name, value in served.state.items()}
    expected = model(request_)["like"].tolist()
    refused = 0
    for _ in range(count):
        request = malformed(request_, rng)
        sent = {name: value.clone() for name, value in request.items()}
        try:
            given = served(request)
        except torch.jit.Error as error:
            refused += 1
            assert "builtins.ValueError: input '" in str(error)
        else:
            assert list(given) == ["long_view", "like"] and all(torch.isfinite(p).all() for p in given.values())
        assert all(torch.equal(sent[n], request[n]) or sent[n].isnan().any() for n in sent)
    assert 0.5 * count < refused < count
    assert all(torch.equal(before[name], value) for name, value in served.state.items())
    assert served(request_)["like"].tolist() == pytest.approx(expected, abs=1e-6)
