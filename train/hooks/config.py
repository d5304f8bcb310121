"""The settings of the hooks: for each a class, and a field of RunConfig that has the hook's name."""

# Hooks by name, in the order in which a message lists them.
NAMES: tuple[str, ...] = ()
