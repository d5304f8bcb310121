"""What the posterior hook loses by keeping a diagonal between batches, on events that its model is true of.

    python benchmarks/posterior_diagonal.py [--ids 400] [--width 16]

An id's embedding e is drawn from its prior, J of each event with the given correlation of its elements. The label is
J . e plus noise (`linear`, where the whole posterior is exact) or a draw of sigmoid(J . e) (`logistic`). Events come in
batches of `--per-batch`. Prints the mean squared error of the mean over that of the prior after 1 to 64 events, in
float64, by what is kept between batches: the whole precision; its diagonal, as in the hook; that of the covariance.
"""

import argparse
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from coldrank.modules.posterior import Gaussian, newton_step, summed

Kept = Literal["whole", "diagonal", "covariance"]
KEPT: tuple[Kept, ...] = ("whole", "diagonal", "covariance")
EVENTS = (1, 2, 4, 8, 16, 32, 64)


def drawn_slopes(ids: int, events: int, width: int, correlation: float) -> Tensor:
    """J of every event, float64 [N, K, D]: elements of variance 1, each pair of them with that correlation."""
    own, shared = torch.randn(ids, events, width).double(), torch.randn(ids, events, 1).double()
    return (1 - correlation) ** 0.5 * own + correlation**0.5 * shared


def derivatives(kind: str, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """l' and l'' by the logit, [n] each, of the squared loss (of variance 1) or the logistic one."""
    if kind == "linear":
        return logits - labels, torch.ones_like(logits)
    p = torch.sigmoid(logits)
    return p - labels, p * (1 - p)


def means(slopes: Tensor, labels: Tensor, kind: str, per_batch: int, what: Kept) -> Iterator[Tensor]:
    """The means after each batch, float64 [N, D], from a prior of mean 0 and precision 1.

    slopes: J, [N, K, D]. labels: [N, K]. what: is kept of the precision: all, its diagonal, or the
        inverse of its inverse's.
    """
    count, events, width = slopes.shape
    kept = torch.eye(width).double().expand(count, -1, -1)
    mean = torch.zeros(count, width).double()
    for begin in range(0, events, per_batch):
        j, y = slopes[:, begin : begin + per_batch], labels[:, begin : begin + per_batch]
        rows = torch.arange(count).repeat_interleave(j.shape[1])
        first, second = derivatives(kind, (j @ mean.unsqueeze(2)).squeeze(2), y)
        gradient, matrix = summed(j.reshape(-1, 1, width), first.reshape(-1, 1), second.reshape(-1, 1), rows, count)
        mean = newton_step(Gaussian(mean, kept), mean, gradient, matrix)
        kept = kept + matrix
        if what == "diagonal":
            kept = torch.diag_embed(kept.diagonal(dim1=1, dim2=2))
        elif what == "covariance":
            kept = torch.diag_embed(1 / torch.linalg.inv(kept).diagonal(dim1=1, dim2=2))
        yield mean


def errors(
    kind: str, ids: int, width: int, correlation: float, per_batch: int, seed: int = 0
) -> dict[int, dict[Kept, float]]:
    """After each number of EVENTS that `per_batch` divides: mean squared error over the prior's, by what is kept."""
    torch.manual_seed(seed)
    slopes = drawn_slopes(ids, EVENTS[-1], width, correlation)
    truth = torch.randn(ids, width).double()
    logits = (slopes @ truth.unsqueeze(2)).squeeze(2)
    noise = torch.rand_like(logits) if kind == "logistic" else torch.randn_like(logits)
    labels = (noise < torch.sigmoid(logits)).double() if kind == "logistic" else logits + noise
    found: dict[int, dict[Kept, float]] = {n: {} for n in EVENTS if n % per_batch == 0}
    for what in KEPT:
        after = list(means(slopes, labels, kind, per_batch, what))
        for n, of in found.items():
            of[what] = ((after[n // per_batch - 1] - truth).square().mean() / truth.square().mean()).item()
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("ids", 400), ("width", 16), ("per-batch", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for kind in ("linear", "logistic"):
        for correlation in (0.0, 0.3, 0.8):
            found = errors(kind, args.ids, args.width, correlation, args.per_batch)
            text = "  ".join(f"{n}: " + " ".join(f"{of[what]:.3f}" for what in KEPT) for n, of in found.items())
            print(f"{kind}, correlation {correlation}, {', '.join(KEPT)} after {text}")


if __name__ == "__main__":
    main()
