"""Checks of sizes, at construction and at the call, whose errors name the argument at fault."""

import torch
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


def check_lengths(lengths: Tensor, sequence: Tensor) -> None:
    """Raise ValueError unless `lengths` holds a number of positions of `sequence` [B, L, D] for each sample
    (scriptable). On a GPU the values are checked by torch's own assertion, for which nothing waits."""
    if lengths.shape != sequence.shape[:1] or lengths.is_floating_point():
        raise ValueError(f"lengths has shape {list(lengths.shape)}: it must be [{sequence.shape[0]}] whole numbers")
    right = ((lengths >= 0) & (lengths <= sequence.shape[1])).all()
    if lengths.device.type != "cpu":
        torch._assert_async(right)
    elif not bool(right):
        low, high = int(lengths.min()), int(lengths.max())
        raise ValueError(
            f"lengths has {low} to {high}: they must be in 0 to {sequence.shape[1]}, the positions there are"
        )
