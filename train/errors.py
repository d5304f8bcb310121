"""The error that the commands turn into one line."""


class UserError(Exception):
    """A mistake of the caller: printed in one line."""
