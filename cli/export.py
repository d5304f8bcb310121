"""`coldrank export`."""

import argparse
from typing import Any

from coldrank.cli.options import data_path, local_path
from coldrank.data.errors import UserError


def add_export(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "export",
        help="write a trained run as one file that a serving fleet loads",
        description="Writes the last checkpoint of a run as a TorchScript file that takes raw values and returns "
        "what each task's head gives, as a probability; it needs torch alone, in Python or C++. The file is held "
        "against the trained model before the folder gets its name. docs/serving.md has the ways to load it.",
    )
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=local_path, dest="run_folder", help="run folder written by `coldrank train`")
    what.add_argument(
        "--verify",
        type=local_path,
        metavar="FOLDER",
        help="write nothing; hold every file of an export folder against its digest in sha256sums.txt",
    )
    p.add_argument("--out", type=local_path, help="new folder for model.pt, signature.json and the rest")
    p.add_argument(
        "--data", type=data_path, help="prepared samples to compare on (default: what the run was trained on)"
    )
    p.add_argument("--split", default="", help="split to compare on (default: the run's evaluation split)")
    p.add_argument(
        "--tables",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="precision of the embedding tables; int8 is row-wise (default: float32)",
    )
    p.add_argument(
        "--format",
        choices=("torchscript", "aoti"),
        default="torchscript",
        help="aoti: an AOTInductor package, machine code for requests of one user; needs a C++ compiler "
        "(default: torchscript)",
    )
    p.add_argument(
        "--candidate",
        action="append",
        default=[],
        metavar="NAME",
        help="input that differs between the candidates of a request, -NAME: one that does not; may be repeated "
        "(default: "
        "inputs of items, and counts and rates of all but the user alone)",
    )
    p.add_argument(
        "--allow-loss",
        action="store_true",
        help="export smaller tables even if they lose over 0.1 points of GAUC or XAUC",
    )
    p.add_argument(
        "--delta",
        type=local_path,
        metavar="BASE",
        help="export folder that is in service; DIR/delta.pt then holds the rows and weights that changed since, "
        "which a loaded "
        "model applies in place",
    )
    p.set_defaults(run=lambda args: _export(args, p))


def _export(args: argparse.Namespace, p: argparse.ArgumentParser) -> None:
    from coldrank.serving.export.digests import verify
    from coldrank.serving.export.write import ExportRequest, export

    if args.verify is not None:
        names = {
            a.dest: a.option_strings[0] for a in p._actions if a.option_strings and a.dest not in ("help", "verify")
        }
        for dest, option in names.items():
            if getattr(args, dest) != p.get_default(dest):
                raise UserError(f"{option}: has no effect with --verify, which writes nothing")
        verify(args.verify)
        print(f"{args.verify}: every file is as it was written")
        return
    if args.out is None:
        raise UserError("--out: is missing; it names the new folder")
    held = export(
        ExportRequest(
            run=args.run_folder,
            out=args.out,
            data=args.data,
            split=args.split,
            tables=args.tables,
            candidate=tuple(args.candidate),
            allow_loss=args.allow_loss,
            delta=args.delta,
            aoti=args.format == "aoti",
        )
    )
    print(
        f"{args.out}: a model of {held['bytes']:,} bytes; on {held['rows']:,} rows its answers differ from the "
        f"trained model's by {held['largest_difference']:.2g} at most"
    )
