"""An operator's acts on whole agents: look at them, pause, resume, prefer a channel."""

from collections import defaultdict

from postroom.decode import Fault
from postroom.errors import Code, RefusedError
from postroom.explain import moment
from postroom.ledger.overview import count_lanes, read_standings
from postroom.ledger.standing import Standing
from postroom.ledger.watch import QueueDepth
from service.admin_edge import Call
from service.admin_moment import read_lasting
from service.admin_schema import (
    AgentView,
    Body,
    FaultView,
    LastErrorView,
    PauseBody,
    Paused,
    PreferBody,
    Preferred,
    check_reason,
)
from service.operator_desk import OperatorDesk, Told, who_of


class AgentActs:
    """Handlers. Each act may be repeated."""

    def __init__(self, desk: OperatorDesk) -> None:
        self._desk = desk

    async def show(self, _: Call) -> dict[str, list[AgentView]]:
        """Show all agents at a glance, configured or not."""
        names = sorted(await self._desk.agents())
        depths = defaultdict(list)
        for row in await self._desk.watch.depth_and_held():
            depths[row.agent].append(row)
        standings = await read_standings(self._desk.client, names)
        lanes = await count_lanes(self._desk.client, names)
        return {"agents": [self._view(n, standings[n], depths[n], lanes[n]) for n in names]}

    async def pause(self, call: Call) -> Paused:
        """Pause an agent, or change reason and end of its pause."""
        body = call.decode(PauseBody)
        check_reason(body.reason)
        lasts_ms = read_lasting(body.lasts)
        agent = await self._desk.check_agent(call.path["agent"])
        since, till = await self._desk.operating.pause(
            agent, lasts_ms=lasts_ms, who=who_of(call, body.as_user), reason=body.reason
        )
        until = moment(till) if till else None
        told = Told(verb="pause", as_user=body.as_user, reason=body.reason, agent=agent, until=until)
        self._desk.tell(call, told, "agent.paused")
        return Paused(agent, paused=True, since=moment(since), until=until)

    async def resume(self, call: Call) -> Paused:
        """End a pause, and ring for a round if mail is due."""
        body = call.decode(Body)
        check_reason(body.reason)
        agent = await self._desk.check_agent(call.path["agent"])
        held, ring = await self._desk.operating.resume(agent)
        if ring:
            self._desk.ring(agent)
        if held:
            told = Told(verb="resume", as_user=body.as_user, reason=body.reason, agent=agent)
            self._desk.tell(call, told, "agent.resumed")
        return Paused(agent, paused=held, configured=agent in self._desk.config.agents)

    async def prefer(self, call: Call) -> Preferred:
        """Let a channel go first for a while, or end that."""
        body = call.decode(PreferBody)
        check_reason(body.reason)
        agent = await self._desk.check_agent(call.path["agent"])
        lasts_ms = read_lasting(body.lasts)
        self._check_channel(agent, body.channel, lasts_ms)
        till = await self._desk.operating.prefer(agent, body.channel or "", lasts_ms=lasts_ms)
        until = moment(till) if till else None
        told = Told(
            verb="prefer", as_user=body.as_user, reason=body.reason,
            agent=agent, channel=body.channel, until=until,
        )  # fmt: skip
        self._desk.tell(call, told, "agent.preferred")
        return Preferred(agent, body.channel, until)

    def _check_channel(self, agent: str, channel: str | None, lasts_ms: int) -> None:
        faults = []
        known = self._desk.config.agents.get(agent)
        if channel is not None and (known is None or channel not in {c.name for c in known.channels}):
            faults.append(Fault("/channel", "is no channel of this agent"))
        if channel is not None and not lasts_ms:
            faults.append(Fault("/for", "required, but missing"))
        if faults:
            raise RefusedError(Code.INVALID_REQUEST, "See errors.", faults=faults)

    def _view(self, name: str, standing: Standing, depths: list[QueueDepth], lanes: int) -> AgentView:
        agent = self._desk.config.agents.get(name)
        pause = standing.pause if standing.paused else None
        working = "working" if agent else "unknown"
        state = "paused" if pause else "stopped" if standing.stopped else working
        since = pause.since if pause else standing.since if standing.stopped else None
        return AgentView(
            agent=name,
            owner=agent.owner if agent else "",
            labels=agent.labels if agent else {},
            configured=agent is not None,
            state=state,
            since=moment(since),
            until=moment(pause.till) if pause and pause.till else None,
            who=pause.who if pause else None,
            reason=pause.reason if pause else None,
            waiting=sum(row.waiting for row in depths),
            due=sum(row.due for row in depths),
            held=sum(row.held for row in depths),
            held_is_least=any(row.held_is_least for row in depths),
            oldest_due_seconds=max((row.oldest_due_ms for row in depths), default=0) / 1000,
            connections=lanes,
            faults=[
                FaultView(channel, fault.cause, moment(fault.since), moment(fault.till), fault.text)
                for channel, fault in sorted(standing.faults.items())
            ],
            last_error=_view_last_error(standing),
            preferred=standing.preferred,
            preferred_until=moment(standing.preferred_till) if standing.preferred else None,
        )


def _view_last_error(standing: Standing) -> LastErrorView | None:
    error = standing.last_error
    if error is None:
        return None
    ago = max(0, standing.now - error.at) / 1000
    return LastErrorView(
        moment(error.at),
        ago,
        error.channel,
        error.outcome,
        error.phase,
        error.reply_code or None,
        error.enhanced_code or None,
    )
