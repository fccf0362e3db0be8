"""Put mail into the ledger without the edge: `python -m bench.load.fill '{"config": "…/postroom.toml", …}'`.

One request a agent takes the way of any request, by `service.accept`, up to the ledger's door; its offer is then made
again under other numbers and goes through that door as an API process's would. Prints `{"filled": N}` when done.
With `level`, it stays and keeps that many waiting, until stdin ends.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from redis.asyncio import Redis

from bench.bodies import MARKER, TOKEN, marker
from postroom.config.live import LiveConfig
from postroom.ids import new_message_id
from postroom.ledger.accept import Acceptance, Created, Offer
from postroom.ledger.clients import connection_maker
from postroom.ledger.digests import Digests
from postroom.ledger.keys import place_of
from postroom.ledger.pipe import ScriptPipe
from postroom.ledger.watch import Watch
from postroom.library import publish_templates
from postroom.origin import Origin
from postroom.templates import TemplateSet
from service.accept import AcceptMessage
from service.auth import Authenticator
from service.schema import decode_request

TOGETHER = 500


class Order(msgspec.Struct, kw_only=True):
    """How much of what goes where."""

    config: str
    redis_url: str
    body: dict[str, Any]
    agents: list[str]
    count: int  # for each agent
    first: int = 0
    level: int = 0


class _Catch:
    """Stands where the ledger would, and keeps what is offered to it."""

    def __init__(self) -> None:
        self.offer: Offer | None = None

    async def accept(self, offer: Offer) -> Created:
        self.offer = offer
        return Created(0, 0, 0, ring=False)


class Filler:
    """Makes offers and puts them in."""

    def __init__(
        self, order: Order, acceptance: Acceptance, digests: Digests, offers: dict[str, Offer]
    ) -> None:
        self._order = order
        self._acceptance = acceptance
        self._digests = digests
        self._offers = offers
        self._number = order.first

    async def put(self, agent: str, count: int) -> None:
        """Put mail into one agent's queue."""
        for start in range(0, count, TOGETHER):
            offers = [self._next(agent) for _ in range(min(TOGETHER, count - start))]
            for reply in await asyncio.gather(*map(self._acceptance.accept, offers)):
                if not isinstance(reply, Created):
                    raise SystemExit("the ledger knew a ref that is new")

    def _next(self, agent: str) -> Offer:
        model = self._offers[agent]
        word = marker(self._number)
        self._number += 1
        message_id, client_ref = new_message_id(agent), model.client_ref.replace(MARKER, word)
        assert model.payload.template is not None
        variables = model.payload.template.variables | {"order_number": word}
        template = msgspec.structs.replace(model.payload.template, variables=variables)
        header = f"<{message_id.rpartition('-')[2]}@shop.example>"
        return msgspec.structs.replace(
            model,
            id=message_id,
            client_ref=client_ref,
            ref=self._digests.ref(model.caller, agent, client_ref),
            payload=msgspec.structs.replace(model.payload, message_id=header, template=template),
        )


async def model_offers(
    order: Order, live: LiveConfig, templates: TemplateSet, digests: Digests
) -> dict[str, Offer]:
    """Let one request for each agent through the use case, and return what it would have recorded."""
    identity = Authenticator(live.current).authenticate([f"Bearer {TOKEN}".encode()], None)
    catch, found = _Catch(), {}
    accept = AcceptMessage(templates, catch, lambda: digests, lambda _agent: None)  # type: ignore[arg-type]
    for agent in order.agents:
        body = json.dumps({**order.body, "agent": agent}).encode()
        await accept(identity, decode_request(body), Origin())
        assert catch.offer is not None
        found[agent] = catch.offer
    return found


async def run(order: Order) -> None:
    """Fill, say so, and keep the level if there is one to keep."""
    live = LiveConfig.load(Path(order.config), {**os.environ, "POSTROOM_REDIS_URL": order.redis_url})
    templates = TemplateSet.load_folder(live.current.templates.dir)
    client: Redis = Redis.from_url(order.redis_url)
    key, _ = await Watch(client).digest_key(None)
    digests = Digests(key)
    await publish_templates(templates, client)
    pipe = ScriptPipe(connection_maker(order.redis_url), deadline=30)
    acceptance = Acceptance(pipe, pipe, content_ms=3_600_000, message_ms=72 * 3_600_000)
    filler = Filler(order, acceptance, digests, await model_offers(order, live, templates, digests))
    for agent in order.agents:
        await filler.put(agent, order.count)
    print(json.dumps({"filled": order.count * len(order.agents)}), flush=True)
    if order.level:
        await keep_level(order, filler, client)
    await pipe.aclose()
    await client.aclose()


async def keep_level(order: Order, filler: Filler, client: Redis) -> None:
    """Put in what was sent meanwhile, every few milliseconds, until stdin ends."""
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    agent = order.agents[0]
    queue = f"{place_of(agent).prefix}q:{agent}:n"
    while not ended.done():
        missing = order.level - await client.zcard(queue)
        if missing > 0:
            await filler.put(agent, missing)
        await asyncio.sleep(0.005)


def main() -> None:
    """Do what the first word says, as JSON."""
    uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Order)))


if __name__ == "__main__":
    main()
