"""The HTTP protocol of uvicorn, less patient: who does not ask within some seconds, or never ends a header, is let go.

Uvicorn itself waits for ever for the first request and for the rest of a header, and every such connection counts against
the most there may be. Bodies are the gate's matter. Our choice.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEADER_S: Final = 10.0
"""From the connection, or the first byte after an answer, to the end of a request's header."""
MAX_HEADER_BYTES: Final = 65_536


class ImpatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Closes a connection whose next request is not there after `HEADER_S`, or has no end after `MAX_HEADER_BYTES`."""

    _timer: asyncio.TimerHandle | None = None
    _unfinished = 0

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take the bytes in; a header that goes on waits no longer for it."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # a request is being answered
            self._stop()
            return
        self._unfinished += len(data)
        if self._unfinished > MAX_HEADER_BYTES:
            self._let_go()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for any more."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HEADER_S, self._let_go)

    def _stop(self) -> None:
        self._unfinished = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _let_go(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
