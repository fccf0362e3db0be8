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
REPLIES = {
    b"MAIL": OK,
    b"RCPT": OK,
    b"RSET": OK,
    b"NOOP": OK,
    b"DATA": GO_AHEAD,
    b"EHLO": EHLO,
    b"HELO": EHLO,
    b"QUIT": BYE,
}


class Sink(asyncio.Protocol):
    """One connection."""

    def __init__(self, taken: Taken, delay: float) -> None:
        self._taken = taken
        self._delay = delay
        self._rest = b""  # of a command or a message that has not come whole
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._write(GREETING)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at, out = 0, b""
        while (end := data.find(END if self._in_data else b"\r\n", at)) >= 0:
            if self._in_data:
                self._take(data, at, end)
                at, out, self._in_data = end + len(END), out + OK, False
            else:
                reply = REPLIES.get(data[at : at + 4].upper(), UNKNOWN)
                at, out, self._in_data = end + 2, out + reply, reply is GO_AHEAD
        self._rest = data[at:]
        if out:
            self._write(out)

    def _take(self, data: bytes, begin: int, end: int) -> None:
        found = FIND_MARKER(data, begin, end)
        sample = b"" if self._taken.count else data[begin:end]
        self._taken.take(sample, found and found[0])

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
