"""The tables of the warm-up experiments: AUC in percent, mean over seeds, and the difference to DropoutNet."""

import numpy as np

from coldrank.analysis.compare.interval import contrast, t_point
from coldrank.experiments.warm_up.experiment import PASSES, PHASES, Json

BASELINE = "DropoutNet"
ONE_SEED = "\nOf one seed: the mean, and intervals of the users alone; an interval over seeds needs more of them."


def tables(results: list[Json]) -> str:
    """Markdown: for each model and protocol, methods x passes down, phases across."""
    return "\n".join(
        _table(model, protocol, [r for r in results if r["model"] == model])
        for model in dict.fromkeys(r["model"] for r in results)
        for protocol in ("fixed", "slides")
    )


def _table(model: str, protocol: str, results: list[Json]) -> str:
    where = {"fixed": "on the test set", "slides": "on the set that is trained on next"}[protocol]
    lines = [
        f"### {model}, {where}\n",
        f"| method | passes | {' | '.join(PHASES)} | seconds |",
        f"|---|---|{'---|' * len(PHASES)}---|",
    ]
    for method in dict.fromkeys(r["method"] for r in results):
        for passes in PASSES:
            ours = _by_seed(results, method, passes)
            if ours:
                rival = _by_seed(results, BASELINE, passes)
                cells = [_cell(ours, rival, protocol, i, method == BASELINE) for i in range(len(PHASES))]
                seconds = np.mean([r["seconds"] + r["prepare_seconds"] for r in ours])
                lines.append(f"| {method} | {passes} | {' | '.join(cells)} | {seconds:.1f} |")
    seeds = {len({r["seed"] for r in results if r["method"] == method}) for method in {r["method"] for r in results}}
    return "\n".join(lines) + ("\n" + ONE_SEED if min(seeds) < 2 else "") + "\n"


def _by_seed(results: list[Json], method: str, passes: int) -> list[Json]:
    chosen = [r for r in results if r["method"] == method and r["passes"] == passes]
    return sorted(chosen, key=lambda r: int(r["seed"]))


def _cell(ours: list[Json], rival: list[Json], protocol: str, phase: int, alone: bool) -> str:
    """A cell of the table.

    Of the baseline: mean and half of its 95% interval over the seeds, where there are two.
    Of others: mean, and the paired difference to the baseline, over draws of users and over seeds.
    """
    aucs = 100 * np.array([r[protocol][phase] for r in ours])
    mean = f"{aucs[:, 0].mean():.2f}"
    if len(aucs) > 1:  # one seed says nothing of how seeds differ
        half = t_point(len(aucs) - 1) * aucs[:, 0].std(ddof=1) / len(aucs) ** 0.5
        mean_and_half = f"{mean} ±{half:.2f}"
    else:
        mean_and_half = mean
    if alone:
        return mean_and_half
    theirs = {r["seed"]: 100 * np.array(r[protocol][phase]) for r in rival}
    both = [i for i, r in enumerate(ours) if r["seed"] in theirs]
    if not both:
        return mean_and_half
    other = np.array([theirs[ours[i]["seed"]] for i in both])
    interval = contrast(aucs[both], other, ours[0]["users"], paired=True)
    if interval is None:
        return mean_and_half
    sign = "▲" if interval.low > 0 else "▼" if interval.high < 0 else ""
    return f"{mean} ({interval.difference:+.2f} ±{(interval.high - interval.low) / 2:.2f}{sign})"
