"""Configs that build what they describe, of whatever class: models, heads, hooks and metrics. One of a user's own is
used like ours.

In JSON each says its `kind`. Of ours that is the name of a module in the package of its base (`deepfm`); of any other
`package.module:Class`.
"""

import dataclasses
import difflib
import importlib
import pkgutil
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field, PositiveInt

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class Component:
    """Base of such a config, which is a dataclass with keyword fields. `what` and `package` are set by `Model`, `Head`,
    `Hook` and `Metric`."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)
    what: ClassVar[str]
    """What messages call it."""
    package: ClassVar[str]
    """Where a kind without a path lies."""

    @classmethod
    def kind(cls) -> str:
        """What names the class in JSON and on the command line."""
        module = cls.__module__
        if module.startswith(f"{cls.package}."):
            return module.removeprefix(f"{cls.package}.").partition(".")[0]
        return f"{module}:{cls.__qualname__}"

    @classmethod
    def short_name(cls) -> str:
        """An identifier: the kind, or the class's name in small letters."""
        return cls.kind().rpartition(":")[2].lower()

    def to_json(self) -> dict[str, Any]:
        """The kind and the fields as plain values."""
        return {"kind": self.kind(), **dataclasses.asdict(self)}  # type: ignore[call-overload]


C = TypeVar("C", bound=Component)


def find(base: type[C], kind: str) -> type[C]:
    """The class of a kind. Raises ValueError that says what is in the way."""
    module_name, _, name = kind.rpartition(":")
    inside = f"{base.package}.{kind}"
    try:
        module = importlib.import_module(module_name or inside)
    except ModuleNotFoundError as error:
        if error.name not in (module_name, inside) and not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"no {base.what} {kind!r}; {_near(base, kind)}write package.module:Class") from None
    if name and module_name:
        return _checked(base, getattr(module, name, None), kind)
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, base) and c is not base]
    classes = [c for c in classes if c.kind() == kind and not _is_base(c, classes)]
    return _checked(base, classes[0] if len(classes) == 1 else None, kind)


def _near(base: type[C], kind: str) -> str:
    """In words, which kinds of ours there are; '' if none."""
    names = []
    for module in pkgutil.iter_modules(importlib.import_module(base.package).__path__):
        inside = vars(importlib.import_module(f"{base.package}.{module.name}")).values()
        kinds = {c.kind() for c in inside if isinstance(c, type) and issubclass(c, base) and c is not base}
        names += [module.name] if module.name in kinds else []
    near = difflib.get_close_matches(kind, names, 1)
    return f"did you mean {near[0]!r}? Or " if near else f"there are {', '.join(names)}; or " if names else ""


def _is_base(cls: type, classes: list[type[C]]) -> bool:
    return any(c is not cls and issubclass(c, cls) for c in classes)


def _checked(base: type[C], candidate: Any, kind: str) -> type[C]:
    if not (isinstance(candidate, type) and issubclass(candidate, base) and dataclasses.is_dataclass(candidate)):
        raise ValueError(f"no {base.what} {kind!r}: a {base.what} is a dataclass derived from {base.__name__}")
    return candidate
