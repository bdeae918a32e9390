"""What stands before the application: sizes, patience and measures."""

import asyncio
import time
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hlr_jax.serving.measures import Measures


class Guard:
    """Takes the whole body of a request, if it is not too large and comes in time.

    So the application never waits for a client, and every answer is counted.
    """

    def __init__(self, app: ASGIApp, measures: Measures, most: int, seconds: float) -> None:
        """Guard an application.

        Args:
          measures: of all requests.
          most: bytes of a body.
          seconds: that a body may take to come.
        """
        self._app, self._measures = app, measures
        self._most, self._seconds = most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            body = await self._body(dict(scope["headers"]), receive)
            if isinstance(body, JSONResponse):
                await body(scope, receive, noted)
            else:
                await self._app(scope, _after(body, receive), noted)
        finally:
            self._measures.add(scope["path"], status, time.perf_counter() - start)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | JSONResponse:
        """Receive a body, or say why not."""
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._most:
            return _refusal(413, f"a request has at most {self._most} bytes; ask for less")
        if b"transfer-encoding" in headers:
            return _refusal(411, "give the length of the body")
        parts = []
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    parts.append(message.get("body", b""))
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            return _refusal(408, f"the body did not come within {self._seconds:g} seconds")


def _after(body: bytes, receive: Receive) -> Receive:
    """Hand out a body that is here already, then what else the client does."""
    waiting: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return waiting.pop() if waiting else await receive()

    return received


def _refusal(status: int, detail: str) -> JSONResponse:
    # What may still come of the body is none of the next request.
    return JSONResponse({"detail": detail}, status, headers={"connection": "close"})
