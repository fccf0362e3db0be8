"""The inbox as the event loop sees it: put a mail in, wait for one, look at one."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from postroom.inbox.events import Feed
from postroom.inbox.mail import Arrival, Entry, Page, Query, Stored
from postroom.inbox.refs import Refs, Resolve
from postroom.inbox.store import Store
from postroom.inbox.thread import Thread


class Mailbox:
    """All work on the store happens in one thread; arrivals that come meanwhile share the next commit."""

    def __init__(self, store: Store, thread: Thread, resolve: Resolve | None) -> None:
        self._store, self._thread = store, thread
        self._refs = Refs(resolve, store, thread)
        self._waiting: list[tuple[Arrival, asyncio.Future[Entry]]] = []
        self._committing: asyncio.Task[None] | None = None
        self.feed = Feed()

    @classmethod
    async def open(cls, path: Path, resolve: Resolve | None = None, **limits: Any) -> "Mailbox":
        """Open the file, and make it when it is not there. `limits` are the store's."""
        thread = Thread("inbox-store")
        try:
            store = await thread.run(lambda: Store(path, **limits))
        except BaseException:
            thread.close()
            raise
        return cls(store, thread, resolve)

    async def put(self, arrival: Arrival) -> Entry:
        """Store a mail. When this returns, the mail is on file, once; an `sqlite3.Error` means it is not."""
        stored: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._waiting.append((arrival, stored))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit())
        return await stored

    async def _commit(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                entries = await self._thread.run(self._store.add, [arrival for arrival, _ in batch])
            except sqlite3.Error as error:
                for _, stored in batch:
                    if not stored.done():
                        stored.set_exception(error)
                continue
            for (_, stored), entry in zip(batch, entries, strict=True):
                if not stored.done():  # its sender may have gone meanwhile
                    stored.set_result(entry)
            self.feed.arrived(entries)

    async def find(self, query: Query, *, wait_seconds: float = 0) -> Page:
        """List what matches. While nothing does, wait for arrivals that do, so many seconds at most."""
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while True:
            arrival = self.feed.arrival
            page = await self._look(query)
            if page.messages or wait_seconds == 0 or self.feed.closed:
                return page
            try:
                async with asyncio.timeout_at(deadline):
                    await arrival.wait()
            except TimeoutError:
                return page
            if not (query.client_ref or query.text):  # those may come to match older mails, later
                query = msgspec.structs.replace(query, after=max(query.after, page.newest))

    async def _look(self, query: Query) -> Page:
        if query.client_ref or query.text:
            await self._refs.complete()
        page = await self._thread.run(self._store.page, query)
        unknown = [entry.id for entry in page.messages if entry.postroom_id and entry.client_ref is None]
        if unknown and await self._refs.complete(unknown):
            page = await self._thread.run(self._store.page, query)
        return page

    async def get(self, identity: int) -> Stored | None:
        """Return one mail, or None."""
        await self._refs.complete([identity])
        return await self._thread.run(self._store.get, identity)

    async def delete(self, identity: int) -> bool:
        """Delete one mail; False when it is not there."""
        deleted = await self._thread.run(self._store.delete, identity)
        if deleted:
            self.feed.deleted(identity)
        return deleted

    async def clear(self) -> None:
        """Delete all mails."""
        await self._thread.run(self._store.clear)
        self.feed.cleared()

    async def close(self) -> None:
        """Finish the commits under way, and close the file."""
        if self._committing is not None:
            await self._committing
        await self._thread.run(self._store.close)
        self._thread.close()
