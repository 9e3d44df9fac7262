"""How far long work is: told to whoever watches it, and to nobody where nobody does.

A loop that may take seconds is written ``for one in steps("asking the laws", many)``. The command
line draws a bar of it; called from Python it is silent, unless it is :func:`watched`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

Watch = Callable[[str, int, int], None]
"""Is told what is done, how many of them are behind, and how many there are."""

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(by: Watch) -> Iterator[None]:
    """Tell the steps of everything inside the block to ``by``; an inner block hides an outer one.

    >>> with watched(lambda what, done, of: print(f"{what}: {done} of {of}")):
    ...     list(steps("squares", [1, 2]))
    squares: 0 of 2
    squares: 1 of 2
    squares: 2 of 2
    [1, 2]
    """
    before = _watch.set(by)
    try:
        yield
    finally:
        _watch.reset(before)


def steps(what: str, items: Collection[T]) -> Iterator[T]:
    """The items, one after the other, telling before each how many are behind.

    Args:
        what: what is done with them, such as ``reading files``.
        items: of known number.
    """
    watch = _watch.get()
    for done, item in enumerate(items):
        if watch is not None:
            watch(what, done, len(items))
        yield item
    if watch is not None and len(items):
        watch(what, len(items), len(items))
