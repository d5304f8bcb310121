"""The command `coldrank`."""

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from coldrank.cli.benchmark import add_benchmark
from coldrank.cli.check import add_check
from coldrank.cli.compare import add_compare
from coldrank.cli.config import add_config
from coldrank.cli.evaluate import add_evaluate
from coldrank.cli.explain import add_explain
from coldrank.cli.export import add_export
from coldrank.cli.plan import add_plan
from coldrank.cli.prepare import add_prepare
from coldrank.cli.score import add_score
from coldrank.cli.simulate import add_simulate
from coldrank.cli.spec import add_spec
from coldrank.cli.train import add_train
from coldrank.cli.tune import add_tune
from coldrank.data.errors import Preempted, UserError, report


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 only on success. A mistake of the caller is one line on standard error and exit code 2
    (1 if a plan does not fit)."""
    try:
        args = parser().parse_args(argv)
    except UserError as error:
        report(f"coldrank: {error}")
        return error.exit_code
    _silence()
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


def _silence() -> None:
    """Keeps what libraries say of their own insides out of the progress bars."""
    import logging

    # TorchRec calls by their old names a function of torch.fx and an argument of DDP: noise before the progress bar.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    # Of FBGEMM's kernel for copied tables; that its gradients are right is tested.
    warnings.filterwarnings(
        "ignore", "fbgemm::dense_embedding_codegen_lookup_function: an autograd kernel", UserWarning
    )
    # TorchRec's checkpoints of sharded tables are made of them.
    warnings.filterwarnings("ignore", "Please use DTensor instead", FutureWarning)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(
        prog="coldrank", description="Rank for the users and items that a system knows least about."
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_spec(commands)
    add_prepare(commands)
    add_simulate(commands)
    add_check(commands)
    add_train(commands)
    add_evaluate(commands)
    add_tune(commands)
    add_compare(commands)
    add_benchmark(commands)
    add_explain(commands)
    add_export(commands)
    add_score(commands)
    add_plan(commands)
    add_config(commands)
    return whole


if __name__ == "__main__":
    sys.exit(main())
