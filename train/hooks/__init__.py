"""Pluggable training methods: `RunConfig.hooks` holds the config of each that is on, in order. docs/hooks.md;
docs/extending.md shows one of a user's own."""
