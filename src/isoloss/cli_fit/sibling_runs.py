"""Saturation of the runs of a table: each alone, with pooled errors, or against one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoloss.errors import BadRequest, nearest_name
from isoloss.steps import steps

if TYPE_CHECKING:
    from isoloss.laws.run_saturation import Saturation
    from isoloss.laws.sibling_runs import SiblingGap
    from isoloss.store.plain_tables import Rows

_SHOWN = 8


def judge_runs(
    by_run: Mapping[str, tuple[Any, Any]], *, siblings: bool, sibling: str | None, **options: Any
) -> Mapping[str, Saturation | SiblingGap]:
    """The verdict on every run.

    Args:
        by_run: tokens and losses of each.
        siblings: the correlation of checkpoints is pooled over the runs.
        sibling: the run that all others are differenced with; None for no differences.
        options: of the law.

    Raises:
        BadRequest: both at once, a single run, or no run of this name.
    """
    import numpy as np

    from isoloss.laws import saturation, sibling_gap, sibling_saturation

    _check(siblings, sibling, by_run)
    if siblings:
        names = np.repeat(list(by_run), [len(tokens) for tokens, _ in by_run.values()])
        tokens, losses = (np.concatenate(column) for column in zip(*by_run.values(), strict=True))
        return sibling_saturation(names, tokens, losses, **options)
    if sibling is not None:
        other = by_run[sibling]
        return {
            run: sibling_gap(*own, *other, **options)
            for run, own in by_run.items()
            if run != sibling
        }
    each = steps("judging runs", by_run.items())
    return {run: saturation(*own, **options) for run, own in each}


def _check(siblings: bool, sibling: str | None, by_run: Mapping[str, object]) -> None:
    if siblings and sibling is not None:
        raise BadRequest(
            "--siblings pools errors, --sibling takes differences: one at a time.",
            asked=f"--siblings --sibling {sibling}",
            remedy="leave one of them out",
        )
    if (siblings or sibling is not None) and len(by_run) < 2:
        raise BadRequest(
            "siblings are several runs of one table.",
            asked="a table of one run",
            remedy="name the runs with --run COL",
        )
    if sibling is not None and sibling not in by_run:
        raise BadRequest(
            "no run of the table has this name.",
            asked=f"--sibling {sibling}",
            nearest=nearest_name(sibling, by_run),
            remedy=f"one of {', '.join(list(by_run)[:_SHOWN])}",
        )


def runs_of(rows: Rows) -> dict[str, tuple[Any, Any]]:
    """Tokens and losses of each run, in the order the table has them."""
    import numpy as np

    tokens, loss = rows.values["tokens"], rows.values["loss"]
    if rows.run is None:
        return {"": (tokens, loss)}
    places: dict[str, list[int]] = {}
    for place, label in enumerate(rows.run):
        places.setdefault(label, []).append(place)
    return {label: (tokens[np.array(at)], loss[np.array(at)]) for label, at in places.items()}
