"""Pluggable training methods: `RunConfig.hooks` says which are on, and in which order."""
