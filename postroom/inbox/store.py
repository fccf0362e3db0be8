"""The file behind the inbox: one SQLite database, used by one thread."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from postroom.inbox import parse
from postroom.inbox.mail import Arrival, Entry, Page, Query, Stored

MAX_MESSAGES = 50_000
MAX_BYTES = 1_000_000_000
LAYOUT = 1  # of the tables below; another one is refused, not guessed at

# The bytes lie in a table of their own, so that looking through the list does not page through them.
TABLES = """
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, sender TEXT NOT NULL,
    recipients TEXT NOT NULL, author TEXT NOT NULL, cc TEXT NOT NULL, subject TEXT NOT NULL,
    postroom_id TEXT, client_ref TEXT, size INTEGER NOT NULL);
CREATE TABLE raw (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE INDEX by_client_ref ON messages (client_ref);
CREATE INDEX unresolved ON messages (id) WHERE client_ref IS NULL AND postroom_id IS NOT NULL;
"""
ENTRY = "id, at_ms, author, recipients, cc, subject, postroom_id, client_ref, size"
SHOWN = (
    "casefold(subject || char(10) || author || char(10) || recipients || char(10)"
    " || ifnull(postroom_id, '') || char(10) || ifnull(client_ref, ''))"
)


class ForeignFileError(Exception):
    """The file is not an inbox of this layout."""


class Store:
    """Keeps the newest mails. A `client_ref` is NULL while nobody was asked, and empty when there is none."""

    def __init__(
        self,
        path: Path,
        *,
        max_messages: int = MAX_MESSAGES,
        max_bytes: int = MAX_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._max_messages, self._max_bytes, self._now = max_messages, max_bytes, now
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.create_function("casefold", 1, str.casefold, deterministic=True)
        try:
            self._prepare(path)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, path: Path) -> None:
        try:
            layout = self._one("PRAGMA user_version")
            self._db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.DatabaseError as error:
            raise ForeignFileError(f"{path} cannot be used as an inbox: {error}") from error
        # NORMAL survives the death of the process, which is all a development inbox promises.
        self._db.execute("PRAGMA synchronous = NORMAL")
        if layout == 0 and not self._one("SELECT count(*) FROM sqlite_master"):
            self._db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {LAYOUT}; COMMIT;")
        elif layout != LAYOUT:
            raise ForeignFileError(f"{path} is not an inbox of this version")
        self._count, self._bytes = self._db.execute(
            "SELECT count(*), ifnull(sum(size), 0) FROM messages"
        ).fetchone()

    def add(self, arrivals: Sequence[Arrival]) -> list[Entry]:
        """Store all of them in one transaction, and drop the oldest mails beyond the limits."""
        at_ms = int(self._now() * 1000)
        heads = [parse.head(arrival.raw) for arrival in arrivals]
        entries = []
        with self._transaction():
            for arrival, head in zip(arrivals, heads, strict=True):
                row = (
                    at_ms,
                    head.author or arrival.sender,
                    "\n".join(arrival.recipients),
                    json.dumps(head.cc),
                    head.subject,
                    head.postroom_id,
                    None,
                    len(arrival.raw),
                )
                cursor = self._db.execute(
                    "INSERT INTO messages (at_ms, author, recipients, cc, subject, postroom_id, client_ref,"
                    " size, sender) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*row, arrival.sender),
                )
                self._db.execute("INSERT INTO raw VALUES (?, ?)", (cursor.lastrowid, arrival.raw))
                entries.append(_entry((cursor.lastrowid, *row)))
            count = self._count + len(entries)
            size = self._bytes + sum(entry.size for entry in entries)
            self._count, self._bytes = self._trim(count, size)
        return entries

    def _trim(self, count: int, size: int) -> tuple[int, int]:
        last = 0
        if count > self._max_messages or size > self._max_bytes:
            for identity, one in self._db.execute("SELECT id, size FROM messages ORDER BY id"):
                if count == 1 or (count <= self._max_messages and size <= self._max_bytes):
                    break
                last, count, size = identity, count - 1, size - one
            self._db.execute("DELETE FROM messages WHERE id <= ?", (last,))
            self._db.execute("DELETE FROM raw WHERE id <= ?", (last,))
        return count, size

    def page(self, query: Query) -> Page:
        """List the newest mails that match."""
        where, values = _conditions(query)
        bounds = "" if query.before is None else " AND id < ?"
        rows = self._db.execute(
            f"SELECT {ENTRY} FROM messages WHERE {where}{bounds} ORDER BY id DESC LIMIT ?",  # noqa: S608
            (*values, *([] if query.before is None else [query.before]), query.limit),
        ).fetchall()
        return Page(
            messages=tuple(map(_entry, rows)),
            total=self._one(f"SELECT count(*) FROM messages WHERE {where}", values),  # noqa: S608
            newest=self._one("SELECT ifnull(max(id), 0) FROM messages"),
        )

    def get(self, identity: int) -> Stored | None:
        """Return everything kept of one mail."""
        row = self._db.execute(
            f"SELECT {ENTRY}, sender, bytes FROM messages JOIN raw USING (id) WHERE id = ?",  # noqa: S608
            (identity,),
        ).fetchone()
        return None if row is None else Stored(_entry(row[:-2]), row[-2], row[-1])

    def unresolved(self, identities: Sequence[int] | None, limit: int) -> list[tuple[int, str]]:
        """Return (id, Postroom's id) of mails whose `client_ref` nobody asked for, newest first."""
        among = "" if identities is None else f" AND id IN ({','.join('?' * len(identities))})"
        return self._db.execute(
            "SELECT id, postroom_id FROM messages WHERE client_ref IS NULL AND postroom_id IS NOT NULL"  # noqa: S608
            f"{among} ORDER BY id DESC LIMIT ?",
            (*(identities or ()), limit),
        ).fetchall()

    def set_refs(self, refs: Iterable[tuple[str, int]]) -> None:
        """Keep the `client_ref` (empty: it has none) of each id."""
        with self._transaction():
            self._db.executemany("UPDATE messages SET client_ref = ? WHERE id = ?", refs)

    def delete(self, identity: int) -> bool:
        """Delete one mail; False when it is not there."""
        with self._transaction():
            row = self._db.execute("DELETE FROM messages WHERE id = ? RETURNING size", (identity,)).fetchone()
            self._db.execute("DELETE FROM raw WHERE id = ?", (identity,))
        if row is not None:
            self._count, self._bytes = self._count - 1, self._bytes - row[0]
        return row is not None

    def clear(self) -> None:
        """Delete all mails and give the space back. Ids go on counting."""
        with self._transaction():
            self._db.execute("DELETE FROM messages")
            self._db.execute("DELETE FROM raw")
        self._count = self._bytes = 0
        self._db.execute("VACUUM")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _one(self, statement: str, values: Sequence[Any] = ()) -> int:
        return int(self._db.execute(statement, values).fetchone()[0])


def _conditions(query: Query) -> tuple[str, list[Any]]:
    where, values = ["id > ?"], [query.after]
    tests: list[tuple[str, Any]] = [
        ("client_ref = ?", query.client_ref or None),
        (
            "instr(casefold(char(10) || recipients || char(10)), ?)",
            query.to and f"\n{query.to.casefold()}\n",
        ),
        ("instr(casefold(subject), ?)", query.subject and query.subject.casefold()),
        (f"instr({SHOWN}, ?)", query.text and query.text.casefold()),
    ]
    for condition, value in tests:
        if value:
            where.append(condition)
            values.append(value)
    return " AND ".join(where), values


def _entry(row: Sequence[Any]) -> Entry:
    identity, at_ms, author, recipients, cc, subject, postroom_id, client_ref, size = row
    at = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return Entry(
        id=identity,
        at=at.replace("+00:00", "Z"),
        author=author,
        to=tuple(recipients.split("\n")),
        cc=tuple(json.loads(cc)),
        subject=subject,
        postroom_id=postroom_id,
        client_ref=client_ref or None,
        size=size,
        url=f"/api/messages/{identity}",
    )
