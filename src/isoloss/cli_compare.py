"""The compare command: two checkpoints, two runs at equal loss, or the recipes of a family."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isoloss.cli_words import OUTPUT, Json, RunFolder, checkpoints, one_of, quantity, tasks
from isoloss.console import Terminal, plain, print_table
from isoloss.errors import BadRequest, nearest_name

if TYPE_CHECKING:
    from isoloss.studies.comparison.comparing import Comparison
    from isoloss.studies.comparison.corpora import LossDifference
    from isoloss.studies.comparison.equal_loss import EqualLosses
    from isoloss.studies.comparison.paired import Difference
    from isoloss.studies.comparison.recipe_result import Recipes

EQUAL_LOSS, VARIANT = "equal-loss", "variant"


def compare(
    store: RunFolder,
    a: Annotated[
        str | None,
        typer.Argument(
            metavar="[A]",
            help="Run or model, NAME@STEP; its last checkpoint without @.",
            autocompletion=checkpoints,
        ),
    ] = None,
    b: Annotated[
        str | None,
        typer.Argument(metavar="[B]", help="What A is held against.", autocompletion=checkpoints),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Only these tasks.", autocompletion=tasks)
    ] = None,
    corpus: Annotated[list[str] | None, typer.Option(help="Only these corpora.")] = None,
    metric: Annotated[str | None, typer.Option(help="Such as accuracy_per_char.")] = None,
    num_fewshot: Annotated[int | None, typer.Option(help="Examples in every prompt.")] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar=EQUAL_LOSS,
            help="Runs A and B where losses are equal.",
            autocompletion=one_of(EQUAL_LOSS),
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar=VARIANT,
            help="The recipes of a family; no A, no B.",
            autocompletion=one_of(VARIANT),
        ),
    ] = None,
    loss: Annotated[
        str | None, typer.Option(metavar="SUBJECT:METRIC", help="The loss axis, where several.")
    ] = None,
    family: Annotated[str | None, typer.Option(help="With --by, where several.")] = None,
    params: Annotated[
        float | None,
        typer.Option(
            parser=quantity,
            metavar="N",
            help="With --by: parameters of the target; the largest here if left out.",
        ),
    ] = None,
    tokens: Annotated[
        float | None,
        typer.Option(
            parser=quantity,
            metavar="D",
            help="With --by: training tokens of the target; ten times the compute if left out.",
        ),
    ] = None,
    level: Annotated[float, typer.Option(help="Coverage of all intervals.")] = 0.95,
    as_json: Json = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", help="Only the tables: no notes.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Compare two checkpoints on the same documents, runs at equal loss, or recipes.

    Examples:
    - `isoloss compare RUN small@1000 small@2000`
    - `isoloss compare RUN small large --at equal-loss --task arc_easy`
    - `isoloss compare RUN --by variant --task arc_easy --params 7e9 --tokens 3e11`
    """
    from isoloss.store import Store
    from isoloss.studies.comparison.comparing import as_record, check_level
    from isoloss.studies.comparison.comparing import compare as compare_two
    from isoloss.studies.comparison.equal_loss import equal_losses
    from isoloss.studies.comparison.recipes import compare_recipes

    check_level(level)
    _check(a, b, at, by, corpus, target=params or tokens, family=family, task=task)
    results = Store(store)
    lines: Any
    with Terminal(quiet=quiet, doing=f"comparing in {store}"):
        if by is not None:
            found: Any = compare_recipes(
                results, task=next(iter(task or ()), None), metric=metric, num_fewshot=num_fewshot,
                loss=loss, family=family, params=params, tokens=tokens, seed=0,
            )  # fmt: skip
            lines = _print_recipes
        elif at is not None:
            found = equal_losses(
                results, a or "", b or "", tasks=task or (), metric=metric, num_fewshot=num_fewshot,
                loss=loss, level=level, seed=0,
            )  # fmt: skip
            lines = _print_equal_losses
        else:
            found = compare_two(
                results, a or "", b or "", tasks=task or (), corpora=corpus or (), metric=metric,
                num_fewshot=num_fewshot, level=level,
            )  # fmt: skip
            lines = _print_comparison
    if as_json:
        print(json.dumps(as_record(found)))
        return
    lines(found)
    if not quiet:
        for note in found.notes:
            print(f"note: {plain(note)}")


def _check(
    a: str | None, b: str | None, at: str | None, by: str | None, corpus: Sequence[str] | None,
    *, target: float | None, family: str | None, task: Sequence[str] | None,
) -> None:  # fmt: skip
    for option, value, known in (("--at", at, EQUAL_LOSS), ("--by", by, VARIANT)):
        if value not in (None, known):
            raise BadRequest(
                f"{option} takes one word.", asked=f"{option} {value}",
                nearest=nearest_name(value or "", [known]) or known, remedy=f"{option} {known}",
            )  # fmt: skip
    if by is not None and (a is not None or at is not None or corpus):
        raise BadRequest(
            "--by variant compares the recipes of a family: it takes no A, no B and no corpus.",
            asked=" ".join(filter(None, [a, b, at and f"--at {at}", *(corpus or ())])),
            remedy="isoloss compare RUN --by variant --task TASK",
        )
    if by is not None and len(task or ()) > 1:
        raise BadRequest(
            "recipes are ranked by one task.", asked=", ".join(task or ()),
            remedy="--task with one of these, or none to rank by the loss",
        )  # fmt: skip
    if by is None and (a is None or b is None):
        raise BadRequest(
            "compare needs two names.", asked=a or "none",
            remedy="isoloss compare RUN A B, such as small@1000 small@2000; or --by variant",
        )  # fmt: skip
    if by is None and (target is not None or family is not None):
        raise BadRequest(
            "--params, --tokens and --family belong to --by variant.",
            asked=f"{a} {b}", remedy="leave them out; a run of one family is FAMILY/RUN",
        )  # fmt: skip
    if at is not None and corpus:
        raise BadRequest(
            "at equal loss the losses do not differ.", asked=f"--corpus {corpus[0]}",
            remedy=f"--loss {corpus[0]} to say on which text they are equal",
        )  # fmt: skip


def _print_comparison(found: Comparison) -> None:
    print(f"A = {plain(found.a.name)}, B = {plain(found.b.name)}; differences are B less A\n")
    if found.tasks:
        rows = [
            {"task": one.task, "metric": one.metric, "asked": one.setting,
             **_columns(one.difference), "p (Holm)": _p(one.p_holm),
             "A alone right": one.difference.only_a, "B alone right": one.difference.only_b,
             "detectable": _number(one.difference.detectable)}
            for one in found.tasks
        ]  # fmt: skip
        print_table(rows, title="Tasks, the same documents")
    for corpus in found.corpora:
        _print_corpus(corpus)
    for task in found.tasks:
        for note in task.notes:
            print(f"{plain(task.task)}: {plain(note)}")


def _print_corpus(found: LossDifference) -> None:
    units = (("nats/token", found.nats_per_token), ("bits/byte", found.bits_per_byte))
    rows = [
        {"unit": unit, **_columns(one), "p": _p(one.p_value), "detectable": _number(one.detectable)}
        for unit, one in units
        if one is not None
    ]
    print()
    print_table(rows, title=f"Loss on {plain(found.corpus)} ({found.reading}; by {found.blocks})")
    if found.kinds:
        kinds = [
            {"trait": one.trait, "kind": one.kind, "tokens": one.tokens,
             "share of difference": _number(one.share_of_difference), **_columns(one.difference)}
            for one in found.kinds
        ]  # fmt: skip
        print()
        print_table(kinds, title="By kind of token, nats/token")
    if found.moved:
        moved = [
            {"document": one.document, "tokens": one.tokens, "bytes": one.bytes,
             "A": _number(one.a), "B": _number(one.b), "B - A": _number(one.b - one.a),
             "begins": None if one.text is None else one.text[:60]}
            for one in found.moved
        ]  # fmt: skip
        print()
        unit = "bits/byte" if found.nats_per_token is None else "nats/token"
        print_table(moved, title=f"Documents that moved most, {unit}")
    for note in found.notes:
        print(f"{plain(found.corpus)}: {plain(note)}")


def _print_equal_losses(found: EqualLosses) -> None:
    print(f"A = {plain(found.a)}, B = {plain(found.b)}; differences are B less A")
    print(f"at equal {plain(found.axis)}\n")
    rows = []
    for one in found.found:
        got = one.residual
        for at in (got.mean, *got.at):
            where = "lower half" if at.loss is None else f"{at.loss:.4g}"
            rows.append(
                {"task": one.task, "metric": one.metric, "loss": where, "A": _number(at.a),
                 "B": _number(at.b), "B - A": _number(at.difference),
                 "stderr": _number(at.stderr), f"{got.level:.0%} interval": _ends(at.low, at.high),
                 "p (Holm)": _p(one.p_holm) if at.loss is None else None,
                 "n": got.documents or None}
            )  # fmt: skip
    print_table(rows)
    told = {line: None for one in found.found for line in one.residual.not_covered}
    for line in told:
        print(f"not in the interval: {plain(line)}")
    for line in found.skipped:
        print(f"skipped: {plain(line)}")


def _print_recipes(found: Recipes) -> None:
    what = found.ability or found.axis
    print(f"recipes by {plain(what)}\n")
    scale = None
    for one in found.ranked:
        if (one.params, one.tokens) == scale:
            continue
        scale = (one.params, one.tokens)
        rows = [
            {"rank": r.rank, "recipe": r.recipe, "runs": r.runs, "score": _number(r.score),
             "loss": _number(r.loss), "stderr": _number(r.stderr),
             "at equal loss": _number(r.residual), "its stderr": _number(r.residual_stderr)}
            for r in found.ranked
            if (r.params, r.tokens) == scale
        ]  # fmt: skip
        print_table(rows, title=f"{one.params:.4g} parameters, {one.tokens:.4g} tokens")
        print()
    target = found.target
    rows = [
        {"recipe": one.recipe, "best": _number(one.best),
         "ahead of the next": _number(one.next_holds), "law forecasts": _number(one.law_value),
         "best by law": _number(one.law_best)}
        for one in found.chances
    ]  # fmt: skip
    print_table(
        rows, title=f"Chances at {target.params:.4g} parameters, {target.tokens:.4g} tokens"
    )
    if found.order_holds is not None:
        print(f"the whole order holds with chance {found.order_holds:.2f}")
    if found.backtest:
        rows = [
            {"scale": f"{one.params:.4g} parameters, {one.tokens:.4g} tokens",
             "decides": f"{one.by} for {one.about}", "pairs": one.decision.pairs,
             "accuracy": _number(one.decision.accuracy),
             "95% interval": _ends(one.decision.low, one.decision.high),
             "expected": _number(one.decision.expected), "clear pairs": one.decision.clear,
             "accuracy on them": _number(one.decision.clear_accuracy)}
            for one in found.backtest
        ]  # fmt: skip
        print()
        print_table(rows, title="Back-test: decisions for the largest scale")


def _columns(one: Difference) -> dict[str, Any]:
    return {
        "A": _number(one.a),
        "B": _number(one.b),
        "B - A": _number(one.difference),
        "stderr": _number(one.stderr),
        f"{one.level:.0%} interval": _ends(one.low, one.high),
        "n": one.n,
    }


def _ends(low: float | None, high: float | None) -> str | None:
    if low is None or high is None or low != low:
        return None
    return f"{low:+.4g} to {high:+.4g}"


def _number(value: float | None) -> float | None:
    """Four digits; unknown is a dash in the table."""
    return None if value is None or value != value else float(f"{value:.4g}")


def _p(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g}"
