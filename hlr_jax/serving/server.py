"""Listen for requests, and hang up on clients who begin none or do not finish one."""

from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

# That a client may say nothing, or take for the head of a request.
SECONDS = 10
# Of the head of a request.
_MOST_BYTES = 2**16


class _Protocol(H11Protocol):
    """HTTP/1.1 as uvicorn has it, which waits for the first request without end."""

    def connection_made(self, transport: Any) -> None:
        """Begin to look every while whether there has been a request."""
        super().connection_made(transport)
        self._look_later()

    def _look_later(self) -> None:
        self.loop.call_later(SECONDS, self._look, self.cycle)

    def _look(self, last: Any) -> None:
        """Hang up if no request is being answered, and none has come since the last look."""
        if self.transport.is_closing():
            return
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.cycle is last:
            self.transport.close()
        else:
            self._look_later()


def make_server(app: FastAPI) -> uvicorn.Server:
    """Make a server, whose `run([listener])` answers requests until it is told to end."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        log_level="warning",
        timeout_keep_alive=SECONDS,
        h11_max_incomplete_event_size=_MOST_BYTES,
    )
    return uvicorn.Server(config)
