"""The command `coldrank`, one file a command.

So that `--help` answers at once, a file imports at its top the standard library, `coldrank.data.errors`, the other
files of this folder and modules of names alone (`analysis.compare.aspects`, `data.kuairand_names`), which load no
library. The rest is imported by the functions that run the command, or for types alone; a test holds it.
"""
