"""An operator's acts on messages: one by its id, or all that a filter names."""

from collections.abc import Callable
from contextlib import aclosing

import msgspec

from postroom.errors import Code, RefusedError
from postroom.explain import moment
from postroom.findings import Findings, find_why
from postroom.ids import is_message_id
from postroom.ledger.keys import agent_of
from postroom.ledger.operating import Act, Position, Retried, Slice
from postroom.ledger.resolved import Resolved
from service.admin_edge import Call
from service.admin_moment import read_lasting, read_moment
from service.admin_schema import ActBody, Acted, Body, Done, Place, ResolveBody, check_reason
from service.admin_texts import say_cancelled, say_resolved, say_retried
from service.operator_desk import OperatorDesk, Told, who_of

ACT_SECONDS = 0.5  # how long one call works at an act by filter before it says where to go on


class MessageActs:
    """Handlers. Each act may be repeated."""

    def __init__(self, desk: OperatorDesk) -> None:
        self._desk = desk

    async def retry(self, call: Call) -> Done:
        """Try a message again now."""
        body, message_id = call.decode(Body), _id_of(call)
        check_reason(body.reason)
        retried = await self._desk.operating.retry(message_id)
        return await self._retried(call, body, "retry", retried)

    async def resolve(self, call: Call) -> Done:
        """Settle a message whose fate was unknown: it was sent, or it is tried again."""
        body, message_id = call.decode(ResolveBody), _id_of(call)
        check_reason(body.reason)
        if body.outcome == "retry":
            retried = await self._desk.operating.retry(message_id, unconfirmed=True)
            return await self._retried(call, body, "resolve_retry", retried)
        resolved = await self._desk.operating.resolve(message_id)
        return await self._resolved(call, body, "resolve_sent", resolved, say_resolved)

    async def cancel(self, call: Call) -> Done:
        """End a message before its commit mark."""
        body, message_id = call.decode(Body), _id_of(call)
        check_reason(body.reason)
        resolved = await self._desk.operating.cancel(message_id)
        return await self._resolved(call, body, "cancel", resolved, say_cancelled)

    async def why(self, call: Call) -> Findings:
        """Say why a message is where it is."""
        stored = await self._desk.reading.message(_id_of(call))
        if stored is None:
            raise _not_found()
        return find_why(stored, self._desk.config.agents.get(stored.record.agent))

    async def act(self, call: Call) -> Acted:
        """Work at an act by filter for a moment; the caller goes on with `next` until it is null.

        The sums are the ledger's own: a caller whose connection broke asks again with the same body and is told
        everything that was done.
        """
        body = call.decode(ActBody)
        check_reason(body.reason)
        given = body.filter.accepted_before
        before = 0 if given is None else await read_moment(self._desk.watch, given)
        act = body.to_act(who_of(call, body.as_user), before, await self._till(body))
        acted, changed = await self._work(act, body)
        acted = msgspec.structs.replace(
            acted, accepted_before=moment(before or None), until=moment(act.till or None)
        )
        # The journal has an act that begins, or is over; the log has each step that changed something.
        whole = acted.next is None or body.at is None
        if not act.counts_only and (changed or whole):
            self._desk.tell(call, _told(body, acted), "operator.acted" if whole else "")
        return acted

    async def _till(self, body: ActBody) -> int:
        """Return when what the act holds goes on by itself: the same moment over all its calls, 0 for never."""
        lasts = read_lasting(body.lasts)
        if body.at is not None or not lasts:
            return body.at.till if body.at else 0
        return await self._desk.watch.now() + lasts

    async def _work(self, act: Act, body: ActBody) -> tuple[Acted, bool]:
        """Work at one agent.

        Where to begin, and before which moment, is an answer of its own: should it get lost, nothing was done.
        """
        agent = body.filter.agent or (body.at.agent if body.at else None)
        if agent is None:
            first = await self._next_agent("")
            return Acted(0, 0, Place(agent=first, till=act.till) if first else None), False
        at = body.at or Place(agent=await self._desk.check_agent(agent), till=act.till)
        if body.fixes_moment:
            return Acted(0, 0, at), False
        before, goes_on = at.done, False
        async with aclosing(self._desk.operating.act(act, agent, at.position, seconds=ACT_SECONDS)) as slices:
            async for found in slices:
                await self._desk.account(found.ended)
                if found.ring:
                    self._desk.ring(agent)
                at, goes_on = _place_after(at, found), found.goes_on is not None
        if goes_on:
            return _acted(at, at), at.done > before
        following = None if body.filter.agent else await self._next_agent(agent)
        return _acted(at, _place_of(following, at) if following else None), at.done > before

    async def _next_agent(self, after: str) -> str | None:
        waiting = {row.agent for row in await self._desk.watch.balance.rows() if row.waiting}
        return min((agent for agent in waiting if agent > after), default=None)

    async def _retried(self, call: Call, body: Body, verb: str, retried: Retried) -> Done:
        message_id = call.path["id"]
        if retried.answer == "unknown":
            raise _not_found()
        if retried.ring:
            self._desk.ring(agent_of(message_id))
        if retried.done:
            await self._tell(call, body, verb)
        return Done(message_id, retried.done, retried.state, say_retried(retried))

    async def _resolved(
        self, call: Call, body: Body, verb: str, resolved: Resolved | None, say: Callable[[Resolved], str]
    ) -> Done:
        message_id = call.path["id"]
        if resolved is None:
            raise _not_found()
        if resolved.by_us:
            if resolved.ended is not None:
                await self._desk.account([resolved.ended])
            await self._tell(call, body, verb)
        return Done(message_id, resolved.by_us, resolved.state, say(resolved))

    async def _tell(self, call: Call, body: Body, verb: str) -> None:
        message_id = call.path["id"]
        told = Told(
            verb=verb, as_user=body.as_user, reason=body.reason,
            agent=agent_of(message_id), message_id=message_id,
        )  # fmt: skip
        self._desk.tell(call, told)


def _told(body: ActBody, acted: Acted) -> Told:
    return Told(
        verb=body.verb,
        as_user=body.as_user,
        reason=body.reason,
        until=acted.until,
        agent=body.filter.agent,
        template=body.filter.template,
        of_caller=body.filter.caller,
        accepted_before=acted.accepted_before,
        skip_scheduled=body.filter.skip_scheduled or None,
        act=body.act,
        done=acted.done,
        too_late=acted.too_late,
        finished=acted.next is None,
    )


def _id_of(call: Call) -> str:
    if not is_message_id(call.path["id"]):
        raise _not_found()
    return call.path["id"]


def _not_found() -> RefusedError:
    return RefusedError(Code.NOT_FOUND, "No message with this id is kept.")


def _place_after(at: Place, found: Slice) -> Place:
    here = found.goes_on or Position()
    return Place(
        agent=found.agent,
        priority=here.priority,
        score=here.score,
        last=here.last,
        passes=here.passes,
        changed=here.changed,
        done=found.done,
        too_late=found.too_late,
        done_before=at.done_before,
        too_late_before=at.too_late_before,
        till=at.till,
    )


def _place_of(agent: str, at: Place) -> Place:
    """Return where an agent begins, with what was done in those before it."""
    return Place(
        agent=agent,
        done_before=at.done_before + at.done,
        too_late_before=at.too_late_before + at.too_late,
        till=at.till,
    )


def _acted(at: Place, goes_on: Place | None) -> Acted:
    return Acted(at.done_before + at.done, at.too_late_before + at.too_late, goes_on)
