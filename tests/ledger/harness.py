"""One installation's ledger as tests use it: the product's own classes, and a look behind the door."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from postroom.ids import new_message_id
from postroom.ledger import keys
from postroom.ledger.accept import Acceptance, Created, Offer
from postroom.ledger.balance import Balance
from postroom.ledger.claimed import Claim, Claimed
from postroom.ledger.clients import connection_maker, reading_client
from postroom.ledger.delivery import Delivery
from postroom.ledger.digests import Digests
from postroom.ledger.finished import Finish
from postroom.ledger.limits import Limits, Pace
from postroom.ledger.operating import Operating
from postroom.ledger.pipe import ScriptPipe
from postroom.ledger.reading import Reading, StoredMessage
from postroom.ledger.record import Record
from postroom.ledger.watch import Watch
from postroom.message import Address, Content, Payload

AGENT = "orders"
CALLER = "checkout"
LEASE_MS = 60_000
CONTENT_MS, MESSAGE_MS = 3_600_000, 259_200_000
DAY_MS = 86_400_000
LEASED = 1e13  # leased mail is scored so far below its lease's end
DIGESTS = Digests(bytes(range(32)))
PATIENCE = 10.0

_refs = itertools.count(1)


def make_offer(recipients: int = 1, **changes: Any) -> Offer:
    """Return an offer that is right, under a ref of its own but for the changes."""
    agent = changes.pop("agent", AGENT)
    client_ref = changes.pop("client_ref", f"ref-{next(_refs)}")
    fields = changes.pop("fields", {1: b"to", 5: b"template"})
    payload = Payload(
        message_id="<x@shop.example>",
        sender=Address("orders@shop.example", "Shop"),
        to=tuple(Address(f"ada{i}@example.com") for i in range(recipients)),
        content=Content("Hello", "text"),
    )
    given = {
        "id": new_message_id(agent),
        "agent": agent,
        "caller": CALLER,
        "client_ref": client_ref,
        "ref": DIGESTS.ref(CALLER, agent, client_ref),
        "digests": DIGESTS.fields(fields),
        "payload": payload,
        "lifetime": DAY_MS,
    }
    return Offer(**given | changes)


class Ledger:
    """The accepting, the delivering and the reading side over one Redis."""

    def __init__(self, url: str, *, lease_ms: int = LEASE_MS, deadline: float = 5.0) -> None:
        retention = {"content_ms": CONTENT_MS, "message_ms": MESSAGE_MS}
        self.pipe = ScriptPipe(connection_maker(url), deadline=deadline)
        self.large = ScriptPipe(connection_maker(url), deadline=deadline)
        self.workers_pipe = ScriptPipe(connection_maker(url), deadline=deadline)
        self.acceptance = Acceptance(self.pipe, self.large, **retention)
        self.delivery = Delivery(self.workers_pipe, lease_ms=lease_ms, **retention)
        self.operating = Operating(self.pipe, **retention)
        self.client: Redis = reading_client(url)
        self.balance = Balance(self.client)
        self.reading = Reading(self.client)
        self.watch = Watch(self.client)

    async def aclose(self) -> None:
        for pipe in (self.pipe, self.large, self.workers_pipe):
            await pipe.aclose()
        await self.client.aclose()

    # accepting

    async def accept(self, recipients: int = 1, **changes: Any) -> Offer:
        """Accept a message of its own and return what was offered."""
        offer = make_offer(recipients, **changes)
        reply = await self.acceptance.accept(offer)
        assert isinstance(reply, Created), reply
        return offer

    async def accept_later(self, recipients: int = 1, **changes: Any) -> Offer:
        """Accept a message in a millisecond of its own, so that the order of the queue is that of these calls."""
        await self.next_ms()
        return await self.accept(recipients, **changes)

    # delivering

    async def claim(self, most: int = 10, lane: str = "lane", agent: str = AGENT, **options: Any) -> Claim:
        """Claim in a lane's name; the lane must be admitted."""
        kept = {"connections": options.pop("connections", 100), "pace": options.pop("pace", Pace())}
        claim = await self.delivery.claim(agent, lane, most=most, limits=Limits(**kept), **options)
        assert claim is not None
        return claim

    async def claim_one(self, **options: Any) -> Claimed:
        """Claim exactly one message."""
        claim = await self.claim(1, **options)
        assert 1 == len(claim.messages), claim
        return claim.messages[0]

    async def advance(self, held: Claimed, codes: str | None = None) -> int:
        """Write the commit mark; without `codes`, the server took every recipient in it."""
        known = codes or "".join("a" if i in held.waiting else "-" for i in range(held.recipients))
        return await self.delivery.advance(held.id, held.fence, known, "relay")

    async def finish(self, held: Claimed, codes: str, delay_ms: int = 0, **changes: Any) -> Any:
        """Write an outcome."""
        word = {"s": "sent", "f": "refused", "d": "deferred", "a": "ambiguous"}[min(codes, key="adfs-".index)]
        given = {"id": held.id, "fence": held.fence, "codes": codes, "delay_ms": delay_ms}
        given["event"] = f"relay|{word}|done|||5"
        limits = changes.pop("limits", Limits())
        return await self.delivery.finish(Finish(**given | changes), limits, narrowed=limits != Limits())

    async def send(self, **options: Any) -> Claimed:
        """Claim one message, write its mark, and finish it as sent."""
        held = await self.claim_one(**options)
        assert 1 == await self.advance(held)
        await self.finish(held, "s" * held.recipients)
        return held

    # behind the door

    async def stored(self, message_id: str) -> StoredMessage:
        found = await self.reading.message(message_id)
        assert found is not None
        return found

    async def record(self, message_id: str) -> Record:
        return (await self.stored(message_id)).record

    async def letters(self, message_id: str) -> str:
        """Return the letter of each recipient."""
        found = await self.client.hget(keys.record_key(message_id), "rr")
        return found.decode()

    async def queues(self, agent: str = AGENT) -> dict[str, dict[str, float]]:
        """Return the three queues: priority → id → score."""
        out = {}
        for letter in "hnb":
            rows = await self.client.zrange(queue_key(agent, letter), 0, -1, withscores=True)
            out[letter] = {message_id.decode(): score for message_id, score in rows}
        return out

    async def score(self, message_id: str) -> float | None:
        """Return when a message is next due, or its lease ends; None where it is in no queue."""
        queues = await self.queues(keys.agent_of(message_id))
        found = [queue[message_id] for queue in queues.values() if message_id in queue]
        assert len(found) <= 1
        return found[0] % LEASED if found else None

    async def lapse(self, *message_ids: str) -> None:
        """Let what a message waits for be over: its lease, or the time until its next attempt."""
        for message_id in message_ids:
            for letter in "hnb":
                key = queue_key(keys.agent_of(message_id), letter)
                await self.client.zadd(key, {message_id: await self._long_ago(key, message_id)}, xx=True)
            place = keys.place_of(keys.agent_of(message_id))
            await self.client.zadd(place.agenda, {keys.agent_of(message_id): 1}, lt=True)

    async def mend(self, channel: str = "relay", agent: str = AGENT) -> bool:
        """Let a channel's stop be over, and mend it."""
        key = keys.faults_key(agent)
        stored = await self.client.hget(key, channel)
        if stored is not None:
            await self.client.hset(key, channel, b"1|" + stored.partition(b"|")[2])
        return await self.delivery.mend_channel(agent, channel)

    async def _long_ago(self, key: str, message_id: str) -> float:
        score = await self.client.zscore(key, message_id)
        return 1 - LEASED if score is not None and score < 0 else 1

    async def end_deadline(self, message_id: str) -> None:
        """Let a message's deadline have passed a millisecond ago."""
        await self.client.hset(keys.record_key(message_id), "dl", await self.now() - 1)

    async def end_limit(self, message_id: str) -> None:
        """Let the moment its caller named, `deliver_before`, have passed a millisecond ago."""
        await self.client.hset(keys.record_key(message_id), "lm", f"b{await self.now() - 1}")

    async def now(self) -> int:
        """Return Redis's clock in ms."""
        seconds, micros = await self.client.time()
        return seconds * 1000 + micros // 1000

    async def next_ms(self) -> None:
        """Wait until Redis's clock is in another millisecond: what comes then is later than what was before."""
        before = await self.now()
        while await self.now() == before:
            pass

    async def agenda(self, agent: str = AGENT) -> float | None:
        return await self.client.zscore(keys.place_of(agent).agenda, agent)

    async def leave(self, lane: str = "lane", agent: str = AGENT) -> None:
        """Let a lane go, whatever is due."""
        await self.delivery.release(agent, [], pace=Pace(), lane=lane)


def queue_key(agent: str, letter: str) -> str:
    return f"{keys.place_of(agent).prefix}q:{agent}:{letter}"


def agent_key(kind: str, agent: str = AGENT) -> str:
    return f"{keys.place_of(agent).prefix}{kind}:{agent}"


async def until(condition: Callable[[], Awaitable[Any]], what: str, seconds: float = PATIENCE) -> None:
    """Wait until an async condition holds."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.005)
