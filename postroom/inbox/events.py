"""Telling whoever looks that something came or went: long polls, and streams of server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager

import msgspec

BACKLOG_EVENTS = 20_000  # a reader further behind than this is cut off, comes again and lists anew
HEARTBEAT_SECONDS = 15
HEARTBEAT = b": still here\n\n"


class Stream:
    """The events of one reader, as bytes ready to be written."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG_EVENTS)

    def push(self, event: bytes | None) -> None:
        """Add an event. None ends the stream, and so does one more than a reader may be behind."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._queue = asyncio.Queue(1)
            self._queue.put_nowait(None)

    async def events(self, heartbeat: float = HEARTBEAT_SECONDS) -> AsyncIterator[bytes]:
        """Yield what is there as one piece, and a comment whenever nothing came for a while."""
        while True:
            try:
                async with asyncio.timeout(heartbeat):
                    pieces = [await self._queue.get()]
            except TimeoutError:
                yield HEARTBEAT
                continue
            while not self._queue.empty():
                pieces.append(self._queue.get_nowait())
            if together := b"".join(filter(None, pieces)):
                yield together
            if None in pieces:
                return


class Feed:
    """Everybody who waits for news of the inbox."""

    def __init__(self) -> None:
        self._streams: set[Stream] = set()
        self._arrival = asyncio.Event()
        self.closed = False

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        """Give out a stream of all events from now on."""
        stream = Stream()
        if self.closed:
            stream.push(None)
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    @property
    def arrival(self) -> asyncio.Event:
        """The next arrival. Take it before looking at the store, or one in between goes unnoticed."""
        return self._arrival

    def arrived(self, entries: Iterable[object]) -> None:
        """Tell of new mails, one event each."""
        self._wake()
        if self._streams:
            self._push(b"".join(_event(b"message", entry) for entry in entries))

    def deleted(self, identity: int) -> None:
        """Tell that one mail is gone."""
        self._push(_event(b"deleted", {"id": identity}))

    def cleared(self) -> None:
        """Tell that all mails are gone."""
        self._push(_event(b"cleared", {}))

    def close(self) -> None:
        """End all streams and all waiting."""
        self.closed = True
        self._wake()
        self._push(None)

    def _wake(self) -> None:
        woken, self._arrival = self._arrival, asyncio.Event()
        woken.set()

    def _push(self, event: bytes | None) -> None:
        for stream in self._streams:
            stream.push(event)


def _event(kind: bytes, data: object) -> bytes:
    return b"event: " + kind + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
