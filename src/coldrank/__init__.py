"""A TorchRec ranking model for the users and items that a system knows least about."""
