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
    _reads_body = False  # what httptools tells; h11 knows it itself

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take the bytes in; a header that goes on waits no longer for it.

        The rest of a body whose answer is sent already (no key, too many requests) is no header: only its time is limited, so that
        its sender comes to read the answer.
        """
        was_body = self._is_body()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # a request is being answered
            self._stop()
            return
        if was_body:
            if not self._is_body():  # from here on the next request is waited for
                self._stop()
            self._wait()
            return
        self._unfinished += len(data)
        if self._unfinished > MAX_HEADER_BYTES:
            self._let_go()
        self._wait()

    def on_headers_complete(self) -> None:
        """A body may follow (httptools)."""
        self._reads_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole (httptools)."""
        self._reads_body = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for any more."""
        self._stop()
        super().connection_lost(exc)

    def _is_body(self) -> bool:
        conn = getattr(self, "conn", None)  # of h11
        return self._reads_body if conn is None else str(conn.their_state) == "SEND_BODY"

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
