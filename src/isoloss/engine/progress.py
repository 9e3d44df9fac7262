"""What a run tells while it runs; the command line draws it, a library call stays silent."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the events of a run, in order."""

    def start(self, *, cells: int, finished: int) -> None:
        """``cells`` are to be measured now; ``finished`` stand in the store already."""

    def checkpoint(self, name: str) -> None:
        """The next checkpoint is being loaded."""

    def done(self, label: str) -> None:
        """A cell was measured and written."""

    def failed(self, label: str, reason: str) -> None:
        """A cell could not be measured; the run goes on."""

    def note(self, text: str) -> None:
        """Something worth knowing that is no failure."""

    def stop(self) -> None:
        """The run has ended."""


class Silent:
    """Progress that nobody watches."""

    def start(self, *, cells: int, finished: int) -> None:
        """Say nothing."""

    def checkpoint(self, name: str) -> None:
        """Say nothing."""

    def done(self, label: str) -> None:
        """Say nothing."""

    def failed(self, label: str, reason: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def stop(self) -> None:
        """Say nothing."""
