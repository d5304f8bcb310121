"""The model repository: config.pbtxt against Triton's own definition, and what its PyTorch backend does with the
model."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from served import CONFIGS, backbone, random_model, request_of, rows_of
from torch import Tensor

from coldrank.data.batches import DataFolder
from coldrank.serving.export.signature import signature
from coldrank.serving.export.triton import write_repository
from coldrank.serving.export.write import load_script
from coldrank.serving.twin import Twin


@pytest.fixture(scope="module")
def definition() -> ModuleType:
    """Triton's model_config.proto, compiled: one file of tritonclient, which needs nothing else of it."""
    spec = importlib.util.find_spec("tritonclient")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    path = Path(spec.submodule_search_locations[0]) / "grpc/model_config_pb2.py"
    own = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert own is not None and own.loader is not None
    module = importlib.util.module_from_spec(own)
    own.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def repository(
    data: DataFolder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Twin, Path, list[dict[str, Tensor]]]:
    """A model, its repository, and three requests of four candidates."""
    trained = random_model(CONFIGS["poso"](), data)
    twin = trained.twin(trained.columns())
    folder = tmp_path_factory.mktemp("triton")
    write_repository(twin, folder)
    raw = rows_of(trained, data)
    users = np.flatnonzero(np.diff(raw["hist_like"][1]) > 1)[:3].tolist()
    return twin, folder, [request_of(trained, raw, user, [user, 1, 2, 3]) for user in users]


def padded(requests: list[dict[str, Tensor]], twin: Twin) -> dict[str, Tensor]:
    """Requests as a server batches them: padded by -9, which no list may be read as."""
    found: dict[str, Tensor] = {}
    for i in twin.inputs:
        if not i.is_list:
            found[i.name] = torch.stack([r[i.name] for r in requests])
            continue
        lengths = torch.stack([r[f"{i.name}.lengths"] for r in requests])
        whole = torch.full((*lengths.shape, int(lengths.max()) + 1), -9, dtype=requests[0][i.name].dtype)
        for row, r in zip(whole, requests, strict=True):
            for one, values in zip(row, r[i.name].split(r[f"{i.name}.lengths"].tolist()), strict=True):
                one[: len(values)] = values
        found[i.name] = whole if i.per == "candidate" else whole.squeeze(1)
        found[f"{i.name}.lengths"] = lengths
    return found


def test_config_is_one_by_triton_s_definition(repository, definition):
    from google.protobuf import text_format

    twin, folder, requests = repository
    config = text_format.Parse((folder / "coldrank/config.pbtxt").read_text(), definition.ModelConfig())
    assert config.name == "coldrank" and config.backend == "pytorch" and config.max_batch_size > 1
    assert config.HasField("dynamic_batching")
    outputs = [(o.name, o.data_type, list(o.dims)) for o in config.output]
    assert outputs == [("probabilities", definition.TYPE_FP32, [-1, 2]), ("status", definition.TYPE_INT64, [1])]
    types = {torch.int64: definition.TYPE_INT64, torch.float32: definition.TYPE_FP32}
    sent = padded(requests, twin)
    assert {i.name for i in config.input} == set(sent)
    for i in config.input:
        assert i.data_type == types[sent[i.name].dtype]
        shape = sent[i.name].shape[1:]
        assert len(i.dims) == len(shape) and all(d in (-1, n) for d, n in zip(i.dims, shape, strict=True)), i.name


def test_the_backend_gets_every_request_s_probabilities(repository):
    twin, folder, requests = repository
    model = load_script(folder / "coldrank/1/model.pt")
    arguments = model.forward.schema.arguments[1:]
    assert [str(a.type) for a in arguments] == ["Dict[str, Tensor]"]  # by which the backend gives inputs by name
    given, status = model(padded(requests, twin))
    wanted = torch.stack([torch.stack(list(twin(r).values()), 1) for r in requests])
    assert status.tolist() == [[0], [0], [0]]
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)


def put(row: int, value: int, *at: int) -> Callable[[Tensor], Tensor]:
    """Sets one value of a request."""

    def change(t: Tensor) -> Tensor:
        t = t.clone()
        t[(row, *at)] = value
        return t

    return change


def tried(given: str, answer: str) -> pytest.MarkDecorator:
    return pytest.mark.tried("requests", f"padded, {given}", answer)


NAMED = "the whole batch is refused, the input named"
STATUS = "NaN and a status that names the input; the others' own probabilities"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        pytest.param("item_id", lambda t: t.flatten(), r"input 'item_id' has shape \[12\]; must have 2 dimensions"),
        pytest.param(
            "item_id", lambda t: t[:, :3], "'item_id.* has 3 candidates|'item_.*' has 4 candidates; must have 3"
        ),
        pytest.param("item_id", lambda t: t[:2], "input 'item_id' has 2 requests; must have 3 as 'user_id'"),
        pytest.param("user_id", lambda t: t.repeat(1, 4), r"input 'user_id' has shape \[3, 4\]; must have one column"),
        pytest.param("hist_like", lambda t: t[:2], r"input 'hist_like' has shape \[2, .*'hist_like.lengths' has shape"),
        pytest.param("hist_like", lambda t: t.flatten(), r"input 'hist_like' has shape \[.*\]; must have 2 dimensions"),
        pytest.param("item_tags", lambda t: t[:, 0], "input 'item_tags' has shape .* must have 3 dimensions"),
        pytest.param(
            "item_tags", lambda t: t.float(), "input 'item_tags' has values of another type; must be integers"
        ),
        pytest.param("user_gap_h", lambda t: t.to_sparse(), "input 'user_gap_h' is sparse, nested or quantized"),
        pytest.param("user_gap_h", lambda t: t.to("meta"), "input 'user_gap_h' is no tensor of the CPU"),
    ],
)
@tried("a wrong shape or type", NAMED)
def test_a_wrong_batch_names_its_input(repository, name, change, message):
    twin, folder, requests = repository
    sent = padded(requests, twin)
    with pytest.raises(torch.jit.Error, match=message):
        load_script(folder / "coldrank/1/model.pt")(sent | {name: change(sent[name])})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("item_id", put(1, 72, 2), marks=tried("an id beyond an identity table in one request", STATUS)),
        pytest.param(
            "item_id", put(1, -1, 0), marks=tried("a negative id of an identity table in one request", STATUS)
        ),
        pytest.param("hist_like", put(1, 2, 0), marks=tried("a signal of 2 in one request", STATUS)),
        pytest.param("hist_like.lengths", put(1, -1, 0), marks=tried("a negative length in one request", STATUS)),
        pytest.param("hist_item_id.lengths", put(1, 99, 0), marks=tried("a length beyond the padding", STATUS)),
        pytest.param("hist_like.lengths", put(1, 0, 0), marks=tried("unequal lengths of a sequence", STATUS)),
        pytest.param("item_tags.lengths", put(1, -(2**63), 3), marks=tried("a length of -2 ** 63", STATUS)),
        pytest.param("item_tags.lengths", put(1, 2**63 - 1, 3), marks=tried("a length of 2 ** 63 - 1", STATUS)),
    ],
)
def test_a_request_with_a_bad_value_harms_no_other(repository, name, change):
    twin, folder, requests = repository
    sent = padded(requests, twin)
    entries = [e["name"] for e in signature(twin.inputs, CONFIGS["poso"]().tasks, {})["inputs"]]
    given, status = load_script(folder / "coldrank/1/model.pt")(sent | {name: change(sent[name])})
    assert status.flatten().tolist() == [0, 1 + entries.index(name), 0]
    assert given[1].isnan().all()
    wanted = torch.stack([torch.stack(list(twin(r).values()), 1) for r in (requests[0], requests[2])])
    torch.testing.assert_close(given[[0, 2]], wanted, rtol=0, atol=1e-5)


@tried("values that are past a length", "are not read")
@tried("two bad values in a request", "the first input of signature.json is named")
def test_what_is_past_a_length_is_not_read_and_the_first_fault_is_named(repository):
    twin, folder, requests = repository
    sent = padded(requests, twin)
    entries = [e["name"] for e in signature(twin.inputs, CONFIGS["poso"]().tasks, {})["inputs"]]
    model = load_script(folder / "coldrank/1/model.pt")
    wrong = {n: put(2, 77, 0)(sent[n]) for n in ("item_id", "hist_like.lengths")}
    first = min(entries.index(n) for n in ("item_id", "hist_like.lengths"))
    assert model(sent | wrong)[1].flatten().tolist() == [0, 0, 1 + first]
    past = sent["hist_like"].clone()
    past[torch.arange(past.shape[1]) >= sent["hist_like.lengths"]] = 77
    assert torch.equal(model(sent | {"hist_like": past})[0], model(sent)[0])


@tried("no candidates", "probabilities of no candidates")
@tried("no requests", "no probabilities")
def test_no_candidates_and_no_requests(repository):
    twin, folder, requests = repository
    sent, model = padded(requests, twin), load_script(folder / "coldrank/1/model.pt")
    none = {n: t[:, :0] if n.startswith("item_") else t for n, t in sent.items()}
    given, status = model(none)
    assert given.shape == (3, 0, 2) and status.tolist() == [[0], [0], [0]]
    given, status = model({n: t[:0] for n, t in sent.items()})
    assert given.shape == (0, 4, 2) and status.shape == (0, 1)


def test_inputs_that_cannot_be_at_fault_have_a_status_per_request(data, tmp_path):
    config = backbone("wide_deep")
    features = tuple(f for f in config.features if f.role not in ("sequence", "pc") and not f.many)
    tables = tuple(replace(t, mapping="vocabulary") for t in config.tables if t.name != "tag")
    trained = random_model(replace(config, features=features, tables=tables), data)
    twin = trained.twin(trained.columns())
    assert not any(i.is_list or i.low is not None for i in twin.inputs)
    write_repository(twin, tmp_path / "models")
    requests = [request_of(trained, rows_of(trained, data), user, [user, 1, 2]) for user in (4, 5)]
    given, status = load_script(tmp_path / "models/coldrank/1/model.pt")(padded(requests, twin))
    assert status.tolist() == [[0], [0]]
    wanted = torch.stack([torch.stack(list(twin(r).values()), 1) for r in requests])
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)
