"""A first look at a log of which nothing is known: what its columns are, by their names and values."""
