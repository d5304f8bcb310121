"""The command `coldrank`."""

import argparse
import logging
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from coldrank.data.errors import Preempted, UserError, report


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 only on success. A mistake of the caller is one line on standard error and exit code 2
    (1 if a plan does not fit)."""
    args = parser().parse_args(argv)
    # TorchRec calls by their old names a function of torch.fx and an argument of DDP: noise before the progress bar.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    # Of FBGEMM's kernel for copied tables; that its gradients are right is tested.
    warnings.filterwarnings(
        "ignore", "fbgemm::dense_embedding_codegen_lookup_function: an autograd kernel", UserWarning
    )
    # TorchRec's checkpoints of sharded tables are made of them.
    warnings.filterwarnings("ignore", "Please use DTensor instead", FutureWarning)
    # A team's config module lies where the command is called, as with `python -m`.
    sys.path.insert(0, str(Path.cwd()))
    try:
        args.run(args)
    except Preempted as stop:
        print(f"coldrank {args.command}: {stop}", file=sys.stderr)
        return 128 + signal.SIGTERM  # not 0: the scheduler is to start it again
    except (UserError, OSError) as error:
        report(f"coldrank {args.command}: {error}")
        return error.exit_code if isinstance(error, UserError) else 2
    except KeyboardInterrupt:
        print(f"coldrank {args.command}: stopped", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from coldrank.cli import check as audit_cli
    from coldrank.cli import compare as compare_cli
    from coldrank.cli import explain as explain_cli
    from coldrank.cli import export as export_cli
    from coldrank.cli import plan as plan_cli
    from coldrank.cli import prepare as data_cli
    from coldrank.cli import score as score_cli
    from coldrank.cli import simulate as simulate_cli
    from coldrank.cli import train as train_cli
    from coldrank.cli import tune as tune_cli

    whole = argparse.ArgumentParser(
        prog="coldrank", description="Rank for the users and items that a system knows least about."
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    data_cli.add_prepare(commands)
    simulate_cli.add_simulate(commands)
    audit_cli.add_check(commands)
    train_cli.add_train(commands)
    train_cli.add_evaluate(commands)
    tune_cli.add_tune(commands)
    compare_cli.add_compare(commands)
    explain_cli.add_explain(commands)
    export_cli.add_export(commands)
    score_cli.add_score(commands)
    plan_cli.add_plan(commands)
    return whole


if __name__ == "__main__":
    sys.exit(main())
