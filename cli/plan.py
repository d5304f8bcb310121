"""`coldrank plan`."""

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from coldrank.cli.options import add_set
from coldrank.data.errors import UserError

if TYPE_CHECKING:
    from coldrank.train.distributed.plan import Plan
    from coldrank.train.distributed.request import Cluster, PlanRequest

_UNITS = {"": 1, **{f"{u}{i}b": (1024 if i else 1000) ** n for n, u in enumerate("kmgt", 1) for i in ("", "i")}}

# A plan looks at every rank several times for every table.
_MOST_RANKS = 16_384


class DoesNotFit(UserError):
    """There is no plan for the cluster."""

    exit_code = 1


def add_plan(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "plan",
        help="plan where the tables would lie on a cluster that is not here",
        description="Plans the sharding of an arm's tables for a cluster, which needs not be here: prints where "
        "every table would "
        "lie, the memory of a rank, how even the work is, and how far the largest table could grow. If the model "
        "does not "
        "fit, says why and what would make it fit, and exits with 1.",
    )
    p.add_argument("--config", required=True, help="package.module:arm, or the config.json of a run")
    p.add_argument(
        "--world-size", required=True, type=int, metavar="N", help="ranks: one per GPU, or per process without"
    )
    p.add_argument("--hosts", type=int, default=1, metavar="N", help="hosts, with as many ranks each (default: 1)")
    p.add_argument("--hbm", type=bytes_of, metavar="SIZE", help="memory of each GPU, e.g. 80GiB")
    p.add_argument(
        "--ddr",
        type=bytes_of,
        metavar="SIZE",
        help="memory of each host, e.g. 512GiB: with --hbm, of which tables may take what the GPUs have no room for; "
        "else of hosts without GPUs",
    )
    p.add_argument("--ssd", type=bytes_of, metavar="SIZE", help="with --hbm: SSD of each host for tables, e.g. 10TiB")
    p.add_argument("--batch-size", type=int, metavar="N", help="samples per rank and step (default: the config's)")
    add_set(p)
    p.set_defaults(run=_plan)


def bytes_of(text: str) -> int:
    """80GiB, 80GB, 1.5TiB, or bytes. Raises argparse.ArgumentTypeError."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in _UNITS or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a size as 80GiB, 80GB or 512MiB")
    return int(float(match[1]) * _UNITS[match[2]])


def _plan(args: argparse.Namespace) -> None:
    from coldrank.train.distributed.advice import mending, warnings
    from coldrank.train.distributed.fit import remedies, shortage
    from coldrank.train.distributed.search import make_plan

    request = _request(args)
    if plan := make_plan(request):
        print(_text(plan), flush=True)
        if found := warnings(plan):
            print(f"\n{mending(plan)}", flush=True)
            for warning in found:
                print(f"coldrank plan: warning: {warning}", file=sys.stderr)
        return
    print(f"{request.cluster}: no plan. What would make the model fit, each alone:")
    for remedy in remedies(request):
        print(f"  {remedy}", flush=True)
    raise DoesNotFit(shortage(request))


def _text(plan: "Plan") -> str:
    from coldrank.train.distributed import table
    from coldrank.train.distributed.fit import largest_rows
    from coldrank.train.distributed.memory import size

    request = plan.request
    share = float(plan.memory()["all"].max()) / request.usable
    parts = [
        table.tables(plan),
        table.memory(plan),
        f"usable: {size(request.usable)} of {size(request.cluster.memory)} a rank; the fullest has {share:.1%} of it",
        "\n".join(filter(None, [f(plan) for f in (table.balance, _exchange, table.sequences, table.replicas)])),
    ]
    if largest := largest_rows(request):
        name, rows, now = largest[0].name, largest[1], largest[0].rows
        parts.append(f"the largest table, {name} (dim {largest[0].dim}), still fits with {rows:,} rows (now {now:,})")
    return "\n\n".join(parts)


def _exchange(plan: "Plan") -> str:
    from coldrank.train.distributed import table
    from coldrank.train.distributed.spread import times

    return table.exchange(times(plan))


def _request(args: argparse.Namespace) -> "PlanRequest":
    import torch

    from coldrank.train.checks import validate
    from coldrank.train.distributed.dense import dense_bytes, dense_flops
    from coldrank.train.distributed.refused import cluster_problem
    from coldrank.train.distributed.request import PlanRequest
    from coldrank.train.load import load
    from coldrank.train.task import RankingTask

    config = load(args.config, args.set)
    features = validate(config)
    cluster = _cluster(args)
    batch_size = config.data.rank_batch(args.world_size) if args.batch_size is None else args.batch_size
    if batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: must be above 0")
    task = RankingTask(features, config.model, config.tasks, device=torch.device("meta"))
    request = PlanRequest(
        features=features,
        sharding=config.sharding,
        optimizer=config.optim.tables,
        batch_size=batch_size,
        dense_bytes=dense_bytes(task, features, -(-batch_size // config.train.accumulate)),
        dense_flops=dense_flops(task, features, batch_size),
        cluster=cluster,
        written=config.written_tables,
    )
    if wrong := cluster_problem(request):
        raise UserError(f"{config.name}: {wrong}")
    return request


def _cluster(args: argparse.Namespace) -> "Cluster":
    from coldrank.train.distributed.request import Cluster

    ranks, hosts = args.world_size, args.hosts
    if ranks > _MOST_RANKS:
        raise UserError(f"--world-size {ranks}: should be at most {_MOST_RANKS:,}, whose plan takes a minute or two")
    if ranks < 1 or hosts < 1 or ranks % hosts:
        raise UserError(
            f"--world-size {ranks} --hosts {hosts}: every host must have the same number of ranks, at least one"
        )
    if args.ssd and not args.hbm:
        raise UserError("--ssd: needs --hbm: TorchRec's tables on an SSD are cached in the memory of GPUs")
    if not args.hbm and not args.ddr:
        raise UserError("give --hbm, memory of each GPU, or --ddr, of hosts without GPUs")
    of_rank = lambda of_host: (of_host or 0) * hosts // ranks
    if args.hbm:
        beside = {"host_memory": of_rank(args.ddr), "ssd": of_rank(args.ssd)}
        return Cluster(device="cuda", world_size=ranks, hosts=hosts, memory=args.hbm, **beside)
    return Cluster(device="cpu", world_size=ranks, hosts=hosts, memory=of_rank(args.ddr))
