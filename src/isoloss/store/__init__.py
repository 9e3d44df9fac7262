"""The only reader and writer of results."""

from isoloss.store.cell import Cell, Failure, checkpoint_key
from isoloss.store.sql import query
from isoloss.store.store import Store

__all__ = ["Cell", "Failure", "Store", "checkpoint_key", "query"]
