"""One file per thing measured at one checkpoint."""
