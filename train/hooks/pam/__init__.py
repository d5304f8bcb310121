"""PAM: `Pam` is the config."""

from coldrank.train.hooks.pam.pam import Pam

__all__ = ["Pam"]
