"""Arms against a baseline: `compare.compare` makes the comparison, `cli` the command."""
