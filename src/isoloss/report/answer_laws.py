"""What laws and studies say, as sentences of the page's opening.

The verdicts are read from the tables that stand on the page, so that no sentence can say another
thing than the table it links to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from isoloss.report.answer_words import (
    CLAIMS,
    FOLLOWS,
    NEXT,
    REPORT,
    RUN_CORPUS,
    SATURATES,
    STUDIES,
    THRESHOLDS,
    TIPPINGS,
)
from isoloss.report.section import Sections
from isoloss.report.sentences import Code, English, Sentence, Word, listed
from isoloss.report.sureness import CLAIM, CURVE, SATURATION, THRESHOLD, TIPPING
from isoloss.report.text import count, shown
from isoloss.studies.explained.findings import STUDY as EXPLAINED
from isoloss.studies.findings import Finding, Findings
from isoloss.studies.forecasts.loss_section import FORECASTS
from isoloss.studies.forecasts.loss_section import STUDY as LOSS
from isoloss.studies.forecasts.loss_turns import TABLE as TURNS

_CLAIMS, _SCORES = 2, 5
_LONG = 300

Row = Mapping[str, Any]


def follows(told: Sections, *, has_loss: bool) -> Iterable[Sentence]:
    """Which abilities follow the loss, which do not, and of which it cannot be told."""
    if not has_loss:
        yield Sentence(
            template=FOLLOWS["no loss"], slots={"command": Code(RUN_CORPUS)}, anchor="abilities",
            sure="not asked",
        )  # fmt: skip
        return
    one = _of(told, EXPLAINED)
    if one is None:
        yield Sentence(
            template=FOLLOWS["no law"], slots={"command": Code(REPORT)}, anchor="abilities",
            sure="not asked",
        )  # fmt: skip
        return
    rows = _rows(one, "correlation")
    if not rows:
        why = English(shown(" ".join(one.not_run), longest=_LONG))
        yield Sentence(
            template=FOLLOWS["nothing"], slots={"why": why}, anchor=EXPLAINED, sure="not asked"
        )
        return
    anchor = told.places[EXPLAINED, "ability-vs-loss"]
    for verdict, group in _by(rows, "one curve?", CURVE).items():
        yield Sentence(
            template=FOLLOWS[verdict],
            slots={
                "count": Word(f"{len(group)} of {len(rows)} abilities"),
                "names": listed([shown(row["ability"]) for row in group]),
            },
            anchor=anchor,
            sure=CURVE[verdict],
            n=max(int(row["runs"]) for row in group),
            interval="90% interval over runs" if verdict in {"collapses", "differs"} else "",
        )


def thresholds(told: Sections) -> Iterable[Sentence]:
    """Where abilities appear, by the score that speaks for each."""
    one = _of(told, EXPLAINED)
    rows = _rows(one, "thresholds") if one is not None else []
    if not rows:
        return
    main = list({row["ability"]: row for row in reversed(rows)}.values())[::-1]
    anchor = told.places[EXPLAINED, "thresholds"]
    for verdict, group in _by(main, "verdict", THRESHOLD).items():
        slots: dict[str, Sequence[str]] = {"names": listed([shown(r["ability"]) for r in group])}
        if verdict == "threshold":
            slots = {"places": listed([_place(row) for row in group])}
        yield Sentence(
            template=THRESHOLDS[verdict],
            slots=slots,
            anchor=anchor,
            sure=THRESHOLD[verdict],
            interval="95% interval over runs" if verdict == "threshold" else "",
        )
    for answer, group in _by(main, "same place under all scores?", TIPPING).items():
        yield Sentence(
            template=TIPPINGS[answer],
            slots={"names": listed([shown(row["ability"]) for row in group])},
            anchor=told.places.get((EXPLAINED, "thresholds-by-score"), anchor),
            sure=TIPPING[answer],
        )
    known = [row["nothing known below loss"] for row in main]
    lowest = [float(value) for value in known if value is not None]
    if lowest:
        yield Sentence(
            template=THRESHOLDS["unknown below"], slots={"loss": f"{min(lowest):.3g}"},
            anchor=anchor, sure="measured",
        )  # fmt: skip


def saturates(told: Sections) -> Iterable[Sentence]:
    """Which runs have stopped improving, since when."""
    one = _of(told, LOSS)
    rows = _rows(one, TURNS) if one is not None else []
    if not rows:
        if _of(told, EXPLAINED) is not None:
            yield Sentence(
                template=SATURATES["no tokens"], slots={}, anchor="curves", sure="not asked"
            )
        return
    anchor = told.places[LOSS, TURNS]
    for verdict, group in _by(rows, "verdict", SATURATION).items():
        names = listed([shown(row["run"]) for row in group])
        slots: dict[str, str | Sequence[str]] = {"names": names}
        if verdict == "saturated":
            slots = {"places": listed([_onset(row) for row in group])}
        if verdict == "undetermined":
            slots["count"] = Word(f"{len(group)} of {len(rows)} runs")
        yield Sentence(
            template=SATURATES[verdict],
            slots=slots,
            anchor=told.places.get((LOSS, "loss-turns-figure"), anchor),
            sure=SATURATION[verdict],
            n=len(group),
            interval={"saturated": "95% confidence set", "undetermined": ""}.get(
                verdict, "95% interval"
            ),
        )


def next_size(told: Sections) -> Iterable[Sentence]:
    """What a larger run of each family would lose and score."""
    one = _of(told, LOSS)
    if one is None:
        return
    rows = _rows(one, FORECASTS)
    interval = "90% interval for one run"
    for family in dict.fromkeys(row["family"] for row in rows):
        loss, *scores = [row for row in rows if row["family"] == family]
        yield Sentence(
            template=NEXT["loss"],
            slots={
                "family": shown(family),
                "params": count(loss["parameters"]),
                "tokens": count(loss["tokens"]),
                "value": _forecast(loss),
            },
            anchor=told.places[LOSS, f"loss-law-{family}"],
            sure="estimate \u00b1 se",
            n=int(loss["runs"]),
            interval=interval,
        )
        if scores:
            places = [f"{row['what']} {_forecast(row)}" for row in scores]
            yield Sentence(
                template=NEXT["scores"],
                slots={"family": shown(family), "places": listed(places, at_most=_SCORES)},
                anchor=told.places[LOSS, f"next-size-{family}"],
                sure="estimate \u00b1 se",
                n=int(loss["runs"]),
                interval=interval,
            )
    if not rows and one.not_run:
        why = English(shown(one.not_run[0], longest=_LONG))
        yield Sentence(
            template=NEXT["none"], slots={"why": why}, anchor=told.places[LOSS, ""],
            sure="not asked",
        )  # fmt: skip


def studies(told: Sections) -> Iterable[Sentence]:
    """The claims of every study by verdict, and the first answer of those that claim nothing."""
    for one in told.found:
        if one.study in {EXPLAINED, LOSS}:
            continue
        title = English(shown(one.title, longest=_LONG))
        for verdict, template in CLAIMS.items():
            group = [claim for claim in one.claims if claim.verdict == verdict]
            if group:
                yield _claims(told, one, title, template, group)
        if not one.claims and one.answers:
            answer = English(shown(one.answers[0], longest=_LONG))
            yield Sentence(
                template=STUDIES["answer"], slots={"study": title, "answer": answer},
                anchor=told.places[one.study, ""], sure="measured",
            )  # fmt: skip


def _claims(
    told: Sections, one: Findings, title: str, template: str, group: Sequence[Finding]
) -> Sentence:
    claims = listed([English(shown(c.sentence, longest=_LONG)) for c in group], at_most=_CLAIMS)
    return Sentence(
        template=template,
        slots={
            "study": title,
            "count": Word(f"{len(group)} of {len(one.claims)} claims"),
            "claims": claims,
        },
        anchor=told.places[one.study, "claims"],
        sure=CLAIM[group[0].verdict],
        n=(min(claim.n for claim in group) or None) if group[0].verdict != "not run" else None,
        of="unit",
        at_least=len(group) > 1,
        interval="Holm within the study" if any(c.p_holm is not None for c in group) else "",
    )


def _of(told: Sections, study: str) -> Findings | None:
    return next((one for one in told.found if one.study == study), None)


def _rows(one: Findings, table: str) -> list[Row]:
    """The rows of a table as dictionaries; none where the study has no such table."""
    for found in one.tables:
        if found.id == table:
            return [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    return []


def _by(rows: Sequence[Row], column: str, order: Mapping[str, object]) -> dict[str, list[Row]]:
    """Rows by verdict, in the order of the rule's table."""
    groups = {verdict: [row for row in rows if row[column] == verdict] for verdict in order}
    return {verdict: group for verdict, group in groups.items() if group}


def _place(row: Row) -> str:
    ends = f" [{row['95% interval']}]" if row["95% interval"] else ""
    return f"{shown(row['ability'])}: {row['threshold (loss)']:.4g}{ends}"


def _onset(row: Row) -> str:
    low, _, high = str(row["95% interval"]).partition(" to ")
    return f"{shown(row['run'])}: {count(row['onset (tokens)'])} [{count(float(low))}, "\
        f"{count(float(high))}]"  # fmt: skip


def _forecast(row: Row) -> str:
    return f"{row['forecast']:.4g} [{row['90% interval']}]"
