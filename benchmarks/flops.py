"""Parameters and FLOPs per sample of every arm, beside the base: POSO's Table 1.

    python benchmarks/flops.py --config coldrank.configs.kuairand_tables --out flops.md

Counted is the dense part (attention, experts, towers, gates), without the embedding tables, in one forward pass, by
torch.utils.flop_counter. It counts matrix products, 2 FLOPs per multiply-add, and nothing element-wise: of a gate its
two linear layers, not the sigmoid nor the product with what it gates, which is one multiplication per gated number.
"""

import argparse
import importlib
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode
from torchrec import KeyedJaggedTensor

from coldrank.models.batch import Batch
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig
from coldrank.train.load import arms

# Gives KuaiRand's base tens of millions of parameters; the paper's baseline has 23 million.
WIDER = 8


def main() -> None:
    """Prints the tables, and writes them as Markdown if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="config module, such as coldrank.configs.kuairand_tables")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args()
    module_arms = arms(importlib.import_module(args.config))
    if "base" not in module_arms:
        parser.error(
            f"--config {args.config}: has no arm 'base' to compare with; it has {', '.join(module_arms) or 'no arms'}"
        )
    configs = [config for arm in module_arms.values() if isinstance(config := arm(), RunConfig)]
    titles: dict[str, Callable[[RunConfig], RunConfig]] = {
        "Widths as configured": lambda config: config,
        f"Every width but the gates' and the code's times {WIDER}": lambda config: wider(config, WIDER),
    }
    text = "\n".join(f"{title}:\n\n{table(map(change, configs))}\n" for title, change in titles.items())
    print(text)
    if args.out:
        partial = args.out.with_name(args.out.name + ".partial")
        partial.write_text(text)
        os.replace(partial, args.out)


def table(configs: Iterable[RunConfig]) -> str:
    """A Markdown table with a row per config, the base first; ratios are to the base."""
    measured = {c.name: measure(c) for c in configs}
    parameters, flops = measured["base"]
    order = sorted(measured, key=lambda name: name != "base")
    rows = [
        [n, f"{p:,}", f"{p / parameters:.4f}", f"{f:,}", f"{f / flops:.4f}"] for n in order for p, f in [measured[n]]
    ]
    headers = ["arm", "dense parameters", "to base", "FLOPs per sample", "to base"]
    text: str = tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=["left", *["right"] * 4])
    return text


def measure(config: RunConfig) -> tuple[int, int]:
    """Dense parameters, and FLOPs of the forward pass of one sample with histories of full length."""
    features = validate(config)
    with torch.device("meta"):
        ranker = config.model.build(features, len(config.tasks)).eval()
        embedded = {
            f.name: torch.empty(1, *([f.length] if f.role == "sequence" else []), features.dim(f))
            for f in features.sparse
        }
        lengths = torch.empty(len(features.sequences), 1, dtype=torch.int64)
        dense, labels = torch.empty(1, len(features.numbers)), torch.empty(1, len(config.tasks))
        batch = Batch(KeyedJaggedTensor.empty(), dense, lengths, labels, {})
        with FlopCounterMode(display=False) as counter:
            ranker(embedded, batch)
    return sum(p.numel() for p in ranker.parameters()), counter.get_total_flops()


def wider(config: RunConfig, times: int) -> RunConfig:
    """Embeddings, heads, experts and towers `times` as wide; the code and the gates' hidden layers as they are."""
    m = config.model
    model = replace(
        m,
        head_dim=times * m.head_dim,
        expert_hidden=tuple(times * width for width in m.expert_hidden),
        tower_hidden=tuple(times * width for width in m.tower_hidden),
    )
    features = tuple(f if f.role == "pc" else replace(f, dim=times * f.dim) for f in config.features)
    tables = tuple(replace(t, dim=times * t.dim) for t in config.tables)
    return replace(config, model=model, features=features, tables=tables)


if __name__ == "__main__":
    main()
