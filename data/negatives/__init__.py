"""Sampled negatives: which items, what is known of them, and the rows that they become."""
