"""A model repository for Triton's PyTorch backend.

The backend gives a model with one argument, Dict[str, Tensor], the inputs of config.pbtxt by their names, and takes a tuple of
tensors for its outputs, in their order there.
"""

import json
import warnings
from pathlib import Path

import torch

from coldrank.models.serving.batched import Batched
from coldrank.models.serving.inputs import Served
from coldrank.models.serving.twin import Twin

NAME = "coldrank"
_TYPES = {"int": "TYPE_INT64", "float": "TYPE_FP32"}


def write_repository(twin: Twin, folder: Path, max_batch: int = 64, delay_us: int = 500) -> None:
    """Writes `coldrank/config.pbtxt` and `coldrank/1/model.pt` into the folder.

    max_batch: requests that Triton puts together at most; delay_us: how long it waits for more.
    """
    (folder / NAME / "1").mkdir(parents=True)
    (folder / NAME / "config.pbtxt").write_text(config(twin.inputs, twin.tasks, max_batch, delay_us))
    torch.jit.save(script(twin), str(folder / NAME / "1" / "model.pt"))


def script(twin: Twin) -> torch.jit.ScriptModule:
    """`Batched` as TorchScript, with a tuple for its result."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        inner = torch.jit.script(_Lists(Batched(twin, twin.inputs)))
    count = len(twin.tasks)
    kinds = ", ".join(["Tensor"] * count)
    values = "".join(f"found[{i}], " for i in range(count))
    inner.define(
        f"def forward(self, padded: Dict[str, Tensor]) -> Tuple[{kinds}]:\n"
        f"    found = self.answer(padded)\n"
        f"    return ({values})\n"
    )
    return inner


class _Lists(torch.nn.Module):
    """Leaves the name `forward` free."""

    def __init__(self, batched: Batched) -> None:
        super().__init__()
        self.batched = batched

    @torch.jit.export
    def answer(self, padded: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        found: list[torch.Tensor] = self.batched(padded)
        return found


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
    outputs = [_entry(task, "TYPE_FP32", [-1]) for task in tasks]
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
