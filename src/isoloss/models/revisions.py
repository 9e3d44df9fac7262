"""Revision names of a hub repository: which training step each one is, and which are wanted.

A pattern is a name with named fields: ``step{step}``, ``stage{stage}-step{step}-tokens{tokens}B``.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from isoloss.errors import BadStudy, CheckpointMissing, nearest_name

_FIELD = re.compile(r"\{(\w*)\}")
_NUMBERS = {"step": r"\d+", "seed": r"\d+", "tokens": r"\d+(?:\.\d+)?"}
_WORDS = {"stage": r"[^/]+?", "variant": r"[^/]+?"}
_MULTIPLIERS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_RANGE = re.compile(r"(\d+)\.\.(\d+)(?::([1-9]\d*))?")
_COUNT = re.compile(r"(log|last):([1-9]\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """What the name of a branch or tag says; a field the pattern lacks is None.

    Attributes:
        name: the branch or tag.
        step: optimizer steps done.
        tokens_seen: training tokens consumed, as exact as the name (OLMo rounds to 1e9).
        stage: the text in the place of ``{stage}``.
        seed: seed of the run.
        variant: data or recipe.
        commit: what the name points to, once listed.
    """

    name: str
    step: int | None = None
    tokens_seen: int | None = None
    stage: str | None = None
    seed: int | None = None
    variant: str | None = None
    commit: str | None = None

    @property
    def trajectory(self) -> tuple[str | None, int | None, str | None]:
        """What tells apart the runs that share one repository."""
        return self.stage, self.seed, self.variant


def parse_revision(pattern: str, name: str) -> Revision | None:
    """Read a revision name, or None where it does not follow the pattern.

    ``{step}`` and ``{seed}`` are integers, ``{tokens}`` is a number that a letter K, M, B or T
    right after it multiplies by 1e3 to 1e12, ``{stage}`` and ``{variant}`` are any text.

    Raises:
        BadStudy: the pattern holds an unknown field, or one twice.

    >>> parse_revision("stage{stage}-step{step}-tokens{tokens}B", "stage1-step1000-tokens5B").step
    1000
    """
    match = _compile(pattern).fullmatch(name)
    if match is None:
        return None
    found = match.groupdict()
    tokens = found.get("tokens")
    return Revision(
        name=name,
        step=_integer(found.get("step")),
        tokens_seen=None if tokens is None else int(Decimal(tokens) * _multiplier(pattern)),
        stage=found.get("stage"),
        seed=_integer(found.get("seed")),
        variant=found.get("variant"),
    )


def revision_name(pattern: str, **fields: int | str) -> str:
    """Write the name of a revision from its fields; tokens are counted, not in the unit.

    Raises:
        BadStudy: a field of the pattern is not given, or the pattern itself is wrong.

    >>> revision_name("stage{stage}-step{step}-tokens{tokens}B", stage=1, step=10, tokens=3 * 10**9)
    'stage1-step10-tokens3B'
    """
    _compile(pattern)
    given = dict(fields)
    if "tokens" in given:
        tokens = Decimal(given["tokens"]) / _multiplier(pattern)
        given["tokens"] = f"{tokens.normalize():f}"
    missing = [name for name in _FIELD.findall(pattern) if name not in given]
    if missing:
        raise BadStudy(
            f"the revision pattern {pattern!r} needs a value for {missing[0]}.",
            asked=", ".join(f"{k}={v}" for k, v in fields.items()) or "no field",
            remedy="list the repository's revisions: isoloss ls REPO",
        )
    return _FIELD.sub(lambda field: str(given[field[1]]), pattern)


def parse_revisions(
    pattern: str, commits: Iterable[tuple[str, str | None]]
) -> tuple[Revision, ...]:
    """The revisions that follow a pattern, by trajectory and step.

    Args:
        pattern: names with fields.
        commits: pairs of a branch or tag and its commit.

    Returns:
        One Revision a matching name, ordered.
    """
    read = [(parse_revision(pattern, name), commit) for name, commit in commits]
    found = [replace(r, commit=commit) for r, commit in read if r is not None]
    return tuple(sorted(found, key=_order))


def choose_revisions(
    revisions: Sequence[Revision], steps: str | Sequence[int], *, what: str
) -> tuple[Revision, ...]:
    """The revisions that a selection of steps names.

    Where several trajectories (stages, seeds, variants) share the repository a textual
    selection applies to each, and a listed step must exist in at least one.

    Args:
        revisions: what there is.
        steps: see :func:`select_steps`.
        what: whose steps these are, for messages, such as ``family 'toy-160m'``.

    Returns:
        The chosen ones, ordered by trajectory and step; all of them where no name has a step.

    Raises:
        CheckpointMissing: nothing is there, or a listed step is not.
    """
    stepped = [r for r in revisions if r.step is not None]
    if not stepped and steps == "all":
        return tuple(revisions)
    if not isinstance(steps, str):
        wanted = set(select_steps(steps, [r.step for r in stepped if r.step is not None], what))
        return tuple(sorted((r for r in stepped if r.step in wanted), key=_order))
    chosen: list[Revision] = []
    for trajectory in sorted({r.trajectory for r in stepped}, key=str) or [(None, None, None)]:
        mine = {r.step: r for r in stepped if r.trajectory == trajectory and r.step is not None}
        chosen += [mine[step] for step in select_steps(steps, list(mine), what)]
    return tuple(sorted(chosen, key=_order))


def select_steps(steps: str | Sequence[int], known: Sequence[int], what: str) -> tuple[int, ...]:
    """The steps a selection names, of those that exist, ascending.

    Args:
        steps: a list; ``all``; ``log:N`` (about N log-spaced, first and last always);
            ``FIRST..LAST:STRIDE`` (those that exist; every one without a stride); ``last:N``.
        known: the steps that exist, in any order.
        what: whose steps these are, for messages.

    Returns:
        The chosen steps.

    Raises:
        BadStudy: the selection cannot be read.
        CheckpointMissing: a listed step does not exist, or nothing is chosen.

    >>> select_steps("0..10:5", [0, 1, 2, 5, 10, 20], "model 'm'")
    (0, 5, 10)
    >>> select_steps("log:4", range(0, 1001), "model 'm'")
    (0, 1, 32, 1000)
    """
    have = sorted(set(known))
    if not isinstance(steps, str):
        missing = next((step for step in steps if step not in set(have)), None)
        if missing is not None:
            raise missing_step(missing, have, what)
        return tuple(sorted(set(steps)))
    chosen = _select_text(steps, have)
    if not chosen:
        raise CheckpointMissing(
            f"{what} has no checkpoint in the steps asked for.",
            asked=f"steps = {steps!r}",
            nearest=f"{have[0]} to {have[-1]}, {len(have)} steps" if have else None,
            remedy='steps = "all", or check the revision pattern: isoloss ls REPO',
        )
    return tuple(chosen)


def missing_step(step: int, known: Sequence[int], what: str) -> CheckpointMissing:
    """The error for a step that does not exist, naming the steps around it."""
    have = sorted(known)
    at = bisect.bisect_left(have, step)
    around = ", ".join(f"step {s}" for s in have[max(at - 1, 0) : at + 1])
    return CheckpointMissing(
        f"{what} has no checkpoint at step {step}.",
        asked=f"step {step}",
        nearest=f"{around}     ({len(have)} steps known)" if have else "no step is known at all",
        remedy=f'drop {step} from the list, or take steps = "all" or "log:20"',
    )


def _select_text(steps: str, have: list[int]) -> list[int]:
    if steps == "all":
        return have
    if match := _RANGE.fullmatch(steps):
        first, last, stride = int(match[1]), int(match[2]), int(match[3] or 1)
        return [s for s in have if first <= s <= last and (s - first) % stride == 0]
    if match := _COUNT.fullmatch(steps):
        count = int(match[2])
        return have[-count:] if match[1] == "last" else _log_spaced(have, count)
    raise BadStudy(
        "the steps cannot be read.",
        asked=f"steps = {steps!r}",
        nearest=nearest_name(steps, ["all", "log:20", "last:3", "0..143000:1000"]),
        remedy="steps are a list, 'all', 'log:20', 'last:3' or '0..143000:1000'",
    )


def _log_spaced(have: list[int], count: int) -> list[int]:
    if len(have) <= max(count, 2):
        return have
    # step 0 has no logarithm: it is taken as the first, and the grid starts at the next
    positive = [s for s in have if s > 0]
    points = count - (have[0] == 0)
    low, high = math.log(positive[0]), math.log(positive[-1])
    logs = [math.log(s) for s in positive]
    chosen = {have[0], have[-1]}
    for i in range(points):
        at = low + (high - low) * i / max(points - 1, 1)
        chosen.add(min(zip(logs, positive, strict=True), key=lambda pair: abs(pair[0] - at))[1])
    return sorted(chosen)


def _compile(pattern: str) -> re.Pattern[str]:
    parts: list[str] = []
    end = 0
    seen: set[str] = set()
    for field in _FIELD.finditer(pattern):
        name = field[1]
        known = _NUMBERS | _WORDS
        if name not in known or name in seen:
            fault = "twice" if name in seen else "but that is no field"
            raise BadStudy(
                f"the revision pattern has {{{name}}}, {fault}.",
                asked=f"revision = {pattern!r}",
                nearest=nearest_name(name, known),
                remedy=f"use each of {', '.join(sorted(known))} at most once",
            )
        seen.add(name)
        parts += [re.escape(pattern[end : field.start()]), f"(?P<{name}>{known[name]})"]
        end = field.end()
    return re.compile("".join([*parts, re.escape(pattern[end:])]))


def _multiplier(pattern: str) -> int:
    after = pattern.partition("{tokens}")[2][:1]
    return _MULTIPLIERS.get(after, 1)


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)


def _order(revision: Revision) -> tuple[str, int, str]:
    step = -1 if revision.step is None else revision.step
    return str(revision.trajectory), step, revision.name
