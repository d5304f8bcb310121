"""Checks of samples before training: `audit.audit` makes them, `cli` the command."""
