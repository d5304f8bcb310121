"""The errors that the commands turn into one line."""

import json
import os
import sys
import time
from pathlib import Path


class UserError(Exception):
    """A mistake of the caller: printed in one line. exit_code: of the command."""

    exit_code = 2


class Preempted(Exception):
    """The run wrote a checkpoint and made way; started again, it goes on from there."""


def report(line: str) -> None:
    """Prints an error to standard error; of the ranks of a host that make the same mistake, once."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        # What torchrun tells of a failed rank in its own report.
        told = {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}
        Path(path).write_text(json.dumps({"message": told}))
    if int(os.environ.get("LOCAL_RANK", "0")):
        # If the first rank made it too, torchrun ends this one before it gets to print.
        time.sleep(_HEAD_START_S)
    print(line, file=sys.stderr)


_HEAD_START_S = 3.0
