"""``isoloss fit``: a law fitted to a plain table, no store needed."""

from isoloss.cli_fit.commands import app

__all__ = ["app"]
