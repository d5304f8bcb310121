"""ID embeddings of cold ids as posterior means: `Posterior` is the config."""

from coldrank.train.hooks.posterior.config import Posterior

__all__ = ["Posterior"]
