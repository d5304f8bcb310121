"""Which lengths a run may be given when it goes on: one that changes what its steps so far were a part of is
refused."""

from pathlib import Path

from coldrank.data.errors import UserError
from coldrank.train.config import RunConfig
from coldrank.train.progress import Progress


def check_length(folder: Path, before: RunConfig, now: RunConfig, progress: Progress, end: int) -> None:
    """Raises UserError for a length with which a run cannot go on as it began. end: the step at which it would end now.

    Rates that decay do so over the whole run: with another end they would jump. Which passes are those of new users
    alone follows from the number of epochs. And a model of more steps is not one of fewer.
    """
    if end < progress.step:
        raise UserError(
            f"{folder}: is at step {progress.step} already, and {_said(now)} ends at step {end}; --fresh starts over"
        )
    changed = _length(before) != _length(now)
    text = f"{_said(before)} -> {_said(now)}"
    if changed and (decays := _decays(now)):
        raise UserError(
            f"{folder}: {text}: {decays} is over the whole run, and the rates would jump; --fresh starts over, and "
            f"train.warm_start={folder} with a new --out begins another run with these weights"
        )
    epochs = (before.train.epochs, now.train.epochs)
    if now.train.cold_passes and epochs[0] != epochs[1] and progress.epoch >= min(epochs):
        raise UserError(
            f"{folder}: train.epochs: {epochs[0]} -> {epochs[1]}: the run is in pass {progress.epoch + 1}, and whether "
            "that is over new users alone would change; --fresh starts over"
        )


def _length(config: RunConfig) -> tuple[int, int]:
    """Of two configs equal where the runs end alike."""
    return config.train.steps, 0 if config.train.steps else config.train.epochs


def _said(config: RunConfig) -> str:
    return f"train.steps={config.train.steps}" if config.train.steps else f"train.epochs={config.train.epochs}"


def _decays(config: RunConfig) -> str:
    """The setting by which rates decay; empty where they don't."""
    decays = config.optim.decays()
    return next((f"{name}={value!r}" for name, value in decays.items() if value != "constant"), "")
