"""The model repository: config.pbtxt against Triton's own definition, and what its PyTorch backend does with the model."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from served import CONFIGS, random_model, request_of, rows_of
from torch import Tensor

from coldrank.models.serving.twin import Twin
from coldrank.train.data.batches import DataFolder
from coldrank.train.export.triton import write_repository
from coldrank.train.export.write import load_script


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
    return twin, folder, [request_of(trained, raw, user, [user, 1, 2, 3]) for user in (4, 5, 6)]


def padded(requests: list[dict[str, Tensor]], twin: Twin) -> dict[str, Tensor]:
    """Requests as a server batches them: padded by -9, which no list may be read as."""
    found: dict[str, Tensor] = {}
    for i in twin.inputs:
        if not i.is_list:
            found[i.name] = torch.stack([r[i.name] for r in requests])
            continue
        lengths = torch.stack([r[f"{i.name}.lengths"] for r in requests])
        whole = torch.full((*lengths.shape, int(lengths.max()) + 1), -9)
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
    assert [(o.name, list(o.dims)) for o in config.output] == [("probabilities", [-1, len(twin.tasks)])]
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
    given = model(padded(requests, twin))
    wanted = torch.stack([torch.stack(list(twin(r).values()), 1) for r in requests])
    assert isinstance(given, torch.Tensor)
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("item_id", lambda t: t.flatten(), "input 'item_id' has shape"),
        ("hist_like.lengths", lambda t: t + 50, r"input 'hist_like.lengths' has .* must be in 0 to"),
        ("hist_like", lambda t: t[:2], "input 'hist_like' has 2 lists; its lengths are 3"),
        ("hist_like", lambda t: t.flatten(), "input 'hist_like' is missing, or not padded"),
    ],
)
def test_a_wrong_batch_names_its_input(repository, name, change, message):
    twin, folder, requests = repository
    sent = padded(requests, twin)
    with pytest.raises(torch.jit.Error, match=message):
        load_script(folder / "coldrank/1/model.pt")(sent | {name: change(sent[name])})
