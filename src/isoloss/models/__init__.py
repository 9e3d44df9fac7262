"""Checkpoints found, described, fetched and loaded; the one room that loads transformers models."""
