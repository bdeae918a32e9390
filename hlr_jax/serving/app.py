"""The application: what it is asked, what it answers, and what it refuses."""

import dataclasses
from typing import Annotated, Any

import numpy as np
import polars as pl
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

import hlr_jax
from hlr_jax.errors import InputError
from hlr_jax.runs.recommender import Recommender
from hlr_jax.runs.verbs import Verbs
from hlr_jax.serving.batching import Batcher
from hlr_jax.serving.guard import Guard
from hlr_jax.serving.measures import Measures

# As JSON has them: 1.5 and true are none.
Id = StrictInt | StrictStr


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
      users: of a request, and of a batch that is answered together.
      k: items of a list.
      ids: of items that a request names.
      bytes: of a request's body.
      seconds: that a body may take to come.
    """

    users: int = 1000
    k: int = 1000
    ids: int = 10_000
    bytes: int = 2**20
    seconds: float = 10.0


def make_app(recommender: Verbs, limits: Limits | None = None) -> FastAPI:
    """Make a service of a trained model or a baseline."""
    limits = limits or Limits()
    most = min(limits.k, recommender.dataset.num_items)
    columns, of_all = zip(
        *((name, values.tolist()) for name, values in recommender.dataset.item_names().items()),
        strict=True,
    )
    Items = Annotated[list[Id], Field(max_length=limits.ids)]
    Count = Annotated[int, Field(ge=1, le=most)]

    class Wanted(BaseModel):
        model_config = ConfigDict(extra="forbid")
        k: Count = min(10, most)
        items: Items | None = None
        exclude: Items | None = None
        filter_seen: bool = True
        unknown: str = Field("error", pattern="^(error|popular)$")

        @property
        def filters(self) -> dict[str, Any]:
            given = self.model_dump(include={"items", "exclude", "filter_seen"})
            return {name: value for name, value in given.items() if value is not None}

    class ForUsers(Wanted):
        users: Annotated[list[Id], Field(min_length=1, max_length=limits.users)]

    class ForHistory(Wanted):
        history: Annotated[list[Id], Field(min_length=1, max_length=limits.ids)]

    class Pair(BaseModel):
        model_config = ConfigDict(extra="forbid")
        user: Id
        item: Id
        k: Annotated[int, Field(ge=1, le=1000)] = 10

    names = [dict(zip(columns, values, strict=True)) for values in zip(*of_all, strict=True)]

    def lists(rows: list[int], k: int) -> list[list[Any]]:
        found = recommender.best_of_known(np.array(rows, np.int32), k)
        users = zip(*(x.tolist() for x in found), strict=True)
        return [
            [
                names[item] | {"score": score}
                for item, score in zip(*of_user, strict=True)
                if item >= 0
            ]
            for of_user in users
        ]

    measures = Measures()
    batcher = Batcher(lists, limits.users)
    app = FastAPI(title="hlr_jax", version=hlr_jax.__version__, description=repr(recommender))
    app.add_middleware(Guard, measures=measures, most=limits.bytes, seconds=limits.seconds)

    @app.exception_handler(InputError)
    async def refuse(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 404 if " is not in " in str(error) else 400)

    @app.exception_handler(RequestValidationError)
    async def explain_fault(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": _fault(error)}, 422)

    @app.post("/recommend")
    async def recommend(wanted: ForUsers) -> dict[str, Any]:
        """List the best items of users."""
        if wanted.model_fields_set <= {"users", "k"}:
            # Looked up before it waits, so that a fault is that of this request alone.
            rows = recommender.rows_of_known(wanted.users).tolist()
            found = await batcher.lists(rows, wanted.k)
        else:
            table = await batcher.run(
                lambda: recommender.recommend(
                    wanted.users, wanted.k, **wanted.filters, unknown=wanted.unknown
                )
            )
            found = _by_user(table, wanted.users, recommender)
        answers = zip(wanted.users, found, strict=True)
        return {"recommendations": [{"user": user, "items": items} for user, items in answers]}

    @app.get("/similar")
    async def similar(
        item: Annotated[str, Query(max_length=1000)],
        k: Annotated[int, Query(ge=1, le=most)] = min(10, most),
    ) -> dict[str, Any]:
        """List the items most like another."""
        table = await batcher.run(lambda: recommender.similar_items([item], k))
        named = table.drop("item", "rank").rename({"similar": "item"})
        return {"item": item, "items": named.to_dicts()}

    @app.post("/fold-in")
    async def fold_in(wanted: ForHistory) -> dict[str, Any]:
        """List the best items for somebody new, by what they have; nothing is kept."""
        table = await batcher.run(
            lambda: recommender.recommend_for(
                wanted.history, wanted.k, **wanted.filters, unknown=wanted.unknown
            )
        )
        return {"items": table.drop("rank").to_dicts()}

    @app.post("/explain")
    async def explain(pair: Pair) -> dict[str, Any]:
        """Say why an item is where it is for a user."""
        if not isinstance(recommender, Recommender):
            raise InputError("a baseline does not explain; serve a model")
        found = await batcher.run(lambda: recommender.explain(pair.user, pair.item, pair.k))
        return {
            field.name: value.to_dicts() if isinstance(value, pl.DataFrame) else value
            for field in dataclasses.fields(found)
            for value in [getattr(found, field.name)]
        }

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Say that the service is up, and of what model."""
        data = recommender.dataset
        return {"status": "ok", "users": data.num_users, "items": data.num_items}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        """Counts and times of requests, as Prometheus reads them."""
        return measures.text(batches=batcher.batches)

    return app


def _by_user(table: pl.DataFrame, users: list[Any], recommender: Verbs) -> list[list[Any]]:
    """Divide a frame of lists into those of its users, in their order."""
    named = table.drop("user").to_dicts()
    starts = [row for row, item in enumerate(named) if item.pop("rank") == 1]
    stops = [*starts, len(named)][1:]
    found = [named[start:stop] for start, stop in zip(starts, stops, strict=True)]
    if len(found) < len(users):  # Some have everything already.
        of = dict(zip(table["user"].unique(maintain_order=True).to_list(), found, strict=True))
        kind = recommender.dataset.user_ids.dtype.kind
        found = [of.get(str(user) if kind == "U" else int(user), []) for user in users]
    return found


def _fault(error: RequestValidationError) -> str:
    """Say in one line what of a request cannot be used: the first fault, as others follow of it."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first['ctx']['error']}"
    place = ".".join(str(part) for part in first["loc"][1:])
    if not place:
        return "the body is not a JSON object; send one, with content-type: application/json"
    return f"{place}: {first['msg']}"
