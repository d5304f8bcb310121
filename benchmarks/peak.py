"""Peak resident memory of a process."""

import re
from pathlib import Path


def peak_mib() -> float:
    """MiB of resident memory that this program has taken at most.

    getrusage's figure will not do: a program inherits it from the one that started it.
    """
    line = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if not line:
        raise SystemExit("/proc/self/status does not tell the peak memory")
    return int(line[1]) / 1024
