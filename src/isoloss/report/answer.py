"""The page's opening: what the store says, question by question, each sentence with its sureness.

Every sentence repeats the verdict of a law or of a claim, or counts what is in the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from isoloss.report import answer_laws
from isoloss.report.answer_words import (
    ABOVE,
    LOWEST,
    MEASURED,
    QUESTIONS,
    RUN_CORPUS,
    RUN_TASKS,
    TROUBLE,
)
from isoloss.report.axes import OPTIMUM_PROBE, XAxis, in_nats
from isoloss.report.data import ReportData
from isoloss.report.section import Sections
from isoloss.report.sentences import MOST, Answer, Code, Sentence, Word, listed
from isoloss.report.sureness import Sureness
from isoloss.report.text import count, counted, estimate, shown
from isoloss.report.words import Best, lowest_losses

TIE_NATS = 0.01
"""Losses closer than this are equal."""

_NAMED_FACTS = 4


def opening(data: ReportData, best: Sequence[Best], told: Sections) -> tuple[Answer, ...]:
    """What the page opens with.

    Args:
        data: of the store.
        best: the best checkpoint of every ability.
        told: what laws and studies found, and where it stands on the page.

    Returns:
        The questions that have an answer, in the order of the page.
    """
    says: Mapping[str, Iterable[Sentence]] = {
        "measured": _measured(data),
        "follows": answer_laws.follows(told, has_loss=data.axes.loss is not None),
        "thresholds": answer_laws.thresholds(told),
        "saturates": answer_laws.saturates(told),
        "lowest": _lowest(data),
        "above": _above(best),
        "next": answer_laws.next_size(told),
        "studies": answer_laws.studies(told),
        "trouble": _trouble(data),
    }
    return tuple(
        Answer(question=QUESTIONS[name], sentences=found)
        for name, sentences in says.items()
        if (found := tuple(sentences))
    )


def _measured(data: ReportData) -> Iterable[Sentence]:
    if not data.runs:
        yield _say(MEASURED["nothing"], "methods", "not asked", command=Code(RUN_CORPUS))
        return
    families = len({run.family for run in data.runs})
    models = len({(run.family, run.model) for run in data.runs})
    yield _say(
        MEASURED["measured"],
        "methods",
        "measured",
        checkpoints=Word(counted(data.checkpoints.height, "checkpoint")),
        runs=Word(counted(len(data.runs), "run")),
        models=Word(counted(models, "model")),
        families=Word(counted(families, "family", "families")),
        cells=Word(counted(data.cells.height, "cell")),
        corpora=Word(counted(len(data.corpora), "corpus", "corpora")),
        tasks=Word(counted(len(data.tasks), "task")),
    )
    sizes = data.checkpoints["params_total"].drop_nulls().unique().sort()
    if sizes.len() > 1:
        yield _say(
            MEASURED["sizes"], "methods", "measured", low=count(sizes[0]), high=count(sizes[-1])
        )
    elif sizes.len():
        yield _say(MEASURED["size"], "methods", "measured", size=count(sizes[0]))
    if not data.abilities.series:
        yield _say(MEASURED["no tasks"], "abilities", "not asked", command=Code(RUN_TASKS))


def _lowest(data: ReportData) -> Iterable[Sentence]:
    axis = data.axes.loss
    if axis is None or axis.source is None:
        return
    losses = lowest_losses(data, axis)
    if losses.is_empty():
        yield _say(LOWEST["none"], "curves", "measured")
        return
    margin = in_nats(axis.source, TIE_NATS)
    first = losses.row(0, named=True)
    tied = [row["name"] for row in losses.iter_rows(named=True)
            if row["value"] <= first["value"] + margin]  # fmt: skip
    sure: Sureness = "estimate \u00b1 se" if first["stderr"] else "measured"
    value = estimate(first["value"], first["stderr"])
    if len(tied) == 1:
        slots: dict[str, str | Sequence[str]] = {"checkpoint": tied[0]}
    else:
        several = Word(counted(len(tied), "checkpoint"))
        slots = {"count": several, "names": listed(tied, at_most=2 * MOST)}
    yield Sentence(
        template=LOWEST["one" if len(tied) == 1 else "tied"],
        slots={**slots, "axis": Word(axis.title), "value": value},
        anchor="curves",
        sure=sure,
        n=losses.height,
        of="checkpoint",
    )
    yield from _about_axis(axis)


def _about_axis(axis: XAxis) -> Iterable[Sentence]:
    if axis.source is not None and axis.source.kind == "proxy":
        yield _say(LOWEST["proxy"], "methods", "measured", command=Code(RUN_CORPUS))
    if axis.source is not None and axis.source.probe == OPTIMUM_PROBE:
        yield _say(LOWEST["exact"], "curves", "measured")


def _above(best: Sequence[Best]) -> Iterable[Sentence]:
    for verdict, template in ABOVE.items():
        found = [one for one in best if one.verdict == verdict]
        if found:
            most = {"most": f"{max(b.checkpoints for b in best):,}"}
            yield _say(
                template,
                "best",
                "not asked" if verdict == "unknown" else "measured",
                count=Word(f"{len(found)} of {len(best)} series"),
                names=listed(_names(found)),
                **(most if verdict == "within luck" else {}),
            )


def _trouble(data: ReportData) -> Iterable[Sentence]:
    flagged, total = int(data.checkpoints["is_flagged"].sum()), data.checkpoints.height
    if data.failures.height:
        first = data.failures.sort("checkpoint", "probe", "subject").row(0, named=True)
        where = f"{first['checkpoint']} {first['probe'] or ''} {first['subject'] or ''}".strip()
        yield _say(
            TROUBLE["failures"],
            "failures",
            "measured",
            count=Word(counted(data.failures.height, "cell")),
            what=shown(f"{where}: {first['reason']}", longest=240),
            remedy=shown(first["remedy"], longest=240),
        )
    if flagged:
        yield _say(
            TROUBLE["flagged"], "flags", "measured", count=Word(f"{flagged} of {total} checkpoints")
        )
    if data.unknown:
        yield _say(
            TROUBLE["unknown"],
            "unknown",
            "measured",
            count=Word(f"{counted(len(data.unknown), 'fact is', 'facts are')}"),
            names=listed(list(data.unknown), at_most=_NAMED_FACTS),
        )
    if not (data.failures.height or flagged or data.unknown):
        yield _say(TROUBLE["fine"], "trouble", "measured")


def _say(template: str, anchor: str, sure: Sureness, **slots: str | Sequence[str]) -> Sentence:
    return Sentence(template=template, slots=slots, anchor=anchor, sure=sure)


def _names(best: Sequence[Best]) -> list[str]:
    """Series by name with their settings; parts of collections are counted instead."""
    details: dict[str, list[str]] = {}
    groups: dict[str, int] = {}
    for one in best:
        if one.series.group:
            groups[one.series.group] = groups.get(one.series.group, 0) + 1
        else:
            details.setdefault(shown(one.series.title), []).append(one.series.detail)
    names = [f"{title} ({', '.join(d)})" if any(d) else title for title, d in details.items()]
    return [*names, *(f"{shown(group)} ({n})" for group, n in groups.items())]
