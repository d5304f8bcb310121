"""Slurm of two hosts on this machine, with accounting, from Debian's packages.

Its state lies in one folder; its daemons listen on 127.0.0.1 and are ended by their process ids.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

PROGRAMS = (
    "munged",
    "mariadb-install-db",
    "mariadbd",
    "slurmdbd",
    "slurmctld",
    "slurmd",
    "sbatch",
    "scontrol",
    "sacct",
)
_LIMIT_S = 60
# A host has one core, so that the two parts of a job of two hosts do not fit on one; the first part gets the host of
# less weight. Its name is given to torchrun, which has to resolve it. Slurm itself takes any name for that of a host
# `localhost` as long as it knows no other: it is declared last.
_SLURM = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
# A job that is put back into the queue waits for so long before it is started again.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
KillWait=30
StateSaveLocation={folder}/ctld
SlurmctldPidFile={folder}/ctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge/socket
NodeName=second NodeAddr=127.0.0.1 Port={second} CPUs=1 RealMemory=9000 Weight=2
NodeName=localhost NodeAddr=127.0.0.1 Port={first} CPUs=1 RealMemory=9000 Weight=1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_DBD = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=root
StorageLoc=slurm
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def missing() -> str:
    """Why there can be no Slurm here; empty: there can."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    if absent:
        return f"Slurm of Debian (slurmctld slurmd slurmdbd munge mariadb-server) is not installed: no {absent[0]}"
    return "" if os.getuid() == 0 else "Slurm is started by root alone"


def _path() -> str:
    return f"{os.environ['PATH']}{os.pathsep}/usr/sbin"


class Slurm:
    """The cluster, running within `with`. folder: of few characters, as paths of sockets have a limit; nothing is in
    it yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        try:  # what a test that failed has left; the daemons would leave it running
            self.call("scancel", "--state=PENDING", "--user=root")
            self.call("scancel", "--full", "--signal=KILL", "--user=root")
            wait(lambda: not self.call("squeue", "--noheader"), _LIMIT_S)
        finally:
            self._stack.close()

    def call(self, *command: str) -> str:
        """What a command of Slurm prints."""
        ran = subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True, timeout=60)
        return ran.stdout

    def states(self, job: str) -> set[str]:
        """States of the parts of a job, as accounting knows them."""
        return set(self.call("sacct", "--allocations", "--noheader", "--parsable2", "-o", "State", "-j", job).split())

    def _start(self, stack: ExitStack) -> None:
        ports = dict(zip(("ctld", "dbd", "sql", "first", "second"), free_ports(5), strict=True))
        facts = {"folder": self.folder, "host": socket.gethostname().split(".")[0], **ports}
        self.folder.chmod(0o755)  # munge asks for it
        for name in ("munge", "ctld", "spool-localhost", "spool-second"):
            (self.folder / name).mkdir()
        (self.folder / "slurm.conf").write_text(_SLURM.format(**facts))
        for name, secret in (("slurmdbd.conf", _DBD.format(**facts).encode()), ("munge/key", os.urandom(128))):
            (self.folder / name).touch(mode=0o600)
            (self.folder / name).write_bytes(secret)
        start = lambda *command: stack.enter_context(self._daemon(*command))
        munge = self.folder / "munge"
        files = [f"--{n}-file={munge / n}" for n in ("key", "seed", "pid", "log")]
        start("munged", "--foreground", "--force", f"--socket={munge}/socket", *files)
        sql = [f"--datadir={self.folder}/sql", "--user=root"]
        self.call("mariadb-install-db", "--no-defaults", *sql, "--skip-test-db")
        sql += [f"--port={ports['sql']}", f"--socket={self.folder}/sql.socket", "--bind-address=127.0.0.1"]
        start("mariadbd", "--no-defaults", *sql, "--innodb-lock-wait-timeout=900", "--skip-grant-tables")
        wait(lambda: _listens(ports["sql"]), _LIMIT_S)
        start("slurmdbd", "-D")
        wait(lambda: _listens(ports["dbd"]), _LIMIT_S)
        self.call("sacctmgr", "--immediate", "add", "cluster", "test")
        start("slurmctld", "-D", "-c")
        for node in ("localhost", "second"):
            start("slurmd", "-D", "-N", node)
        wait(lambda: self.call("sinfo", "--noheader", "-o", "%T %D").split() == ["idle", "2"], _LIMIT_S)

    @contextmanager
    def _daemon(self, *command: str) -> Iterator[None]:
        with (self.folder / f"{command[0]}.out").open("a") as said:
            process = subprocess.Popen(command, env=self.environment, stdout=said, stderr=said, cwd=self.folder)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait(until: Callable[[], bool], seconds: float) -> None:
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while True:
        with suppress(subprocess.CalledProcessError):  # a daemon that does not answer yet
            if until():
                return
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.2)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 at which nothing listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
