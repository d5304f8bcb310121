"""Arms: functions without required arguments that return a config, found by name in a config module.

Only the arm that was asked for is called: what else a module holds may do anything.
"""

import difflib
import importlib
import inspect
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from coldrank.data.errors import UserError

T = TypeVar("T")
_PACKAGE = Path(__file__).parents[1]
# Whose code is not the caller's; arms of this package are.
_LIBRARIES = (
    *map(sysconfig.get_path, ("stdlib", "purelib")),
    *(
        str(_PACKAGE / p)
        for p in ["modules", "models", "data", "metrics", "train", "serving", "analysis", "experiments", "cli"]
    ),
)


def find_arm(source: str, kind: type[T]) -> T:
    """What the arm `package.module:name` returns, or of a module alone the arm that it names in `DEFAULT`. Raises
    UserError for whatever is in the way, on one line with the place in the caller's code."""
    where = f"--config {source}"
    module_name, _, name = source.partition(":")
    module = import_module(module_name, where)
    name = name or getattr(module, "DEFAULT", "")
    if not isinstance(name, str):
        raise UserError(f"{where}: {module_name}.DEFAULT is a {type(name).__name__}; write the arm's name, in quotes")
    arm = getattr(module, name, None) if name else None
    if arm is None:
        wanted = f"arm {name!r}" if name else "DEFAULT arm"
        raise UserError(f"{where}: {module_name} has no {wanted}; {_there(name, list(candidates(module, kind)))}")
    if not callable(arm):
        raise UserError(
            f"{where}: {name} is a {type(arm).__name__}; an arm is a function that returns a {kind.__name__}"
        )
    if missing := required_arguments(arm):
        raise UserError(f"{where}: {name} needs {', '.join(missing)}; an arm is a function without required arguments")
    return called(arm, f"{where}: {name}", kind)


def called(function: Callable[..., Any], what: str, kind: type[T], *given: Any) -> T:
    """What a function of the caller's returns for what it is given. Raises UserError, which begins with `what`, for
    whatever it raises itself, and where it returns no `kind`."""
    try:
        config = function(*given)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{what}() {_told(error)}") from error
    if not isinstance(config, kind):
        returned = "nothing" if config is None else f"{type(config).__name__} {_short(config)}"
        raise UserError(f"{what}() returned {returned}, not a {kind.__name__}")
    return config


def candidates(module: ModuleType, kind: type[T], required: int = 0) -> dict[str, Callable[..., T]]:
    """Name -> function of a module that may be an arm, imported ones too: without required arguments, or with so many,
    and declared to return a `kind`, or the module's own with nothing declared. None is called."""
    functions = {}
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or not callable(value) or inspect.isclass(value):
            continue
        arguments = required_arguments(value)
        if arguments is None or len(arguments) != required:
            continue
        returns = inspect.signature(value).return_annotation
        if isinstance(returns, str):  # the module postpones its annotations
            returns = kind if returns.strip("'\"").rpartition(".")[2] == kind.__name__ else None
        is_local = getattr(value, "__module__", None) == module.__name__
        if returns is kind or (returns is inspect.Signature.empty and is_local):
            functions[name] = value
    return functions


def import_module(name: str, where: str) -> ModuleType:
    """A module by its name. Raises UserError, on one line, for one that is not there, is a file's path, or fails."""
    path = Path(name)
    if path.suffix == ".py" or len(path.parts) > 1:
        parts = [part for part in path.with_suffix("").parts if part not in (".", path.anchor)]
        raise UserError(
            f"{where}: {name} is a file's path; write {'.'.join(parts)}:arm, where the command is called or on "
            f"PYTHONPATH"
        )
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{where}: write package.module:function, or a .json")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{where}: no module {error.name!r}; write package.module:function, or a .json") from None
        raise UserError(f"{where}: importing {name} {_told(error)}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{where}: importing {name} {_told(error)}") from error


def required_arguments(function: Callable[..., Any]) -> list[str] | None:
    """Names of the arguments that a call has to give; None where that cannot be told."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def _there(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    have = f"it has {', '.join(names)}" if names else "it has none: a function that returns a RunConfig"
    return f"{have}; did you mean {near[0]!r}?" if near else have


def _told(error: BaseException) -> str:
    """`raised KeyError: 'x' (my_arms.py, line 3)`: the last place that is no library's."""
    if isinstance(error, SyntaxError):
        place = f"{Path(error.filename or '').name}, line {error.lineno}"
        return f"raised {type(error).__name__}: {error.msg} ({place})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_callers(f.filename)]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"raised {type(error).__name__}: {_short(error)}{place}"


def _is_callers(file: str) -> bool:
    return not file.startswith(("<", *_LIBRARIES))


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
