"""Checkpoints of which nothing is known before they are converted or fetched, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from isoloss.engine.resolve import Resolved
from isoloss.engine.subjects import window_of
from isoloss.errors import BadCheckpoint, IsolossError
from isoloss.family import Foreign, Remote, Source
from isoloss.models.cache import CheckpointCache
from isoloss.models.converted import convert, drop_converted


def is_unknown(point: Resolved) -> bool:
    """Whether a checkpoint must be converted or fetched before its cells are known."""
    return point.description is None and point.error is None


def converted(point: Resolved, cache: CheckpointCache) -> Resolved:
    """A checkpoint with what it is once converted or fetched, or with why it could not be."""
    source = point.checkpoint.source
    assert isinstance(source, Foreign | Remote)
    try:
        return replace(point, description=convert(source, cache))
    except IsolossError as error:
        return replace(point, error=error)


def made_how(point: Resolved) -> str:
    """What is being done to make a checkpoint known, for people."""
    what = "fetching" if isinstance(point.checkpoint.source, Remote) else "converting"
    return f"{what} {point.checkpoint.name}"


def convert_first(
    points: Sequence[Resolved],
    cache: CheckpointCache,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Resolved]:
    """Convert one checkpoint of every model of which none is known yet.

    Its config tells the model's window, which all models of a study share; the other checkpoints
    are converted when their turn comes.

    Args:
        points: of the whole study.
        cache: where the result lies until its cells are done.
        tell: receives the name of each checkpoint that is converted.

    Returns:
        All of them, in order.
    """
    known = {point.checkpoint.run.model for point in points if point.description}
    found = []
    for point in points:
        if is_unknown(point) and (model := point.checkpoint.run.model) not in known:
            tell(made_how(point))
            point = converted(point, cache)
            if point.description:
                known.add(model)
        found.append(point)
    return found


def check_window(point: Resolved, window: int) -> None:
    """Refuse a converted checkpoint that cannot read what the others of its model read.

    Raises:
        BadCheckpoint: its window is shorter than that of the study.
    """
    assert point.description is not None
    if (own := window_of(point.description.config)) < window:
        raise BadCheckpoint(
            "the window of this checkpoint is shorter than that of others of its model.",
            asked=f"{own} tokens, and the study reads {window} at once",
            remedy="list it as a model of its own, or set a context in the study's corpora",
        )


def drop(source: Source, cache: CheckpointCache) -> None:
    """Delete what a checkpoint was converted into, where it was, once its cells are done."""
    if isinstance(source, Foreign):
        drop_converted(source, cache)
