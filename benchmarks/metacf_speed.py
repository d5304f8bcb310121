"""How fast MetaCF adapts new users: all of a batch at once, closed-form, beside automatic differentiation user by user.

    python benchmarks/metacf_speed.py [--users 4096] [--records 3] [--steps 5]

A user has `--records` records and 3 negatives for each; vectors are 32 wide. One thread, CPU time, best of 5. Both give
the same vectors.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from coldrank.modules import MetaCF

DIM, NEGATIVES, LOOP = 32, 3, 256


def by_autograd(metacf: MetaCF, items: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The loop over users, a gradient by automatic differentiation in every step: vectors, float32 [U, D].

    items: float32 [U, L, D]. labels, weights: float32 [U, L].
    """
    adapted = []
    for q, y, w in zip(items, labels, weights, strict=True):
        p = metacf.initial(q.unsqueeze(0), y.unsqueeze(0), w.unsqueeze(0))[0].detach()
        for rate in metacf.rates:
            p.requires_grad_()
            loss = F.binary_cross_entropy_with_logits(q @ p, y, w, reduction="sum")
            p = (p - rate * torch.autograd.grad(loss, p)[0]).detach()
        adapted.append(p)
    return torch.stack(adapted)


def users_per_second(adapt: Callable[..., object], inputs: tuple[Tensor, ...]) -> float:
    """Of the fastest of 5 calls, after one that warms up."""
    times = []
    for _ in range(6):
        began = time.process_time()
        adapt(*inputs)
        times.append(time.process_time() - began)
    return len(inputs[0]) / min(times[1:])


def measure(users: int, records: int, steps: int) -> dict[str, float]:
    """Users per second: of a batch, of one user per call, of the loop."""
    torch.manual_seed(0)
    length = records * (1 + NEGATIVES)
    metacf = MetaCF(DIM, "neural", steps=steps, rate=0.05).eval().requires_grad_(False)
    labels = (torch.arange(length) < records).float().expand(users, -1).contiguous()
    inputs = (torch.randn(users, length, DIM), labels, torch.ones(users, length))
    few = tuple(x[:LOOP] for x in inputs)
    scripted = torch.jit.script(metacf)
    torch.testing.assert_close(scripted(*few), by_autograd(metacf, *few))
    batch = users_per_second(scripted, inputs)
    one = users_per_second(lambda *x: [scripted(*(y[i : i + 1] for y in x)) for i in range(len(x[0]))], few)
    loop = users_per_second(lambda *x: by_autograd(metacf, *x), few)
    return {"batch": batch, "one_by_one": one, "autograd_loop": loop, "batch_over_loop": batch / loop}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 4096), ("records", 3), ("steps", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rates = measure(args.users, args.records, args.steps)
    print(json.dumps({name: round(value, 1) for name, value in rates.items()}, indent=1))


if __name__ == "__main__":
    main()
