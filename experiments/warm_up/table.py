"""The tables of the warm-up experiments: AUC in percent, mean over seeds, and the difference to DropoutNet with its interval."""

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
            of = _of(results, method, passes)
            if of:
                rival = _of(results, BASELINE, passes)
                cells = [_cell(of, rival, protocol, i, method == BASELINE) for i in range(len(PHASES))]
                seconds = np.mean([r["seconds"] + r["prepare_seconds"] for r in of])
                lines.append(f"| {method} | {passes} | {' | '.join(cells)} | {seconds:.1f} |")
    seeds = {len({r["seed"] for r in results if r["method"] == method}) for method in {r["method"] for r in results}}
    return "\n".join(lines) + ("\n" + ONE_SEED if min(seeds) < 2 else "") + "\n"


def _of(results: list[Json], method: str, passes: int) -> list[Json]:
    found = [r for r in results if r["method"] == method and r["passes"] == passes]
    return sorted(found, key=lambda r: int(r["seed"]))


def _cell(of: list[Json], rival: list[Json], protocol: str, phase: int, alone: bool) -> str:
    """Of the baseline: mean and half of its 95% interval over the seeds, where there are two. Of others: mean, and the paired
    difference to it, with users drawn again and seeds both counted."""
    ours = 100 * np.array([r[protocol][phase] for r in of])
    mean = f"{ours[:, 0].mean():.2f}"
    if len(ours) > 1:  # one seed says nothing of how seeds differ
        half = t_point(len(ours) - 1) * ours[:, 0].std(ddof=1) / len(ours) ** 0.5
        mean_and_half = f"{mean} ±{half:.2f}"
    else:
        mean_and_half = mean
    if alone:
        return mean_and_half
    theirs = {r["seed"]: 100 * np.array(r[protocol][phase]) for r in rival}
    both = [i for i, r in enumerate(of) if r["seed"] in theirs]
    if not both:
        return mean_and_half
    other = np.array([theirs[of[i]["seed"]] for i in both])
    found = contrast(ours[both], other, of[0]["users"], paired=True)
    if found is None:
        return mean_and_half
    sign = "▲" if found.low > 0 else "▼" if found.high < 0 else ""
    return f"{mean} ({found.difference:+.2f} ±{(found.high - found.low) / 2:.2f}{sign})"
