"""An SMTP server that takes everything, as cheaply as Python can: `python -m bench.sinks.smtp [DELAY_MS]`.

It looks into a message for one thing, the number that the loads write into the subject (`bench.bodies.MARKER`).
"""

import asyncio
import sys
from typing import cast

import uvloop

from bench.bodies import FIND_MARKER
from bench.sinks.control import Taken, serve

GREETING = b"220 sink.example ESMTP\r\n"
EHLO = (
    b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE 50000000\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
)
OK = b"250 2.0.0 Ok\r\n"
GO_AHEAD = b"354 Go ahead\r\n"
BYE = b"221 2.0.0 Bye\r\n"
UNKNOWN = b"500 5.5.1 What?\r\n"
END = b"\r\n.\r\n"
TRANSACTION = (b"MAIL", b"RCPT", b"RSET", b"NOOP")


class Sink(asyncio.Protocol):
    """One connection."""

    def __init__(self, taken: Taken, delay: float) -> None:
        self._taken = taken
        self._delay = delay
        self._buffer = bytearray()
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._write(GREETING)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        out = b""
        while True:
            reply = self._take_message() if self._in_data else self._take_command()
            if reply is None:
                break
            out += reply
        if out:
            self._write(out)

    def _take_message(self) -> bytes | None:
        end = self._buffer.find(END)
        if end < 0:
            return None
        message = bytes(self._buffer[:end])
        del self._buffer[: end + len(END)]
        self._in_data = False
        found = FIND_MARKER(message)
        self._taken.take(message, found and found[0])
        return OK

    def _take_command(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return None
        verb = bytes(self._buffer[:4]).upper()
        del self._buffer[: end + 2]
        if verb in TRANSACTION:
            return OK
        if verb == b"DATA":
            self._in_data = True
            return GO_AHEAD
        if verb in (b"EHLO", b"HELO"):
            return EHLO
        return BYE if verb == b"QUIT" else UNKNOWN

    def _write(self, out: bytes) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._write_now, out)
        else:
            self._write_now(out)

    def _write_now(self, out: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(out)
            if out.endswith(BYE):
                self._transport.close()


def main() -> None:
    """Run until stdin ends."""
    taken = Taken()
    delay = float(sys.argv[1]) / 1000 if len(sys.argv) > 1 else 0.0
    uvloop.run(serve(lambda: Sink(taken, delay), taken))


if __name__ == "__main__":
    main()
