"""The web application: routes, errors, lifespan. What answers a request is `service.py`, who may ask is `gate.py`.

Building it starts nothing; the batcher and the look-out for a newer day run while the server does. Our choice.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from pydantic import StringConstraints
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

import sigma_core
from sigma_core.config import HttpConfig
from sigma_core.serving.holder import Holder
from sigma_core.serving.http.batcher import DeadlineError, QueueFullError
from sigma_core.serving.http.gate import Gate, problem
from sigma_core.serving.http.metrics import Metrics
from sigma_core.serving.http.pages import add_playground
from sigma_core.serving.http.schemas import (
    ERRORS,
    MAX_N,
    About,
    Answer,
    BatchAnswer,
    BatchRequest,
    EventsAnswer,
    EventsRequest,
    ItemList,
    RecommendRequest,
    UserCard,
    UserList,
)
from sigma_core.serving.http.security import KeyRing
from sigma_core.serving.http.service import Service
from sigma_core.serving.http.shown import about, user_card
from sigma_core.serving.runtime import RequestError

LOG = logging.getLogger("sigma.serve")
DESCRIPTION: Final = (
    "Ranked items for a shopper's profile, history and a wish in plain words. Every list says what made it "
    "(`served_by`): the model, the user's prepared list (u2i), or popularity."
)
# `:path` in the routes: an id may hold a slash ("DE-4711/XL"), and %2F is one before routes are compared.
UserIdPath = Annotated[str, Path(min_length=1, max_length=128, examples=["1"])]
ItemIdPath = Annotated[str, Path(min_length=1, max_length=128, examples=["1082185"])]
Count = Annotated[int, Query(ge=1, le=MAX_N)]
SearchWords = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=300),
    Query(examples=["ice cream"]),
]


def create_app(holder: Holder, config: HttpConfig, keys: KeyRing) -> FastAPI:
    """The application over the day that `holder` serves."""
    metrics = Metrics()
    service = Service(holder, config, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        tasks = [asyncio.create_task(_look_out(holder, config.reload_seconds))]
        if holder.store is not None:
            tasks.append(asyncio.create_task(service.keep_current(config.refresh_seconds)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await service.batcher.stop()

    app = FastAPI(
        title="SIGMA",
        version=sigma_core.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # the interactive pages load scripts from elsewhere; the document itself is at /openapi.json
        redoc_url=None,
        responses=ERRORS,
    )
    app.state.service = service
    _add_recommendations(app, service)
    _add_events(app, service)
    _add_items(app, service)
    _add_users(app, service)
    _add_operations(app, service)
    add_playground(app)
    _add_errors(app)
    if config.cors_origins:
        headers = ["content-type", "x-api-key", "authorization", "x-request-id"]
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=headers,
        )
    app.add_middleware(Gate, config=config, keys=keys, metrics=metrics)
    return app


async def _look_out(holder: Holder, seconds: float) -> None:
    """Swap to a newer published day whenever there is one, for ever; a failure is logged and tried again."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await run_in_threadpool(holder.refresh)
        except Exception as error:  # noqa: BLE001 the next round tries again
            LOG.error("looking for a newer day failed: %s", type(error).__name__)


def _add_recommendations(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/recommend",
        tags=["recommend"],
        summary="Ranked items for a user and a wish",
        response_model=Answer,
    )
    async def recommend(wish: RecommendRequest) -> Response:
        return _json(await service.recommend(wish))

    @app.post(
        "/v1/recommend:batch",
        tags=["recommend"],
        summary="Several requests, answered in one go",
        response_model=BatchAnswer,
    )
    async def recommend_batch(batch: BatchRequest) -> Response:
        answers = await asyncio.gather(
            *(service.recommend(wish) for wish in batch.requests), return_exceptions=True
        )
        for number, answer in enumerate(answers):
            if isinstance(answer, RequestError):
                raise RequestError(f"request {number}: {answer}")
            if isinstance(answer, BaseException):
                raise answer
        return _json({"answers": answers})

    @app.get(
        "/v1/users/{user_id:path}/recommendations",
        tags=["recommend"],
        summary="The user's prepared list (U2I)",
        response_model=Answer,
    )
    async def prepared_list(
        user_id: UserIdPath, task: Annotated[str, Query(max_length=64)] = "just_for_you", n: Count = 20
    ) -> Response:
        return _json(service.prepared_list(user_id, task, n))


def _json(answer: dict[str, Any]) -> Response:
    """The answer as it is; that it keeps its schema is tested, not validated each time."""
    return Response(to_json(answer), media_type="application/json")


def _add_events(app: FastAPI, service: Service) -> None:
    @app.post("/v1/events", tags=["events"], summary="What users did", status_code=202)
    async def events(batch: EventsRequest) -> EventsAnswer:
        answer = await run_in_threadpool(service.take, batch)
        if answer is None:
            raise HTTPException(409, "this server stays with one day and takes no events")
        service.wake.set()
        return answer


def _add_items(app: FastAPI, service: Service) -> None:
    @app.get("/v1/items/{item_id:path}/similar", tags=["items"], summary="Items like this one")
    async def similar(item_id: ItemIdPath, n: Count = 10) -> ItemList:
        try:
            return await run_in_threadpool(service.similar, item_id, n)
        except KeyError as error:
            raise HTTPException(404, "no such item in the catalog of the day") from error

    @app.get("/v1/search", tags=["items"], summary="Items whose words mean what the query means")
    async def search(q: SearchWords, n: Count = 10) -> ItemList:
        try:
            return await service.search(q, n)
        except (DeadlineError, QueueFullError) as error:
            raise HTTPException(429, "the encoder is busy; try again") from error


def _add_users(app: FastAPI, service: Service) -> None:
    @app.get("/v1/users", tags=["users"], summary="Known users")
    async def users(
        starts_with: Annotated[str, Query(max_length=128)] = "", n: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> UserList:
        total, known = service.holder.live.users_like(starts_with, n)
        return UserList(total=total, user_ids=known)

    @app.get("/v1/users/{user_id:path}", tags=["users"], summary="What is known of a user")
    async def user(user_id: UserIdPath) -> UserCard:
        card = user_card(service.holder.live, user_id)
        if card is None:
            raise HTTPException(404, "no such user on the day that is served")
        return card


def _add_operations(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["operations"], summary="The process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["operations"], summary="Requests are answered", responses={503: {}})
    async def readyz(response: Response) -> dict[str, str]:
        if not service.ready:
            response.status_code = 503
            return {"status": "starting"}
        return {"status": "ready", "day": service.holder.live.day, "model": service.holder.live.model}

    @app.get("/metrics", tags=["operations"], summary="Figures for Prometheus")
    async def metrics() -> Response:
        holder = service.holder
        text = service.metrics.text(holder.live, service.batcher.waiting, holder.swaps)
        return Response(text, media_type="text/plain; version=0.0.4")

    @app.get("/v1/about", tags=["operations"], summary="What the server answers from")
    async def about_() -> About:
        return about(service.holder.live, service.config.deadline_ms)


def _add_errors(app: FastAPI) -> None:
    """Every error in one form, and none with what the client sent or a stack trace."""

    def answer(request: Request, status: int, code: str, message: str, headers: Any = None) -> JSONResponse:
        content = problem(code, message, getattr(request.state, "request_id", ""))
        return JSONResponse(content, status, headers)

    @app.exception_handler(RequestError)
    async def wrong(request: Request, error: RequestError) -> JSONResponse:
        return answer(request, 422, "request", str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return answer(
                request, 400, "invalid", f"the body is not JSON from character {first['loc'][-1]} on"
            )
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        told = _plain(first["msg"]).removeprefix("Value error, ")
        if where == "body" and "json" not in request.headers.get("content-type", ""):
            told += "; send JSON with content-type: application/json"
        return answer(request, 422, "invalid", f"{_plain(where)}: {told}"[:400])

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        told = str(error.detail)
        if error.status_code in (404, 405) and told in ("Not Found", "Method Not Allowed"):
            told = f"{told}: /openapi.json lists what there is"
        return answer(request, error.status_code, "http", told, error.headers)


def _plain(text: str) -> str:
    """Text that any encoder accepts: a lone surrogate in a key must not turn a 422 into a 500."""
    return text.encode("utf-8", "replace").decode()
