"""The command `coldrank` under the name that `torchx run dist.ddp -m coldrank.train.main` starts."""

import sys

from coldrank.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
