"""A short-video log whose true probabilities are known: `simulate.simulate` writes it, `cli` the command."""
