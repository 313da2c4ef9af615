"""The application of ``siftline serve``: the page, its API, live updates, metrics and reports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Path,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.types import ASGIApp

from siftline.errors import InputError, IntegrityError, StorageError, storage_error
from siftline.jobs.results import read_manifest
from siftline.jobs.status import BatchStatus, State
from siftline.monitoring.board import Board, Crowded, Posted, Reading
from siftline.monitoring.metrics import Metrics
from siftline.monitoring.page import PAGE, PAGE_POLICY, REPORT_POLICY
from siftline.monitoring.security import Access, Gate
from siftline.monitoring.sse import all_events, job_events
from siftline.storage.layout import OutputFiles

_FAILURES = {
    401: "The bearer token is missing or wrong.",
    404: "There is no such job, or no report of it.",
    421: "The Host header does not name this server.",
    503: "Storage cannot be read, or too many clients listen.",
}
_DETAIL = {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}


def _fails(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": _DETAIL}}
    return {one: {"description": _FAILURES[one], "content": content} for one in (*statuses, 401, 421)}


def _board(request: Request) -> Board:
    board: Board = request.app.state.board
    return board


TheBoard = Annotated[Board, Depends(_board)]


async def _reading(board: TheBoard) -> Reading:
    reading = await board.current()
    if reading.problem is not None:
        raise HTTPException(503, reading.problem)
    return reading


TheReading = Annotated[Reading, Depends(_reading)]


JobId = Annotated[str, Path(pattern="^[0-9a-f]{1,64}$")]


async def _posted(reading: TheReading, job_id: JobId) -> Posted:
    posted = reading.jobs.get(job_id)
    if posted is None:
        raise HTTPException(404, f"no job {job_id} in the checkpoint")
    return posted


async def _place(board: TheBoard) -> AsyncIterator[None]:
    try:
        async with board.place():
            yield
    except Crowded:
        raise HTTPException(503, "as many clients listen as the server has places for") from None


async def _known(request: Request) -> None:
    """Refuse parameters that the path does not have: a misspelt filter would choose everything."""
    known = {one.alias for one in request.scope["route"].dependant.query_params}
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        names = ", ".join(sorted(known)) or "none"
        wrong = [
            {"type": "extra_forbidden", "loc": ("query", name), "msg": f"known: {names}"} for name in unknown
        ]
        raise RequestValidationError(wrong)


TheJob = Annotated[Posted, Depends(_posted)]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID")]
Limit = Annotated[int, Query(ge=1, le=1000)]
public = APIRouter()
api = APIRouter(
    dependencies=[
        Security(HTTPBearer(auto_error=False, description="Only if there is a token.")),
        Depends(_known),
    ]
)


@public.get("/", response_class=HTMLResponse, responses=_fails())
async def page() -> HTMLResponse:
    """Return the page."""
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": PAGE_POLICY})


@public.get("/healthz", responses=_fails())
async def health() -> Literal["ok"]:
    """Return ok, as long as the server answers."""
    return "ok"


@api.get("/jobs", response_model=list[BatchStatus], responses=_fails(503))
async def list_jobs(reading: TheReading, state: State | None = None, limit: Limit = 100) -> Response:
    """Return the jobs, newest first."""
    found = [one.json for one in reading.jobs.values() if state is None or one.status.state == state]
    return Response(f"[{','.join(found[:limit])}]", media_type="application/json")


@api.get("/jobs/{job_id}", response_model=BatchStatus, responses=_fails(404, 503))
async def show_job(job: TheJob) -> Response:
    """Return the status of a job."""
    return Response(job.json, media_type="application/json")


@api.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses=_fails(404, 503),
    dependencies=[Depends(_place)],
)
async def follow_job(
    board: TheBoard, job_id: JobId, job: TheJob, seen: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """Send the status of a job whenever it changes, until it is final."""
    async for event in job_events(board, job_id, seen):
        yield event


@api.get("/events", response_class=EventSourceResponse, responses=_fails(503), dependencies=[Depends(_place)])
async def follow_jobs(
    board: TheBoard, limit: Limit = 200, seen: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """Send the newest jobs, and whatever changes among them."""
    async for event in all_events(board, seen, limit):
        yield event


@api.get("/jobs/{job_id}/report", response_class=HTMLResponse, responses=_fails(404, 503))
def show_report(job_id: JobId, job: TheJob) -> HTMLResponse:
    """Return the report of a job, if it is the one that is published in its output."""
    content = _report(FilePath(job.status.output), job_id) if job.status.output else None
    if content is None:
        raise HTTPException(404, f"no report of job {job_id} in its output")
    return HTMLResponse(content, headers={"Content-Security-Policy": REPORT_POLICY})


def _report(output: FilePath, job_id: str) -> bytes | None:
    try:
        manifest = read_manifest(output)
        if manifest.job_id != job_id:
            return None
        home = OutputFiles(output).publications / FilePath(manifest.publication).name
        return (home / OutputFiles.REPORT).read_bytes()
    except (InputError, IntegrityError, FileNotFoundError):
        return None
    except OSError as error:
        raise storage_error(error, output) from error


@api.get("/metrics", response_class=PlainTextResponse, responses=_fails(503))
def show_metrics(request: Request, reading: TheReading) -> Response:
    """Return the metrics, in Prometheus' text format."""
    metrics: Metrics = request.app.state.metrics
    text = metrics.exposition([posted.status for posted in reading.jobs.values()])
    return Response(text, media_type=Metrics.MEDIA_TYPE)


def _unreadable(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 503)


def make_app(board: Board, access: Access) -> ASGIApp:
    """Return the application that shows a board to those who have access."""
    app = FastAPI(
        title="Siftline", version=version("siftline"), docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.board, app.state.metrics = board, Metrics()
    app.add_exception_handler(StorageError, _unreadable)
    app.include_router(public)
    # The gate checks the token; here it is documented.
    token = [Security(HTTPBearer(auto_error=False))] if access.token is not None else []
    app.include_router(api, dependencies=token)
    return Gate(app, access)
