"""Checks of sizes, at construction and at the call, whose errors name the argument at fault."""

from torch import Tensor


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless every named size is at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}: it must be at least 1")


def check_hidden(hidden: tuple[int, ...], at_least: int = 1) -> None:
    """Raise ValueError unless `hidden` names `at_least` layers (0 or 1) and every width is at least 1."""
    if len(hidden) < at_least:
        raise ValueError("hidden is empty: name the width of at least one layer, such as (64,)")
    check_sizes(**{f"hidden[{i}]": width for i, width in enumerate(hidden)})


def check_width(name: str, x: Tensor, width: int) -> None:
    """Raise ValueError unless the last dimension of `x` is `width` (scriptable)."""
    if x.dim() < 2 or x.shape[-1] != width:
        raise ValueError(f"{name} has shape {list(x.shape)}: it must be [batch, ..., {width}]")
