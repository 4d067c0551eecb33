"""HTTP/1.1 by uvicorn and h11, for clients that cannot be trusted to finish what they begin to send, or to read."""

import asyncio
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 15.0
"""How long a client may take from the connection, or from the first byte of a further request, to the last header."""
READ_SECONDS = 300.0
"""How long a client may read nothing of an answer: as long as a download is paused, the files that it is of stay."""
MOST_HEADER_BYTES = 64 * 1024
"""Headers may be this long: the address of a ZIP file has an id for each of its results."""


class PatientProtocol(H11Protocol):
    """One connection; it is closed where the headers of a request take too long, or nobody reads the answer."""

    _deadline: asyncio.TimerHandle | None = None
    _reading_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; called by asyncio."""
        # Headers and body are written separately: the body would wait 40 ms for the client's delayed acknowledgement of
        # the headers. asyncio itself sees to it only for sockets that were made with the protocol's number.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Take bytes; called by asyncio."""
        super().data_received(data)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting; called by asyncio."""
        for deadline in filter(None, (self._deadline, self._reading_deadline)):
            deadline.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read; called by asyncio."""
        super().pause_writing()
        self._reading_deadline = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on once the client has read; called by asyncio."""
        if self._reading_deadline:
            self._reading_deadline.cancel()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or close the connection where another answer is being sent; called by uvicorn."""
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its request is what is broken: nothing more is sent for it
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.close()

    def _await_headers(self) -> None:
        """Set the deadline while headers are missing, and take it back once they are there."""
        if self.conn.their_state is not h11.IDLE:
            if self._deadline:
                self._deadline.cancel()
            self._deadline = None
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        """Close the connection of a client that has not sent all headers."""
        self._deadline = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()
