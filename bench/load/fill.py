"""Put mail into the ledger without the edge: `python -m bench.load.fill '{"config": "…/postroom.toml", …}'`.

One request for each agent takes the way of any request, by `service.accept`, up to the wire. That one call of the
ledger's script is then written again and again as bytes, with another id and ref each time, so that filling costs
little more than what Redis does. Prints `{"filled": N}`. With `level`, it stays and keeps that many waiting for each
agent, until stdin ends.
"""

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import hiredis
import msgspec
import uvloop
from redis.asyncio import Redis

from bench.bodies import MARKER, TOKEN, marker
from postroom.config.live import LiveConfig
from postroom.ids import new_message_id
from postroom.ledger.accept import Acceptance
from postroom.ledger.digests import Digests
from postroom.ledger.files import Files
from postroom.ledger.keys import place_of
from postroom.ledger.scripts import load_scripts
from postroom.ledger.watch import Watch
from postroom.library import publish_templates
from postroom.log import get_logger
from postroom.origin import Origin
from postroom.shelf import Shelf
from postroom.templates import TemplateSet
from service.accept import AcceptMessage
from service.auth import Authenticator, Identity
from service.schema import decode_request

OFFERED = 5  # of a call's words: what is offered, in msgpack
TOGETHER = 500
LOOK_SECONDS = 0.005  # between looks at the level, for the first agent
LOOK_SECONDS_MORE = 0.0002  # and for each further one


class Order(msgspec.Struct, kw_only=True):
    """How much of what goes where."""

    config: str
    redis_url: str
    body: dict[str, Any]
    agents: list[str]
    count: int  # for each agent
    first: int = 0
    level: int = 0  # for each agent


class CaughtError(Exception):
    """The call has been kept; nothing else is wanted of it."""


class _Catch:
    """Stands where the pipe to Redis would, and keeps the call."""

    def __init__(self) -> None:
        self.words: tuple[Any, ...] = ()

    async def call(self, _name: str, *words: Any) -> Any:
        self.words = words
        raise CaughtError


class Model:
    """One agent's call of the script, in pieces between which ids and refs go."""

    def __init__(self, agent: str, sha: str, words: tuple[Any, ...], digests: Digests) -> None:
        self._agent = agent
        self._digests = digests
        self._caller = "bench"
        self._client_ref = f"order-{MARKER}-shipped"
        ref = digests.ref(self._caller, agent, self._client_ref)
        raw = hiredis.pack_command(("EVALSHA", sha, 1, *words))
        _, message_id, *_ = msgspec.msgpack.decode(words[OFFERED])
        self._pieces = self._cut(raw, message_id, ref)

    def _cut(self, raw: bytes, message_id: str, ref: str) -> list[bytes]:
        """Return what stands before the ref, between ref and id, between id and client_ref, and after it.

        Those of every message are as long as these, so nothing that tells a length changes.
        """
        rest, pieces = raw, []
        for value in (ref, message_id, self._client_ref):
            before, _, rest = rest.partition(value.encode())
            pieces.append(before)
        return [*pieces, rest]

    def write(self, number: int) -> bytes:
        """Return the call for one more message."""
        word = marker(number)
        client_ref = self._client_ref.replace(MARKER, word)
        ref = self._digests.ref(self._caller, self._agent, client_ref)
        one, two, three, four = self._pieces
        message_id = new_message_id(self._agent)
        return b"".join((one, ref.encode(), two, message_id.encode(), three, client_ref.encode(), four))


class Filler:
    """Writes calls to Redis by the hundred and reads what it answers."""

    def __init__(self, order: Order, models: dict[str, Model], streams: Any) -> None:
        self._models = models
        self._number = order.first
        self._reader, self._writer = streams
        self._replies = hiredis.Reader()

    async def put(self, agent: str, count: int) -> None:
        """Put mail into one agent's queue."""
        model = self._models[agent]
        for start in range(0, count, TOGETHER):
            some = min(TOGETHER, count - start)
            self._writer.write(b"".join(model.write(self._number + n) for n in range(some)))
            self._number += some
            for _ in range(some):
                reply = await self._reply()
                if not isinstance(reply, list) or reply[0] != b"created":
                    raise SystemExit(f"the ledger did not take a message: {reply!r}")

    async def _reply(self) -> Any:
        while (reply := self._replies.gets()) is False:
            self._replies.feed(await self._reader.read(65536))
        return reply


async def models(order: Order, client: Redis) -> dict[str, Model]:
    """Let one request for each agent through the use case, and keep what it would have told Redis."""
    live = LiveConfig.load(Path(order.config), {**os.environ, "POSTROOM_REDIS_URL": order.redis_url})
    templates = TemplateSet.load_folder(live.current.templates.dir)
    key, _ = await Watch(client).digest_key(None)
    digests = Digests(key)
    await publish_templates(templates, client)
    script = load_scripts()["accept"]
    await client.script_load(script.source)
    catch: Any = _Catch()
    acceptance = Acceptance(catch, catch, content_ms=3_600_000, message_ms=72 * 3_600_000)
    shelf = Shelf(templates, client, get_logger())
    accept = AcceptMessage(shelf, acceptance, Files(catch, catch), lambda: digests, lambda _agent: None)
    identity: Identity = Authenticator(live.current).authenticate([f"Bearer {TOKEN}".encode()], None)
    found = {}
    for agent in order.agents:
        body = json.dumps({**order.body, "agent": agent}).encode()
        with suppress(CaughtError):
            await accept(identity, decode_request(body), Origin())
        found[agent] = Model(agent, script.sha, catch.words, digests)
    return found


async def run(order: Order) -> None:
    """Fill, say so, and keep the level if there is one to keep."""
    client: Redis = Redis.from_url(order.redis_url)
    streams = await asyncio.open_unix_connection(order.redis_url.removeprefix("unix://"))
    filler = Filler(order, await models(order, client), streams)
    for agent in order.agents:
        await filler.put(agent, order.count)
    print(json.dumps({"filled": order.count * len(order.agents)}), flush=True)
    if order.level:
        await keep_level(order, filler, client)
    streams[1].close()
    await client.aclose()


async def keep_level(order: Order, filler: Filler, client: Redis) -> None:
    """Put in what was sent meanwhile, every few milliseconds, until stdin ends."""
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    pause = LOOK_SECONDS + LOOK_SECONDS_MORE * len(order.agents)
    while not ended.done():
        pipe = client.pipeline(transaction=False)
        for agent in order.agents:
            pipe.zcard(f"{place_of(agent).prefix}q:{agent}:n")
        for agent, waiting in zip(order.agents, await pipe.execute(), strict=True):
            if waiting < order.level:
                await filler.put(agent, order.level - waiting)
        await asyncio.sleep(pause)


def main() -> None:
    """Do what the first word says, as JSON."""
    uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Order)))


if __name__ == "__main__":
    main()
