"""The addresses of the server: pages for people, JSON for programs; GET alone."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from isoloss import __version__
from isoloss.errors import (
    BadRequest,
    BadStore,
    CheckpointMissing,
    IsolossError,
    NonFinite,
    Refused,
    StoreBusy,
    of_reading,
)
from isoloss.report.page import template
from isoloss.report.server import answers, tables
from isoloss.report.server.runs import Runs
from isoloss.report.server.served import Page, Served, problem_of
from isoloss.store import limited_sql

MOST_ROWS = 10_000
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PLAIN = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
_STATUS: dict[type[IsolossError], int] = {
    CheckpointMissing: 404,
    BadRequest: 422,
    Refused: 422,
    NonFinite: 422,
    StoreBusy: 409,
    BadStore: 503,
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.Problem} for status in (401, 403, 404, 409, 421, 422, 500, 503)
}

Limit = Annotated[int, Query(ge=1, le=MOST_ROWS, description="Rows at most.")]
Offset = Annotated[int, Query(ge=0, description="Rows to skip.")]
Word = Annotated[str | None, Query(max_length=2000)]
Name = Annotated[str, Query(max_length=2000, description="As on the page, LABEL@STEP.")]


def _served(
    request: Request, run: Annotated[str, Path(description="Its name, as /api/runs lists it.")]
) -> Served:
    runs: Runs = request.app.state.runs
    return runs.get(run)


Run = Annotated[Served, Depends(_served)]

_pages = APIRouter(tags=["pages"], default_response_class=HTMLResponse)
_data = APIRouter(tags=["data"])
_questions = APIRouter(tags=["questions"])
_turn = threading.Lock()
"""What costs more to answer is answered one at a time."""


def make_app(runs: Runs) -> FastAPI:
    """The application that serves runs; a :class:`~isoloss.report.server.guard.Guard` goes before.

    Args:
        runs: what it serves.
    """
    app = FastAPI(
        title="isoloss",
        version=__version__,
        description="Runs of isoloss while they go on. Every request reads and changes nothing.",
        docs_url=None,
        redoc_url=None,
        responses=_PROBLEMS,
    )
    app.state.runs = runs
    for router in (_pages, _data, _questions):
        app.include_router(router)
    _tell_problems(app)
    return app


@_pages.get("/")
def index(request: Request) -> Response:
    """The runs, side by side; where there is one alone, its page."""
    known = request.app.state.runs.all()
    if len(known) == 1:
        return RedirectResponse(f"/runs/{next(iter(known))}/", status_code=307)
    html = template("runs.html").render(
        version=__version__, runs=[one.status(wait=True) for one in known.values()]
    )
    return HTMLResponse(html, headers={"content-security-policy": _PLAIN})


@_pages.get("/docs")
def docs(request: Request) -> Response:
    """The addresses of the JSON interface."""
    paths = request.app.openapi()["paths"]
    html = template("interface.html").render(version=__version__, paths=paths)
    return HTMLResponse(html, headers={"content-security-policy": _PLAIN})


@_pages.get("/runs/{run}/")
def page(run: Run) -> Response:
    """The page of a run."""
    try:
        made = run.page()
    except IsolossError as error:
        html = template("waiting.html").render(
            version=__version__, title=run.title, problem=problem_of(error)
        )
        return HTMLResponse(html, headers={"content-security-policy": _PLAIN}, status_code=503)
    return _html(made, made.html)


@_pages.get("/runs/{run}/api/words")
def words(run: Run) -> Response:
    """The page without data and scripts, for one that is open."""
    made = run.page()
    return _html(made, made.words)


@_data.get("/api/runs")
def listed(request: Request) -> answers.RunList:
    """Every run and how far it is."""
    return answers.RunList(
        runs=[one.status(wait=True) for one in request.app.state.runs.all().values()]
    )


@_data.get("/runs/{run}/api/status")
def status(run: Run) -> answers.Status:
    """How far a run is, what failed, and the version of its page."""
    return run.status(wait=True)


_AS_IT_WAS: dict[int | str, dict[str, Any]] = {
    200: {"model": answers.PageData},
    304: {"description": "As it was."},
}


@_data.get("/runs/{run}/api/page-data", response_class=Response, responses=_AS_IT_WAS)
def page_data(request: Request, run: Run) -> Response:
    """What the figures of the page are drawn from."""
    made = run.page()
    headers = {"etag": f'"{made.version}"', "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(made.data, media_type="application/json", headers=headers)


@_data.get("/runs/{run}/api/checkpoints")
def checkpoints(run: Run, limit: Limit = 1000, offset: Offset = 0) -> answers.Checkpoints:
    """Checkpoints, as the page has them."""
    return tables.checkpoints(run.page().source, offset=offset, limit=limit)


@_data.get("/runs/{run}/api/measurements")
def measurements(
    run: Run,
    family: Word = None,
    model: Word = None,
    run_name: Annotated[str | None, Query(alias="run", max_length=2000)] = None,
    step: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    probe: Word = None,
    subject: Word = None,
    metric: Word = None,
    limit: Limit = 1000,
    offset: Offset = 0,
) -> answers.Measurements:
    """Measured numbers, joined with their checkpoints."""
    where = {"family": family, "model": model, "run": run_name, "step": step,
             "probe": probe, "subject": subject, "metric": metric}  # fmt: skip
    return tables.measurements(run.store, run.page().source, where, offset=offset, limit=limit)


@_data.get("/runs/{run}/api/failures")
def failures(run: Run, limit: Limit = 1000, offset: Offset = 0) -> answers.Failures:
    """What failed, why, and what to do; the latest first."""
    return tables.failures(run.store, offset=offset, limit=limit)


@_data.get("/runs/{run}/api/figures")
def figures(run: Run) -> answers.Figures:
    """The figures of measurements on the page."""
    return tables.figures(run.page().source)


@_data.get("/runs/{run}/api/figures/{figure}")
def figure(
    run: Run,
    figure: Annotated[str, Path(max_length=100)],
    x: Annotated[str | None, Query(max_length=2000, description="Key of an axis.")] = None,
    metric: Word = None,
) -> answers.FigureData:
    """The points of one figure."""
    return tables.figure(run.page().source, figure, x=x, metric=metric)


@_questions.get("/runs/{run}/api/compare")
def compare(run: Run, a: Name, b: Name) -> answers.Comparison:
    """Two checkpoints, paired by document, on all that both were measured on."""
    data = run.page().source
    with _turn:
        return tables.compare(run.store, data, a, b)


@_questions.get("/runs/{run}/api/sql")
def sql(
    run: Run,
    query: Annotated[str, Query(description="SELECT over the views of the store.")],
    limit: Limit = 1000,
) -> answers.Rows:
    """One SELECT over the views of the store, within ten seconds."""
    found = limited_sql.ask(run.address, query, most=limit)
    return answers.Rows(rows=found.rows, is_cut=found.is_cut)


def _html(page: Page, text: bytes) -> Response:
    return HTMLResponse(
        text,
        headers={"content-security-policy": _POLICY, "cache-control": "no-store",
                 "x-page-version": page.version},
    )  # fmt: skip


def _tell_problems(app: FastAPI) -> None:
    """Errors as JSON in four parts, never as a traceback."""

    def answer(status: int, problem: answers.Problem) -> Response:
        return JSONResponse(problem.model_dump(), status_code=status)

    @app.exception_handler(IsolossError)
    async def ours(_: Request, error: IsolossError) -> Response:
        return answer(_STATUS.get(type(error), 400), problem_of(error))

    @app.exception_handler(RequestValidationError)
    async def unfit(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        told = BadRequest(
            f"{where}: {first['msg']}.", asked=str(first.get("input"))[:200], remedy="see /docs"
        )
        return answer(422, problem_of(told))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        told = BadRequest(
            f"{error.detail}.", asked=f"{request.method} {request.url.path}"[:200],
            remedy="GET alone is answered; see /docs for the addresses",
        )  # fmt: skip
        return answer(error.status_code, problem_of(told))

    @app.exception_handler(OSError)
    @app.exception_handler(pl.exceptions.PolarsError)
    async def damaged(_: Request, error: Exception) -> Response:
        return answer(503, problem_of(of_reading(error)))

    @app.exception_handler(Exception)
    async def ours_to_mend(_: Request, error: Exception) -> Response:
        told = BadRequest(
            f"the server met {type(error).__name__}.", remedy="report it with the address asked"
        )
        return answer(500, problem_of(told))
