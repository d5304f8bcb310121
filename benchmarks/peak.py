"""Peak resident memory of a process."""

import re
from pathlib import Path


def peak_mib() -> float:
    """MiB of resident memory that this program has taken at most. Unlike getrusage's figure, which a program inherits from the one
    that started it."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if not found:
        raise SystemExit("/proc/self/status does not tell the peak memory")
    return int(found[1]) / 1024
