"""`coldrank explain`."""

import argparse
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldrank.cli.options import add_data, local_path
from coldrank.data.errors import UserError

if TYPE_CHECKING:
    from coldrank.analysis.explain.pictures import Drawn


def add_explain(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "explain",
        help="show what runs do inside: gates, masked inputs, attention, experts",
        description="Scores rows of a split with a run's last checkpoint and draws its gates by bucket of the "
        "personalization code, how far activations move when inputs are masked, where attention looks and which "
        "experts are used, per cohort. OUT/explain.html has the pictures, explain.json every figure.",
    )
    p.add_argument("run_folder", type=local_path, metavar="RUN", help="run folder written by `coldrank train`")
    p.add_argument("--against", type=local_path, metavar="RUN", help="run to show beside it, such as the baseline")
    add_data(p)
    p.add_argument(
        "--out", required=True, type=local_path, help="new folder for explain.html, explain.json and pictures/"
    )
    p.add_argument("--split", default="test", help="split to draw rows from (default: test)")
    p.add_argument("--rows", type=int, default=20_000, help="rows to draw (default: 20000)")
    p.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    p.add_argument(
        "--mask",
        action="append",
        default=[],
        metavar="NAME",
        help="input to mask: a column, feature or sequence; may be repeated (default: the first id of user, item and "
        "context, and every sequence). What the personalization code reads is always masked",
    )
    p.add_argument(
        "--varied",
        type=local_path,
        metavar="FOLDER",
        help="two-tower runs: folder of runs that differ in one field, whose Recall@5 is drawn by its value",
    )
    p.set_defaults(run=_explain)


def _explain(args: argparse.Namespace) -> None:
    from coldrank.analysis.explain.measure import explain_runs, load_config
    from coldrank.analysis.explain.page import draw_page, submergence
    from coldrank.analysis.explain.towers import explain_towers
    from coldrank.analysis.explain.towers_page import draw_towers, error_sentences
    from coldrank.data.batches import DataFolder
    from coldrank.data.output import check_new
    from coldrank.train.distributed.ranks import process_group

    check_new("--out", args.out)
    if args.rows < 2:
        raise UserError(f"--rows {args.rows}: expected at least 2; 20000 is a good number")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: expected 0 or more")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"WORLD_SIZE={os.environ['WORLD_SIZE']}: explain runs in one process; call it without torchrun")
    data = DataFolder.open(args.data)
    folders = [args.run_folder] if args.against is None else [args.against, args.run_folder]
    towers = [load_config(folder).model.retrieves for folder in folders]
    if len(set(towers)) > 1:
        raise UserError(f"--against {args.against}: one of the runs has the two-tower model, the other a ranker")
    if unfit := [name for name in ("mask" if towers[0] else "varied",) if getattr(args, name)]:
        raise UserError(f"--{unfit[0]}: not for runs of {'the two-tower model' if towers[0] else 'a ranker'}")
    draws = {"split": args.split, "rows": args.rows, "seed": args.seed}
    with process_group() as ranks:
        if towers[0]:
            content = explain_towers(folders, data, ranks, **draws, varied=args.varied)
        else:
            content = explain_runs(folders, data, ranks, **draws, named=args.mask)
    tell, draw = (error_sentences, draw_towers) if towers[0] else (submergence, draw_page)
    write(args.out, content, *draw(content))
    print("\n".join(["", *tell(content["runs"]), "", f"{args.out / 'explain.html'}: pictures and their figures"]))


def write(out: Path, content: dict[str, Any], page: str, drawn: "list[Drawn]") -> None:
    """Writes explain.json, explain.html and pictures/ into the new folder `out`, complete or not at all."""
    from coldrank.analysis.explain.page import read_css, standalone
    from coldrank.data.output import new_folder

    with new_folder(out) as partial:
        (partial / "explain.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        (partial / "explain.html").write_text(page)
        (partial / "pictures").mkdir()
        for picture in drawn:
            file = re.sub(r"[^\w-]", "_", picture.name) + ".svg"
            (partial / "pictures" / file).write_text(standalone(picture, read_css()))
