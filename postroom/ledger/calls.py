"""Calls of the ledger's scripts under way: what each asks, how it is answered, and when its time is up."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct
from redis.exceptions import RedisError

from postroom.ledger.errors import LedgerError, LedgerUnconfirmedError
from postroom.ledger.refusals import refusal_of
from postroom.ledger.scripts import Script
from postroom.patience import Patience

TOGETHER_SECONDS = 0.05  # calls made within it share the end of their time, and so one timer


class Call(Struct, eq=False):
    """One call; `asked` is when it was made, by the event loop's clock."""

    script: Script
    key: str
    args: tuple[Any, ...]
    asked: float
    reply: asyncio.Future[Any]

    def command(self) -> tuple[Any, ...]:
        """Return it as Redis takes it."""
        return ("EVALSHA", self.script.sha, 1, self.key, *self.args)


def settle(call: Call, reply: Any, *, acknowledged: bool) -> None:
    """Answer a call with what Redis said; `acknowledged`: as many replicas have it as must."""
    if call.reply.done():
        return
    if not isinstance(reply, RedisError):
        if acknowledged:
            call.reply.set_result(reply)
        else:
            call.reply.set_exception(LedgerUnconfirmedError("not enough replicas acknowledged in time"))
        return
    # Where it is no refusal it is a defect of ours in a script: the text names its line, and no value of a message.
    defect = f"script {call.script.name}: {str(reply)[:300]}"
    call.reply.set_exception(refusal_of(reply) or LedgerError(defect))


def fail(calls: list[Call], error: LedgerError, cause: BaseException | None = None) -> None:
    """Answer calls that have no answer yet, each with an error of its own."""
    for call in calls:
        if not call.reply.done():
            own = type(error)(str(error))
            own.__cause__ = cause
            call.reply.set_exception(own)


@contextmanager
def in_time(calls: list[Call], seconds: float, late: LedgerError) -> Iterator[None]:
    """Bound what is done for calls: each may take so long from when it was made, and is told `late` then.

    Raises:
        TimeoutError: the time of all is up.
    """
    asked = [call.asked for call in calls]
    last = max(asked)
    spread = last - min(asked) > TOGETHER_SECONDS
    early = _Early(calls, seconds, late) if spread else None
    try:
        with Patience(last + seconds - asyncio.get_running_loop().time()):
            yield
    finally:
        if early is not None:
            early.timer.cancel()


class _Early:
    """Tells those whose time is up before that of the last ones, those of one moment together."""

    def __init__(self, calls: list[Call], seconds: float, late: LedgerError) -> None:
        self._calls = calls
        self._seconds = seconds
        self._late = late
        self._wait()

    def _wait(self) -> None:
        first = min(call.asked for call in self._calls)
        loop = asyncio.get_running_loop()
        self.timer = loop.call_at(first + self._seconds + TOGETHER_SECONDS, self._tell)

    def _tell(self) -> None:
        over = asyncio.get_running_loop().time() - self._seconds
        fail([call for call in self._calls if call.asked <= over], self._late)
        self._calls = [call for call in self._calls if call.asked > over]
        if self._calls:
            self._wait()
