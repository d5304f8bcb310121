"""A team's own parts for coldrank."""
