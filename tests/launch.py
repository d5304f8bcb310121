"""Programs of Python on one rank or several."""

import os
import subprocess
import sys


def launch(ranks: int, *command: object, device: str = "cpu") -> str:
    """Runs a program alone or, as torchx starts them, on several ranks of this host; what it printed.

    device: cpu hides GPUs.
    """
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--rdzv-backend=c10d"]
    launcher += ["--rdzv-endpoint=localhost:0"]
    arguments = [sys.executable, *(launcher if ranks > 1 else []), *map(str, command)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    # Against ranks that wait for each other for ever; on two busy cores whole runs on four ranks take many minutes.
    done = subprocess.run(arguments, check=False, env=environment, capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
