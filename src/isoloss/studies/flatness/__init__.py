"""Checkpoints of equal loss in any store, and how flat they are."""
