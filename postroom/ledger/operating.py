"""The operator's side of the ledger: pause and resume agents, act on waiting mail, try or settle a message again."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from typing import Any

from msgspec import Struct

from postroom.ledger.ends import Ended, read_ended
from postroom.ledger.keys import agent_of, place_of
from postroom.ledger.pipe import Pipe
from postroom.ledger.resolved import Resolved, read_resolved

LOOKED_AT, CHANGED = 200, 60  # of one slice: a few milliseconds of Redis's time
LEAST_PASSES, MOST_PASSES = 2, 5
SHORT = 64  # bytes of a record's field, a hold's reason among them
INTERACTIVE_MS, STANDARD_MS = 15 * 60 * 1000, 24 * 3600 * 1000
VERBS = ("pause", "release", "cancel", "expire")


class Filter(Struct, frozen=True):
    """Which waiting mail is meant; what is empty matches all. `accepted_before` in ms since the epoch.

    `skip_scheduled` leaves out mail whose `send_at` is still ahead.
    """

    template: str = ""
    caller: str = ""
    accepted_before: int = 0
    skip_scheduled: bool = False


class Act(Struct, frozen=True, kw_only=True):
    """A verb over the waiting mail of agents. `id` names the act, so that its sums survive a lost answer.

    The messages keep the reason of a pause, which has at most `SHORT` bytes of UTF-8. What a pause holds goes on by
    itself at `till`, in ms since the epoch; 0: when somebody releases it.
    """

    id: str
    verb: str
    wanted: Filter = Filter()
    counts_only: bool = False
    who: str = ""
    reason: str = ""
    till: int = 0


class Position(Struct, frozen=True):
    """Where an act goes on within an agent: behind the message `last`, which stood at `score` in its queue.

    `passes` over its queues are over; `changed` says whether the current one changed anything. `done` and `too_late`
    are what was found so far.
    """

    priority: str = "h"
    score: float = 0
    last: str = ""
    passes: int = 0
    changed: bool = False
    done: int = 0
    too_late: int = 0


class Slice(Struct, frozen=True):
    """What a slice of an act brought. `done` and `too_late` are of the whole act over this agent so far.

    `goes_on` is None once the agent is through. `ring`: a round should be rung for.
    """

    agent: str
    done: int
    too_late: int
    ended: tuple[Ended, ...]
    ring: bool
    goes_on: Position | None


class Retried(Struct, frozen=True):
    """What became of a wish to try a message again.

    `answer` is `due`, `released` or `again` (until `deadline`, in ms) where it was granted; else `unknown`, `gone`
    (its content is dropped), `scheduled`, `superseded` (a newer message with its `collapse_key` has taken its place),
    `too_late` (its time is up, or the moment its caller named), or the state in which nothing can be done. `state` is
    the message's, empty for `unknown`.
    """

    answer: str
    ring: bool
    state: str
    deadline: int

    @property
    def done(self) -> bool:
        """True where the message is tried again, or let go."""
        return self.answer in ("due", "released", "again")


class Operating:
    """Every call raises LedgerUnavailableError where it surely did nothing, LedgerUnconfirmedError where it may have.

    All of them may be repeated.
    """

    def __init__(self, pipe: Pipe, *, content_ms: int, message_ms: int) -> None:
        self._pipe = pipe
        self._content_ms = content_ms
        self._message_ms = message_ms

    async def _call(self, script: str, agent: str, *args: Any) -> Any:
        place = place_of(agent)
        return await self._pipe.call(
            script, place.agenda, place.prefix, agent, self._content_ms, self._message_ms, *args
        )

    async def pause(self, agent: str, *, lasts_ms: int, who: str, reason: str) -> tuple[int, int]:
        """Pause an agent, for good with `lasts_ms=0`; return since when and until when (0: no end), in ms."""
        since, till = await self._call("pause", agent, lasts_ms, who, reason)
        return since, till

    async def resume(self, agent: str) -> tuple[bool, bool]:
        """End a pause; return whether one held until now, and whether a round should be rung for."""
        held, ring = await self._call("resume", agent)
        return bool(held), bool(ring)

    async def prefer(self, agent: str, channel: str, *, lasts_ms: int) -> int:
        """Let a channel go first for a while, or none where it is empty; return when that ends, in ms, or 0."""
        return int(await self._call("prefer", agent, channel, lasts_ms))

    async def act(
        self, act: Act, agent: str, start: Position | None = None, *, seconds: float = math.inf
    ) -> AsyncGenerator[Slice, None]:
        """Act on an agent's waiting mail, a slice at a time, from `start` on.

        While one is looked at, Redis works at the next; none is begun after so many seconds. Mail that waits untouched
        is never passed over. What is in a worker's hands moves while we look, so there are two passes at least, and
        more until one changes nothing.
        """
        until = time.monotonic() + seconds
        coming: asyncio.Future[Slice] | None = self._begin(act, agent, start or Position())
        try:
            while coming is not None:
                found = await coming
                goes_on = found.goes_on if time.monotonic() <= until else None
                coming = self._begin(act, agent, goes_on) if goes_on is not None else None
                yield found
        finally:
            if coming is not None:  # nobody looks any more
                await asyncio.gather(coming, return_exceptions=True)

    def _begin(self, act: Act, agent: str, at: Position) -> asyncio.Future[Slice]:
        return asyncio.ensure_future(self._act_once(act, agent, at))

    async def _act_once(self, act: Act, agent: str, at: Position) -> Slice:
        wanted = act.wanted
        priority, score, last, done, late, done_in_all, late_in_all, ring, ended = await self._call(
            "act", agent, act.verb, int(act.counts_only), wanted.template, wanted.caller, wanted.accepted_before,
            at.priority, at.score, at.last, LOOKED_AT, CHANGED if not act.counts_only else LOOKED_AT, act.id,
            _short(act.who, SHORT - len("paused|1234567890123|")), act.reason if act.verb == "pause" else "", act.till,
            int(wanted.skip_scheduled),
        )  # fmt: skip
        if act.counts_only:
            done_in_all, late_in_all = at.done + done, at.too_late + late
        here = Position(
            priority=priority.decode(),
            score=float(score or 0),
            last=last.decode(),
            passes=at.passes,
            changed=at.changed or done > 0,
            done=done_in_all,
            too_late=late_in_all,
        )
        return Slice(
            agent,
            done_in_all,
            late_in_all,
            tuple(map(read_ended, ended)),
            bool(ring),
            here if here.priority else _next_pass(act, here),
        )

    async def cancel(self, message_id: str) -> Resolved | None:
        """End a message before its commit mark; None where the id is unknown, `sending` where it is too late."""
        return read_resolved(await self._call("cancel", agent_of(message_id), message_id, "operator"))

    async def resolve(self, message_id: str) -> Resolved | None:
        """Settle recipients whose fate is unknown as sent, those that wait for another attempt included.

        None where the id is unknown.
        """
        return read_resolved(await self._call("resolve", agent_of(message_id), message_id))

    async def retry(self, message_id: str, *, unconfirmed: bool = False) -> Retried:
        """Try a message again now: one that waits, is held, or has failed or expired with its content still kept.

        With `unconfirmed`, instead the recipients whose fate is unknown, because somebody knows it was not sent.
        """
        answer, ring, state, deadline = await self._call(
            "retry", agent_of(message_id), message_id, INTERACTIVE_MS, STANDARD_MS, int(unconfirmed)
        )
        return Retried(answer.decode(), bool(ring), state.decode(), deadline)


def _next_pass(act: Act, here: Position) -> Position | None:
    passes = here.passes + 1
    if act.counts_only or passes >= MOST_PASSES or (passes >= LEAST_PASSES and not here.changed):
        return None
    return Position(passes=passes, done=here.done, too_late=here.too_late)


def _short(text: str, limit: int) -> str:
    """Cut a text to so many bytes of UTF-8, between characters."""
    return text.encode()[:limit].decode(errors="ignore")
