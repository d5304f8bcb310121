"""A model repository for Triton's PyTorch backend.

The backend gives a model with one argument, Dict[str, Tensor], the inputs of config.pbtxt by their names. It takes no
dictionary back: the outputs are a tuple, in the order of config.pbtxt: `probabilities`, what the heads give, whose last
dimension is the tasks in the order of signature.json, and the status of each request.
"""

import json
import warnings
from pathlib import Path

import torch

from coldrank.serving.batched import Batched
from coldrank.serving.inputs import Served
from coldrank.serving.twin import Twin

NAME = "coldrank"
_TYPES = {"int": "TYPE_INT64", "float": "TYPE_FP32"}


def write_repository(twin: Twin, folder: Path, max_batch: int = 64, delay_us: int = 500) -> None:
    """Writes `coldrank/config.pbtxt` and `coldrank/1/model.pt` into the folder.

    max_batch: requests that Triton puts together at most; delay_us: how long it waits for more.
    """
    (folder / NAME / "1").mkdir(parents=True)
    (folder / NAME / "config.pbtxt").write_text(config(twin.inputs, twin.tasks, max_batch, delay_us))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        torch.jit.save(torch.jit.script(Batched(twin, twin.inputs)), str(folder / NAME / "1" / "model.pt"))


def config(inputs: tuple[Served, ...], tasks: list[str], max_batch: int, delay_us: int) -> str:
    """config.pbtxt. Dimensions are without that of the batch; -1 is any size."""
    entries = []
    for i in inputs:
        rows = [-1] if i.per == "candidate" else [1]
        if i.is_list:
            entries.append(_entry(i.name, _TYPES[i.dtype], rows + [-1] if i.per == "candidate" else [-1]))
            entries.append(_entry(f"{i.name}.lengths", "TYPE_INT64", rows))
        else:
            entries.append(_entry(i.name, _TYPES[i.dtype], rows))
    outputs = [_entry("probabilities", "TYPE_FP32", [-1, len(tasks)]), _entry("status", "TYPE_INT64", [1])]
    return "\n".join(
        [
            f'name: "{NAME}"',
            'backend: "pytorch"',
            f"max_batch_size: {max_batch}",
            f"input [\n{_joined(entries)}\n]",
            f"output [\n{_joined(outputs)}\n]",
            f"dynamic_batching {{\n  max_queue_delay_microseconds: {delay_us}\n}}",
            "instance_group [\n  {\n    kind: KIND_CPU\n    count: 1\n  }\n]",
            'parameters {\n  key: "INFERENCE_MODE"\n  value: { string_value: "true" }\n}',
            "",
        ]
    )


def _entry(name: str, kind: str, dims: list[int]) -> str:
    return f"  {{\n    name: {json.dumps(name)}\n    data_type: {kind}\n    dims: {json.dumps(dims)}\n  }}"


def _joined(entries: list[str]) -> str:
    return ",\n".join(entries)
