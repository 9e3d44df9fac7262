"""What a study found, as plain data: the page draws it, the command line prints it.

A finding is kept beside the measurements, in ``RUN/findings/STUDY.json``, with the seeds and the
command that made it. Figures are tidy rows and a description of their axes, never a drawing.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from isoloss.errors import BadStore
from isoloss.shown import Shown, told
from isoloss.store.files import write_text
from isoloss.store.store import Store

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Verdict = Literal["confirmed", "contradicted", "no effect of this size", "undetermined", "not run"]
Value = str | float | int | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One claim beside its evidence.

    Attributes:
        claim: id in claims.toml.
        sentence: what is claimed.
        source: who claims it.
        verdict: by the one rule for all claims.
        statistic: what was estimated, in words.
        unit: of the estimate, the interval and the smallest effect.
        smallest_effect: below it an effect does not matter.
        estimate: None where nothing could be estimated.
        low: lower end of the interval; None where the data allow none.
        high: its upper end.
        level: of the interval.
        n: units of replication, training runs mostly.
        p_value: two-sided; None where the design has none.
        p_holm: the same, corrected for all claims of the study.
        control: what the negative control gave, in words.
        reason: why this verdict.
    """

    claim: str
    sentence: str
    source: str
    verdict: Verdict
    statistic: str
    unit: str
    smallest_effect: float
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    n: int = 0
    p_value: float | None = None
    p_holm: float | None = None
    control: str = ""
    reason: str

    def in_words(self) -> str:
        """Verdict, estimate with its interval and unit, and n."""
        if self.estimate is None:
            return f"{self.verdict}: {self.reason}"
        ends = None if self.low is None or self.high is None else (self.low, self.high)
        return f"{self.verdict}: {told(self.estimate, ends)} {self.unit} (n = {self.n})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduced:
    """A published number beside ours."""

    what: str
    source: str
    published: float
    ours: float

    @property
    def difference(self) -> float:
        """Ours less the published one."""
        return self.ours - self.published


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureAxis:
    """An axis of a figure: a column of its rows."""

    column: str
    title: str
    log: bool = False
    reverse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A straight line across a figure: upright at a value of x, or level at a value of y."""

    along: Literal["x", "y"]
    value: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure as data.

    Attributes:
        id: its anchor, unique in the study.
        title: what it shows.
        note: how to read it, and when not to trust it.
        mark: ``points``, ``lines`` (with points), ``curve`` (a line alone) or ``bars``.
        x: the horizontal axis.
        y: the vertical axis.
        by: column of the colour; None for one colour.
        by_scale: how the numbers of that column lie along one ramp of colours, for many lines in
            an order, such as checkpoints by step; None where it holds names.
        panel: column of the small multiples; None for one panel.
        low: column of the lower end of each y's interval.
        high: column of its upper end.
        hollow: column that is true where a point is drawn hollow.
        rules: lines across every panel.
        rows: tidy: one dictionary a point, in the order of drawing. The column ``layer`` says
            what else a row may be: ``"fit"``, part of a fitted curve, a line without points;
            ``"rule"``, a line of one panel, upright with an x (``x_low`` and ``x_high`` make a
            band), level with a y alone, ``label`` beside it. Points may have ``x_low`` and
            ``x_high`` too, their interval along x.
    """

    id: str
    title: str
    note: str = ""
    mark: Literal["points", "lines", "curve", "bars"] = "points"
    x: FigureAxis
    y: FigureAxis
    by: str | None = None
    by_scale: Literal["log", "linear"] | None = None
    panel: str | None = None
    low: str | None = None
    high: str | None = None
    hollow: str | None = None
    rules: tuple[Rule, ...] = ()
    rows: tuple[Mapping[str, Value], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingsTable:
    """A table of values; None and NaN are shown as unknown.

    Attributes:
        id: its anchor, unique in the study.
        title: its heading.
        columns: headings.
        rows: of as many values.
        note: what stands below.
    """

    id: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRun:
    """A run beside a coloured text.

    Attributes:
        name: of the run.
        x: by column of each axis, where the points of its curves stand.
    """

    name: str
    x: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColouredDocument:
    """A text in pieces; every run gives each piece a class and a curve.

    Attributes:
        title: of the document.
        spans: the pieces in reading order; an empty one is a further part of the character that
            ends the one before.
        kinds: by rule and run, one digit a piece: an index into the text's kinds.
        curves: by run, bytes in base64, a byte a point, piece after piece: so many units of y;
            255 where a value is unknown.
    """

    title: str
    spans: tuple[str, ...]
    kinds: Mapping[str, Mapping[str, str]]
    curves: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColouredText:
    """Documents whose pieces are coloured by class, with a curve behind each.

    Attributes:
        id: its anchor, unique in the study.
        title: what it shows.
        note: how to read it, and when not to trust it.
        kinds: the classes, at most ten; the first is drawn plain.
        x: horizontal axes of the curves, the first one first chosen.
        y: title of their vertical axis.
        unit: of a curve's bytes, in y.
        runs: in the order of choice.
        documents: in the order of choice.
    """

    id: str
    title: str
    note: str = ""
    kinds: tuple[str, ...]
    x: tuple[FigureAxis, ...]
    y: str
    unit: float
    runs: tuple[TextRun, ...]
    documents: tuple[ColouredDocument, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Findings(Shown):
    """Everything a study found.

    Attributes:
        study: its name.
        title: heading of its section.
        scale: tiny, small or paper; empty where there is none.
        command: what makes the same again.
        answers: the findings in sentences, the most important first.
        claims: every claim of the study.
        reproduced: published numbers beside ours.
        tables: further tables.
        figures: in the order of the page.
        coloured: texts whose pieces are coloured by class.
        facts: seeds, seconds, versions and whatever else is needed to judge it.
        not_run: what was left out, and why.
    """

    study: str
    title: str
    scale: str = ""
    command: str = ""
    answers: tuple[str, ...] = ()
    claims: tuple[Finding, ...] = ()
    reproduced: tuple[Reproduced, ...] = ()
    tables: tuple[FindingsTable, ...] = ()
    figures: tuple[Figure, ...] = ()
    coloured: tuple[ColouredText, ...] = ()
    facts: Mapping[str, Value] = field(default_factory=dict)
    not_run: tuple[str, ...] = ()

    def shown_facts(self) -> list[tuple[str, object]]:
        """The answers, every claim with its number and verdict, and what else there is."""
        rows: list[tuple[str, object]] = [("study", f"{self.study} {self.scale}".strip())]
        rows += [("answer", answer) for answer in self.answers]
        rows += [(one.claim, one.in_words()) for one in self.claims]
        rows += [("figures", [one.id for one in self.figures])] if self.figures else []
        rows += [("tables", [one.id for one in self.tables])] if self.tables else []
        return rows + [("not run", why) for why in self.not_run]

    def record(self) -> dict[str, Any]:
        """As one JSON object; NaN and infinity become null."""
        plain: dict[str, Any] = _finite(asdict(self))
        return plain


def save(findings: Findings, store: Store) -> None:
    """Keep what was found beside what was measured; an older finding of the study is replaced."""
    folder = store.path / "findings"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{findings.study}.json", json.dumps(findings.record(), indent=1))


def load(store: Store) -> tuple[Findings, ...]:
    """All findings that a store keeps, by name of the study.

    Raises:
        BadStore: a file is truncated, or is none of ours.
    """
    return tuple(_read(file) for file in sorted((store.path / "findings").glob("*.json")))


@functools.cache
def _reader() -> TypeAdapter[Findings]:
    from pydantic import TypeAdapter

    return TypeAdapter(Findings)


def _read(file: Path) -> Findings:
    from pydantic import ValidationError

    try:
        return _reader().validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise BadStore(
            f"cannot read {file.name}: {first['msg']}{f' at {place}' if place else ''}.",
            asked=str(file),
            remedy=f"delete this file; `isoloss study {file.stem}` writes it anew from what is"
            " measured",
        ) from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
