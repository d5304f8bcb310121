"""Recall and NDCG of PAM's arms with differences to a baseline, over seeds and scored periods, as
analysis/compare/retrieval.py has them.

    python benchmarks/pam_table.py RUNS... [--baseline pf] [--metrics recall@5,recall@5_of_all] [--out table.json]

RUNS: folders of run folders, as `coldrank train --arms ... --seeds ...` leaves them; of runs that have ended.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from coldrank.analysis.compare.retrieval import METRICS, format_retrieval, read_arms_figures, retrieval_rows
from coldrank.data.errors import UserError


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of run folders")
    parser.add_argument("--baseline", default="pf", help="arm to compare with (default: pf)")
    parser.add_argument("--arms", default="", help="of these alone")
    parser.add_argument("--metrics", default=",".join(METRICS), help=f"(default: {','.join(METRICS)})")
    parser.add_argument("--out", type=Path, help="the rows, as JSON")
    args = parser.parse_args()
    ended = sorted(path.parent for folder in args.runs for path in folder.glob("*/summary.json"))
    by_arm, arms = read_arms_figures(ended), [a for a in args.arms.split(",") if a]
    try:
        rows = retrieval_rows(
            {arm: figures for arm, figures in by_arm.items() if not arms or arm in arms},
            args.baseline,
            args.metrics.split(","),
        )
    except UserError as error:
        raise SystemExit(f"{', '.join(map(str, args.runs))}: {error}") from None
    if args.out:
        args.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(format_retrieval(rows))


if __name__ == "__main__":
    main()
