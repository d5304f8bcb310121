"""The training as a job for torchx: `torchx run train/component.py:ranker --config ... --data ... --out ...`; see
docs/cluster.md."""

# torchx reads the signature's text, and takes these types in their old spelling alone.
# ruff: noqa: UP006, UP035, UP045

import sys
from pathlib import Path
from typing import Dict, List, Optional

import torchx
from torchx.components.dist import ddp, parse_nnodes
from torchx.specs import AppDef


def ranker(
    *args: str,
    config: str,
    data: str,
    out: str,
    j: str = "1x2",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 8192,
    h: Optional[str] = None,
    image: str = torchx.IMAGE,
    env: Optional[Dict[str, str]] = None,
    mounts: Optional[List[str]] = None,
    max_restarts: int = 3,
    max_retries: int = 3,
    rdzv_port: int = 29500,
) -> AppDef:
    """Trains a ranker with sharded tables on many processes; goes on from the last checkpoint whenever it is started
    again.

    Args:
        args: more arguments of `coldrank train`, after `--`, as in `-- --set train.steps=200 seed=2`; torchx takes each
            option once
        config: package.module:arm, or the config.json of a run
        data: folder written by `coldrank prepare`, seen by every host
        out: run folder, in storage that every host shares
        j: hosts x processes per host; on GPUs a process per GPU
        cpu: cores per host
        gpu: GPUs per host
        memMB: memory per host, in MiB
        h: a named resource in place of cpu, gpu and memMB
        image: container image with coldrank installed
        env: more environment variables
        mounts: volumes of the container, as torchx writes them
        max_restarts: how often the processes of a host are started again, by torchrun, when one has died
        max_retries: how often the scheduler starts the job again
        rdzv_port: port of the first host at which the hosts of a job find each other; jobs that share it need two
    """
    command = ["train", "--config", config, "--data", data, "--out", out, *args]
    _check(command)
    # torchx fills templates in: a dollar of the caller's is to stay one.
    command = [word.replace("$", "$$") for word in command]
    processes = parse_nnodes(j)[2]
    defaults = {
        "OMP_NUM_THREADS": str(max(1, cpu // processes)),
        # torchrun's own options, in the form in which it takes them from the environment.
        "PET_MAX_RESTARTS": str(max_restarts),
        # Else torchrun lets ranks that it starts again find the addresses of those that died.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    return ddp(
        *command,
        m="coldrank.train.main",
        name=f"coldrank/{Path(out).name}",
        image=image,
        h=h,
        cpu=cpu,
        gpu=gpu,
        memMB=memMB,
        j=j,
        env=defaults | (env or {}),
        max_retries=max_retries,
        mounts=mounts,
        rdzv_port=rdzv_port,
    )


def _check(command: list[str]) -> None:
    """Ends with one line if the job could not start: a scheduler would put it into its queue again and again."""
    from coldrank.cli.main import parser
    from coldrank.data.batches import DataFolder
    from coldrank.data.errors import UserError
    from coldrank.train.load import load

    # A team's config module lies where the command is called, as with `python -m`.
    sys.path.insert(0, str(Path.cwd()))
    try:
        args = parser().parse_args(command)
        load(args.config, args.set)
        if args.data.exists():  # elsewhere it may be inside a volume that only the job sees
            DataFolder.open(args.data)
    except (UserError, OSError) as error:
        sys.exit(f"ranker: {error}")
