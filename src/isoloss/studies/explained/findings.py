"""What any store says about ability and loss, in sentences, tables and one figure.

The question is that of Du et al., arXiv:2403.15796: is performance a function of the pre-training
loss whatever the model, and do some abilities appear only below a threshold of it? Every sentence
repeats a verdict of a law; none is drawn from a correlation alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from isoloss.errors import BadRequest
from isoloss.steps import steps
from isoloss.store.axis import BITS, Axis, candidates, choose
from isoloss.store.store import Store
from isoloss.studies.explained.figures import ability_figure, threshold_figure
from isoloss.studies.explained.laws import DRAWS, MARGIN, Explained, ask
from isoloss.studies.explained.points import Ability, Reading, read
from isoloss.studies.explained.tables import POINTS, tables
from isoloss.studies.findings import Findings

STUDY = "explained"
TITLE = "What the loss explains"
MOST_SIDE_BY_SIDE, MOST_THRESHOLDS, MOST_ABILITIES = 20, 40, 120
"""Abilities searched for a threshold under all their scores, under one, and asked at all.

With 1,300 checkpoints of 100 runs a search takes about a second a score, all other laws a third
of one together: nobody waits for a page of many abilities for more than about a minute.
"""

_ORDER = ("collapses", "differs", "undetermined", "no signal")
_NAMED = 12
_ALL = 3  # a counted score, the right answer's probability and a Brier score


def explain(store: Store, *, loss: str | Axis | None = None, seed: int = 0) -> Findings:
    """Hold every ability of a store against its loss axis.

    Collections, such as the 57 subjects of MMLU, enter as their mean. Flagged checkpoints and
    those of later stages (posttrain, midtrain, anneal) enter no fit; an ability measured on the
    documents of the loss is refused.

    Args:
        store: measured or imported.
        loss: an axis or ``SUBJECT`` or ``SUBJECT:METRIC``; None takes the one that the study
            names or the only one there is, and where one corpus was read by several tokenizers
            its bits per byte.
        seed: of all draws.

    Returns:
        Answers, tables and a figure; without any loss or ability, why there are none.

    Raises:
        BadRequest: no axis has that name, or several could be meant.

    Reference:
        Du et al., arXiv:2403.15796, section 3, Table 2 and Eq. 3.
    """
    known = candidates(store)
    if not known and loss is None:
        return _nothing("The store holds no loss: there is nothing to hold abilities against.")
    axis = loss if isinstance(loss, Axis) else _axis(store, loss, known)
    reading = read(store, axis)
    if not reading.abilities:
        why = "; ".join(reading.refused.values()) or "No ability stands beside this loss."
        return _nothing(why)
    asked = reading.abilities[:MOST_ABILITIES]
    found = [
        ask(one, thresholds=_searches(place, len(asked)), seed=seed)
        for place, one in enumerate(steps("asking the laws", asked))
    ]
    found.sort(key=lambda one: _ORDER.index(one.verdict))
    title = _title(axis)
    places = threshold_figure(found, loss=title)
    return Findings(
        study=STUDY,
        title=TITLE,
        command=f"isoloss report RUN --loss {axis.name}",
        answers=tuple(_answers(found, reading, axis, known)),
        tables=tables(found),
        figures=(ability_figure(found, loss=title), *([places] if places else [])),
        facts={
            "loss axis": title,
            "kind of the axis": axis.kind,
            "seed": seed,
            "draws of permutations and resamples": DRAWS,
            "margin of equal scores (points)": MARGIN * POINTS,
            "checkpoints in the store": reading.checkpoints,
            "abilities": len(found),
        },
        not_run=tuple(_not_run(reading)),
    )


def _searches(place: int, abilities: int) -> int:
    """Scores of the ability at a place that are searched for a threshold."""
    if abilities <= MOST_SIDE_BY_SIDE:
        return _ALL
    return 1 if place < MOST_THRESHOLDS else 0


def _axis(store: Store, loss: str | None, known: Sequence[Axis]) -> Axis:
    try:
        return choose(store, loss)
    except BadRequest:
        bits = [axis for axis in known if axis.metric == BITS]
        if loss is None and len(bits) == 1 and len({axis.subject for axis in known}) == 1:
            return bits[0]
        raise


def _title(axis: Axis) -> str:
    if axis.kind != "exact":
        return axis.label
    return f"expected loss on the language of {axis.subject} ({axis.unit})"


def _nothing(why: str) -> Findings:
    return Findings(study=STUDY, title=TITLE, not_run=(why,))


def _answers(
    found: Sequence[Explained], reading: Reading, axis: Axis, known: Sequence[Axis]
) -> Iterable[str]:
    yield from _about_curves(found)
    yield from _about_thresholds(found)
    fitted = [loss for one in found for loss in one.ability.main.loss[~one.ability.main.is_later]]
    if fitted:
        yield f"Nothing is known below loss {min(fitted):.3g}: the lowest that was fitted."
    yield from _about_shifts(found)
    if any(one.ability.main.is_read or one.ability.main.loss_stderr.any() for one in found):
        yield (
            "Numbers of a table enter with the error they were read with: that of the loss is "
            "carried through the curve's slope, and a score weighs in the search for thresholds "
            "as many documents as would leave it the same error."
        )
    others = [f"--loss {other.name}" for other in known if other.name != axis.name]
    which = f"The loss is the {axis.kind} axis {axis.name}"
    if others:
        which += f"; the store has others too: {_listed(list(dict.fromkeys(others)))}"
    yield f"{which}."
    if reading.refused:
        yield (
            f"Refused: {_listed(list(reading.refused))}, measured on the documents of the loss "
            "itself."
        )


def _about_curves(found: Sequence[Explained]) -> Iterable[str]:
    groups = _by(found, [one.verdict for one in found])
    total = f"of {len(found)} abilities" if len(found) > 1 else "ability"
    points = f"{MARGIN * POINTS:g} points"
    told = {
        "collapses": f"At equal loss the runs score alike (within ±{points}), and the loss "
        "foretells left-out runs better than every budget that is known, in",
        "differs": "At equal loss the runs do not score alike, so that the loss alone does not "
        "explain the score, in",
        "no signal": "The score hardly moves with the loss (less than 3 standard errors), in",
        "undetermined": "Whether the runs share one curve of the loss, and whether that says more "
        "than a budget does, is undetermined in",
    }
    for verdict, text in told.items():
        if verdict in groups:
            yield f"{text} {len(groups[verdict])} {total}: {_named(groups[verdict])}."


def _about_thresholds(found: Sequence[Explained]) -> Iterable[str]:
    places = [
        f"{one.ability.title} at {law.threshold:.3g} [{law.ci[0]:.3g}, {law.ci[1]:.3g}]"
        for one in found
        if (law := one.main) and law.verdict == "threshold" and law.threshold and law.ci
    ]
    if places:
        yield f"An ability appears at a loss (95% interval): {_listed(places)}."
    groups = _by(found, [one.main.verdict if one.main else None for one in found])
    told = {
        "smooth": "No threshold: the score rises smoothly in",
        "absent": "Not there at any loss measured:",
        "below_baseline": "Scores fall below guessing on the way, so that passing it is no "
        "threshold, in",
        "answers_constant": "Many checkpoints give one answer to all documents, so that the "
        "score says nothing, in",
        "undetermined": "Whether there is a threshold is undetermined in",
    }
    for verdict, text in told.items():
        if verdict in groups:
            yield f"{text} {_named(groups[verdict])}."
    unasked = [one.ability for one in found if one.no_emergence]
    if unasked:
        yield f"No threshold could be looked for (the table says why) in {_named(unasked)}."
    agreed = _by(found, [one.tipping for one in found])
    words = {
        "same": "All scores put the threshold at the same loss in",
        "different": "The scores put the threshold at different losses in",
        "some_metrics_only": "Only some scores show a threshold, so that the metric may have "
        "made it, in",
    }
    for answer, text in words.items():
        if answer in agreed:
            yield f"{text} {_named(agreed[answer])}."


def _about_shifts(found: Sequence[Explained]) -> Iterable[str]:
    known = [
        (one.ability.title, shift)
        for one in found
        for shift in one.shifts
        if math.isfinite(shift.shift.low)
    ]
    moved = [(title, s) for title, s in known if s.shift.low > 0 or s.shift.high < 0]
    moved.sort(key=lambda pair: -abs(pair[1].shift.value))
    if moved:
        told = [
            f"{title}: {s.run} ({s.stage}) {s.shift.value * POINTS:+.1f} points "
            f"[{s.shift.low * POINTS:.1f}, {s.shift.high * POINTS:.1f}]"
            for title, s in moved
        ]
        yield f"Later stages lie off the curve of pre-training at equal loss: {_listed(told)}."
    still = len(known) - len(moved)
    if still:
        yield f"In {still} of {len(known)} comparisons no shift of a later stage is seen."


def _by(found: Sequence[Explained], verdicts: Iterable[str | None]) -> dict[str, list[Ability]]:
    """Abilities by verdict, in the order of the page."""
    groups: dict[str, list[Ability]] = {}
    for one, verdict in zip(found, verdicts, strict=True):
        if verdict is not None:
            groups.setdefault(verdict, []).append(one.ability)
    return groups


def _named(abilities: Sequence[Ability]) -> str:
    """Abilities in a sentence, several settings of one name together."""
    details: dict[str, list[str]] = {}
    for one in abilities:
        details.setdefault(one.name, []).append(one.detail)
    return _listed(
        [f"{name} ({', '.join(told)})" if any(told) else name for name, told in details.items()]
    )


def _not_run(reading: Reading) -> Iterable[str]:
    for title, why in reading.refused.items():
        yield f"{title}: {why}"
    if reading.flagged:
        yield f"{reading.flagged} of {reading.checkpoints} checkpoints are flagged and left out."
    if reading.without_loss:
        yield f"{reading.without_loss} checkpoints have no value on this axis."
    if reading.odd:
        yield f"No score on a known scale: {_listed(list(reading.odd))}."
    if len(reading.abilities) > MOST_ABILITIES:
        yield f"Asked about the first {MOST_ABILITIES} of {len(reading.abilities)} abilities."
    if len(reading.abilities) > MOST_SIDE_BY_SIDE:
        yield (
            f"With more than {MOST_SIDE_BY_SIDE} abilities a threshold is looked for under one "
            f"score each, in the first {MOST_THRESHOLDS}: isoloss fit emergence asks for any other."
        )


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_NAMED])
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED} more")
    return "; ".join(shown)
