"""What a model file is beside the tensors of its state: its code, and every number that is a constant of it.

The code is the graph of each method, with all calls in place. The rest is read from the archive that torch.jit.save
writes: `data.pkl`, a pickle of the module's attributes whose tensors lie in `data/`, and `constants.pkl` with
`constants/`.
"""

import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# What tells types of one name apart; the numbers follow from what else was scripted in the process.
_MANGLED = re.compile(r"\.___torch_mangle_\d+")


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Reads a model that `save_script` wrote."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        return torch.jit.load(str(path))


def structure(path: Path) -> str:
    """A digest of a scripted model, all but the contents of `state` and `version`. Two models of one structure and
    equal states answer alike."""
    with zipfile.ZipFile(path) as archive:
        names = {n.partition("/")[2]: n for n in archive.namelist()}
        read = lambda name: archive.read(names[name])
        root = _Reader(io.BytesIO(read("data.pkl"))).load()
        constants = _Reader(io.BytesIO(read("constants.pkl"))).load()
        state = {t.key for t in [*root.attributes["state"].values(), root.attributes["version"]]}
        parts = [_told(root, state, lambda key: read(f"data/{key}"))]
        parts += sorted(_told(c, set(), lambda key: read(f"constants/{key}")) for c in constants)
    model = load_script(path)
    for name in ("forward", "update"):
        parts.append(_renumbered(_plain(getattr(model, name).inlined_graph.str(False))))
    return hashlib.sha256(b"".join(hashlib.sha256(part.encode()).digest() for part in parts)).hexdigest()


class _Tensor:
    """A tensor of the archive: key of its storage, and its type, sizes and strides."""

    def __init__(self, storage: tuple[Any, ...], *layout: Any) -> None:
        self.key, self.layout = str(storage[2]), (str(storage[1]), *layout[:3])


class _Object:
    """A module or another object of a script."""

    def __init__(self, *_: Any) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.attributes = attributes


class _Reader(pickle.Unpickler):
    """Builds stand-ins alone."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == "torch._utils._rebuild_tensor_v2":
            return _Tensor
        if full == "torch.jit._pickle.restore_type_tag":
            return lambda value, kind: value
        if module == "torch.jit._pickle":  # build_intlist and its like
            return lambda values: values
        if full == "collections.OrderedDict":
            return dict
        return type(_plain(full), (_Object,), {}) if module.startswith("__torch__") else _plain(full)

    def persistent_load(self, pid: Any) -> Any:
        return pid


def _plain(text: str) -> str:
    return _MANGLED.sub("", text)


def _renumbered(graph: str) -> str:
    """A graph whose values are called by their order."""
    seen: dict[str, str] = {}
    return re.sub(r"%[\w.]+", lambda match: seen.setdefault(match[0], f"%{len(seen)}"), graph)


def _told(value: Any, state: set[str], content: Callable[[str], bytes]) -> str:
    """A text that differs where the values do."""
    if isinstance(value, _Tensor):
        inside = "state" if value.key in state else hashlib.sha256(content(value.key)).hexdigest()
        return f"tensor{value.layout}{inside}"
    if isinstance(value, _Object):
        return f"{type(value).__name__}{_told(value.attributes, state, content)}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_told(k, state, content)}:{_told(v, state, content)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_told(v, state, content) for v in value) + "]"
    return f"{type(value).__name__} {value!r}"
