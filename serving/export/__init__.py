"""From a run's checkpoint to the files that a serving fleet loads."""
