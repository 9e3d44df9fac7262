"""A query that somebody sent, in a process of its own: read-only, and ended when it takes too much.

A query cannot be stopped inside of the process that answers it, and one that joins a table with
itself a few times would take all memory. What a query may name are the store's own views: Polars'
functions that read files would open any file of this machine.
"""

from __future__ import annotations

import json
import math
import re
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

from isoloss import errors
from isoloss.errors import BadRequest, of_reading
from isoloss.store.sql import VIEWS, query
from isoloss.store.store import Store

SECONDS = 10.0
BYTES = 4 << 30
MOST_ROWS = 10_000
_LONGEST = 20_000  # characters of a query
_READS = re.compile(r"\A[\s(]*(select|with)\b", re.IGNORECASE)
# anywhere, in quotes too: no view and no column has such a name
_FILES = re.compile(r"(read|scan)_\w", re.IGNORECASE)
_one_at_a_time = threading.Lock()


class Answer(NamedTuple):
    """What a query found.

    Attributes:
        rows: as objects; numbers that are not finite are None.
        is_cut: there are more.
    """

    rows: list[dict[str, Any]]
    is_cut: bool


def ask(store: str | Path, statement: str, *, most: int, seconds: float = SECONDS) -> Answer:
    """Answer one SELECT over the views of a store, within limits of time, memory and rows.

    Args:
        store: its folder or URL.
        statement: as :func:`isoloss.store.sql.query` takes it, but for functions that read files.
        most: rows, at most 10,000.
        seconds: after which it is ended.

    Returns:
        The rows.

    Raises:
        BadRequest: the statement is no such query, or it takes too much.
        IsolossError: what else stands in its way, such as a damaged store.
    """
    check(statement)
    order = json.dumps({"store": str(store), "statement": statement, "most": most})
    with _one_at_a_time:
        try:
            ended = subprocess.run(
                [sys.executable, "-m", __name__],
                input=order, capture_output=True, text=True, timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise _too_much(f"it was not done after {seconds:g} s", statement) from error
    if ended.returncode != 0:
        raise _too_much(f"it needed more than {BYTES >> 30} GiB of memory", statement)
    answer = json.loads(ended.stdout)
    if "problem" in answer:
        told = dict(answer["problem"])
        kind = getattr(errors, told.pop("error"), BadRequest)
        raise kind(told.pop("what"), **told)
    return Answer(**answer)


def check(statement: str) -> None:
    """Stop what is no query of the store's views.

    Raises:
        BadRequest: it is too long, does something else, or reads files.
    """
    remedy = f"ask SELECT ... FROM {', '.join(VIEWS)}"
    if len(statement) > _LONGEST:
        raise BadRequest("the query is too long.", asked=f"{len(statement):,} characters",
                         nearest=f"{_LONGEST:,} characters", remedy=remedy)  # fmt: skip
    if not _READS.match(statement):
        raise BadRequest("only SELECT is answered here.", asked=statement[:200], remedy=remedy)
    if found := _FILES.search(statement):
        raise BadRequest(
            "a query that reaches the server may not read files.",
            asked=statement[max(found.start() - 20, 0) : found.end() + 40],
            nearest=", ".join(VIEWS),
            remedy='ask the store\'s views alone; at a terminal: isoloss sql RUN "..."',
        )


def _too_much(why: str, statement: str) -> BadRequest:
    return BadRequest(
        f"the query was ended: {why}.",
        asked=statement[:200],
        remedy='ask for less: WHERE, LIMIT, fewer joins; or at a terminal: isoloss sql RUN "..."',
    )


def main() -> None:
    """Answer the order on standard input."""
    order = json.load(sys.stdin)
    for what, limit in ((resource.RLIMIT_DATA, BYTES), (resource.RLIMIT_CPU, 120)):
        resource.setrlimit(what, (limit, limit))
    try:
        frame = query(Store(order["store"]), order["statement"], most=order["most"] + 1)
    except BaseException as error:
        told = of_reading(error)
        parts = {part: getattr(told, part) for part in ("what", "asked", "nearest", "remedy")}
        print(json.dumps({"problem": {"error": type(told).__name__, **parts}}))
        return
    rows = frame.head(order["most"]).to_dicts()
    is_cut = frame.height > order["most"]
    print(json.dumps({"rows": plain(rows), "is_cut": is_cut}, default=str))


def plain(value: Any) -> Any:
    """Values as JSON has them: what is not finite is null."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


if __name__ == "__main__":
    main()
